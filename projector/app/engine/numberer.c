/* numberer.c - the thread that numbers archived events. */
#include "projector/app/engine/numberer.h"

#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/numbering.h"

enum {
  LOOK_MS = 250, /* between two looks; grows up to IDLE_MS while they find nothing */
  IDLE_MS = 1000,
  FOUND_SHARE = 2,  /* a page that took the time t is followed by a rest of so many times t */
  EMPTY_SHARE = 10, /* the same after a look that found nothing: it may have read a large archive */
  REST_MAX_MS = 10000,
};

struct Numberer {
  Numbering *numbering;
  Metrics *metrics;
  Stop *stop;
  int64_t complete_at; /* monotonic, us; of the last look that found nothing to number */
  GThread *thread;
  Pulse pulse;
  int idle; /* looks that found nothing */
};

static bool tell_refused(const Event *event, const Failure *failure, void *data) {
  const Numberer *numberer = data;
  char id[ID_TEXT_SIZE];
  id_text(&event->key.event_id, id);
  Failure redacted = log_redacted(failure);
  log_warning("archived event gets no number for now",
              LOG_FIELDS(LOG_TEXT("event", id),
                         LOG_TEXT("class", failure_class_name(failure->class)),
                         LOG_NUMBER("code", failure->code), LOG_TEXT("reason", redacted.message)));
  return !stop_requested(numberer->stop);
}

/* Numbers a page; returns the ms until the next. */
static int64_t step(Numberer *numberer) {
  Failure failure = {0};
  int64_t begun = clock_us(), count = 0;
  pulse_begin(&numberer->pulse);
  bool good = numbering_step(numberer->numbering, &count, &failure);
  pulse_end(&numberer->pulse);
  bool complete = good && count == 0 && numbering_left_out(numberer->numbering) == 0;
  if (complete)
    numberer->complete_at = begun;
  metrics_set_unnumbered_since(numberer->metrics, complete ? 0 : numberer->complete_at);
  int64_t took_ms = (clock_us() - begun) / 1000;
  if (!good && failure.class == FAILURE_FENCED) {
    stop_request(numberer->stop, &failure);
  } else if (!good && failure.class != FAILURE_CONFLICT && !stop_requested(numberer->stop)) {
    log_failure(LOG_LEVEL_WARNING, "cannot number archived events", &failure);
    return IDLE_MS;
  }
  numberer->idle = count > 0 ? 0 : numberer->idle + 1;
  if (count > 0)
    return MIN(took_ms * FOUND_SHARE, REST_MAX_MS);
  return CLAMP(took_ms * EMPTY_SHARE, numberer->idle > 8 ? IDLE_MS : LOOK_MS, REST_MAX_MS);
}

static gpointer run(gpointer data) {
  Numberer *numberer = data;
  while (!stop_wait(numberer->stop, step(numberer)))
    ;
  return NULL;
}

Numberer *numberer_new(MongoStore *store, int64_t epoch, Metrics *metrics, Stop *stop) {
  if (!mongo_store_settings(store)->archive)
    return NULL;
  Numberer *numberer = g_new0(Numberer, 1);
  numberer->numbering = numbering_new(store, epoch, tell_refused, numberer);
  numberer->metrics = metrics;
  numberer->stop = stop;
  numberer->complete_at = clock_us();
  return numberer;
}

void numberer_start(Numberer *numberer) {
  if (numberer)
    numberer->thread = g_thread_new("numberer", run, numberer);
}

Pulse *numberer_pulse(Numberer *numberer) {
  return numberer ? &numberer->pulse : NULL;
}

static void join(Numberer *numberer) {
  if (numberer->thread)
    g_thread_join(g_steal_pointer(&numberer->thread));
}

void numberer_complete(Numberer *numberer, Stop *process, int64_t most_ms) {
  int64_t ends_at = clock_us() + most_ms * 1000, count = 1;
  if (!numberer)
    return;
  join(numberer);
  numberer->stop = process;
  while (count > 0 && clock_us() < ends_at && !stop_requested(process)) {
    Failure failure = {0};
    if (numbering_step(numberer->numbering, &count, &failure))
      continue;
    if (failure.class == FAILURE_FENCED) /* the later owner numbers them */
      return;
    if (failure.class != FAILURE_CONFLICT) {
      log_failure(LOG_LEVEL_WARNING, "cannot number archived events", &failure);
      return;
    }
    count = 1;
    stop_wait(process, LOOK_MS);
  }
  if (count > 0 && !stop_requested(process))
    log_info("archived events may be left without a number: the next run continues", NULL);
}

void numberer_free(Numberer *numberer) {
  if (!numberer)
    return;
  join(numberer);
  metrics_set_unnumbered_since(numberer->metrics, 0); /* the next owner will find out */
  numbering_free(numberer->numbering);
  g_free(numberer);
}

/* marker.c - the thread that marks slow batches. */
#include "projector/app/engine/marker.h"

#include "projector/infra/log.h"
#include "projector/infra/mongo/claims.h"

enum {
  PACE_MS = 100,
  MARKS_MAX = 100, /* of one worker, at a time */
};

struct Marker {
  const Config *config;
  Outbox *outbox;
  Hand *const *hands;
  unsigned count;
  Stop *stop;
  GThread *thread;
  Pulse pulse;
};

/* A failed mark is not retried: it only informs, and nothing depends on it. */
static void mark(Marker *marker, Hand *hand) {
  bson_t ids = BSON_INITIALIZER;
  Failure failure = {0};
  if (hand_begin_marks(hand, marker->config->settings.claim_mark_ms, MARKS_MAX, &ids) > 0) {
    pulse_begin(&marker->pulse);
    if (!claims_mark(marker->outbox, &ids, &failure))
      log_failure(LOG_LEVEL_WARNING, "cannot mark slow events", &failure);
    pulse_end(&marker->pulse);
    hand_end_marks(hand);
  }
  bson_destroy(&ids);
}

static gpointer run(gpointer data) {
  Marker *marker = data;
  while (!stop_wait(marker->stop, PACE_MS))
    for (unsigned i = 0; i < marker->count && !stop_requested(marker->stop); i++)
      mark(marker, marker->hands[i]);
  return NULL;
}

Marker *marker_start(const Config *config, MongoStore *store, const char *owner, Hand *const *hands,
                     unsigned count, Stop *stop) {
  Marker *marker = g_new0(Marker, 1);
  *marker = (Marker){.config = config, .hands = hands, .count = count, .stop = stop};
  marker->outbox = outbox_new(store, owner);
  marker->thread = g_thread_new("marker", run, marker);
  return marker;
}

Pulse *marker_pulse(Marker *marker) {
  return &marker->pulse;
}

void marker_finish(Marker *marker) {
  if (!marker)
    return;
  g_thread_join(marker->thread);
  outbox_free(marker->outbox);
  g_free(marker);
}

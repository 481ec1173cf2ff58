/* acker.c - the acknowledge step. */
#include "projector/app/engine/acker.h"

#include "projector/app/engine/event_reports.h"
#include "projector/infra/crash.h"
#include "projector/infra/lock.h"

enum {
  TOGETHER = 1000, /* most events in one acknowledgement */
  GATHER_MS = 10,  /* a few events wait this long for more: fewer commands under a steady load */
  WAITING = 4000,  /* most events queued before workers wait */
  RETRY_MS = 200,
  UNMARK_TRIES = 3,
  REFUSED_RETRY_MS = 5000,
  REFUSED_RETRY_MAX_MS = 20000, /* doubled up to this while many are refused */
  REFUSED_MOST = 20,            /* events that are found to be refused, in one round */
};

struct Acker {
  GThread *thread;
  Pulse pulse;
  Outbox *outbox;
  Feeder *feeder;   /* NULL: there is no feed */
  Metrics *metrics; /* NULL: nobody counts */
  const Lanes *lanes;
  Stop *stop;
  GMutex lock;
  GCond changed;
  GPtrArray *queue; /* of QueuedEvent */
  bool finishing;
  bool given_up;         /* an acknowledgement */
  unsigned refused;      /* events in this round */
  int64_t refused_retry; /* ms */
};

/* Waits until something is queued, and takes all of it. NULL: nothing is, and nothing will be. */
static GPtrArray *take(Acker *acker) {
  SCOPED_LOCK(&acker->lock);
  while (acker->queue->len == 0 && !acker->finishing)
    g_cond_wait(&acker->changed, &acker->lock);
  if (acker->queue->len == 0)
    return NULL;
  int64_t until = g_get_monotonic_time() + (int64_t)GATHER_MS * 1000;
  while (!acker->finishing && acker->queue->len < TOGETHER)
    if (!g_cond_wait_until(&acker->changed, &acker->lock, until))
      break;
  GPtrArray *taken = acker->queue;
  acker->queue = g_ptr_array_new();
  g_cond_broadcast(&acker->changed);
  return taken;
}

/* What the acker is handed was read whole. Where the feeder has been at one of the events since,
 * it is read again for the copies; so it is where a former owner has applied one, and perhaps one
 * before it, which then has to be copied too. */
static bool acknowledge_once(Acker *acker, Event *const *events, size_t count, bool repeated,
                             Failure *ret_failure) {
  bool whole = feeder_has_marked_none(acker->feeder, events, count) && !repeated;
  return whole ? outbox_acknowledge_whole(acker->outbox, events, count, ret_failure)
               : outbox_acknowledge(acker->outbox, events, count, ret_failure);
}

/* Retries until it succeeds or MongoDB refuses one of the events; in an orderly stop it gives up at
 * the first failure. */
static bool acknowledge(Acker *acker, Event *const *events, size_t count, bool repeated,
                        Failure *ret_failure) {
  while (!acknowledge_once(acker, events, count, repeated, ret_failure)) {
    if (failure_is_refusal(ret_failure))
      return false;
    log_failure(LOG_LEVEL_WARNING, "cannot acknowledge", ret_failure);
    if (ret_failure->class == FAILURE_CONFIG)
      stop_request(acker->stop, ret_failure);
    acker->given_up = stop_wait(acker->stop, RETRY_MS);
    if (acker->given_up)
      return false;
  }
  feeder_note_acknowledged(acker->feeder, count);
  return true;
}

static bool any_is_repeated(QueuedEvent *const *queued, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (queued[i]->repeated)
      return true;
  return false;
}

static Lane *home_of(const Acker *acker, const QueuedEvent *queued) {
  return lane_of(acker->lanes, queued->event->aggregate_hash);
}

/* An event that stays is pending, whatever it was before. When its hold lets it through, it is
 * found in the ledger and comes here again. */
static void unmark(Acker *acker, QueuedEvent *const *queued, size_t count) {
  g_autofree Event **marked = g_new(Event *, count);
  size_t marked_count = 0;
  int tries = UNMARK_TRIES; /* a refusal may have been for a moment */
  Failure failure = {0};
  for (size_t i = 0; i < count; i++) {
    queued[i]->event->status = STATUS_PENDING;
    if (queued[i]->marked)
      marked[marked_count++] = queued[i]->event;
  }
  while (marked_count > 0 && !outbox_release(acker->outbox, marked, marked_count, &failure)) {
    log_failure(LOG_LEVEL_WARNING, "cannot mark events in the outbox", &failure);
    if (failure.class == FAILURE_CONFIG)
      stop_request(acker->stop, &failure);
    bool refused = failure_is_refusal(&failure) && --tries == 0;
    if (failure.class == FAILURE_DATA || refused || stop_wait(acker->stop, RETRY_MS))
      return; /* the sweeper finds them */
  }
}

static void hold(Acker *acker, QueuedEvent *queued, int64_t delay_ms) {
  Lane *lane = home_of(acker, queued);
  if (event_has_aggregate(queued->event))
    lane_hold_applied(lane, queued, delay_ms);
  lane_forget(lane, queued);
}

static void keep_refused(Acker *acker, QueuedEvent *queued, const Failure *failure) {
  unmark(acker, &queued, 1);
  report_refused(acker->lanes->watch, acker->metrics, "applied event cannot leave the outbox",
                 queued->event, failure);
  hold(acker, queued, acker->refused_retry);
  acker->refused++;
}

/* They come again before those that were refused. */
static void keep_untried(Acker *acker, QueuedEvent *const *queued, size_t count) {
  unmark(acker, queued, count);
  for (size_t i = 0; i < count; i++)
    if (lane_keeps(home_of(acker, queued[i]), queued[i]->event))
      lane_give_back(home_of(acker, queued[i]), queued[i]);
    else
      hold(acker, queued[i], acker->refused_retry / 2);
}

/* What follows an event that stays, in its aggregate, stays with it. Returns how many may leave. */
static size_t keep_what_follows(Acker *acker, QueuedEvent *const *queued, size_t count,
                                QueuedEvent **ret_leaving) {
  g_autofree QueuedEvent **staying = g_new(QueuedEvent *, count);
  size_t leaving_count = 0, staying_count = 0;
  for (size_t i = 0; i < count; i++)
    if (lane_keeps(home_of(acker, queued[i]), queued[i]->event))
      staying[staying_count++] = queued[i];
    else
      ret_leaving[leaving_count++] = queued[i];
  unmark(acker, staying, staying_count);
  for (size_t i = 0; i < staying_count; i++)
    lane_give_back(home_of(acker, staying[i]), staying[i]);
  return leaving_count;
}

/* Nothing follows what was given up: in the feeds and in the archive it would stand before what
 * came before it. The next owner finds both in the ledger. If MongoDB refuses events together,
 * halving finds those that it refuses alone; not all of them in one round, which workers wait for,
 * and none in a stop. */
static void let_leave(Acker *acker, QueuedEvent *const *queued, size_t count) {
  g_autofree QueuedEvent **leaving = NULL;
  Failure failure = {0};
  if (acker->given_up)
    return;
  if (g_atomic_int_get(&acker->lanes->holds) > 0) {
    leaving = g_new(QueuedEvent *, count);
    count = keep_what_follows(acker, queued, count, leaving);
    queued = leaving;
  }
  g_autofree Event **events = queued_events_bare(queued, count);
  if (count == 0)
    return;
  crash_point("before_acknowledge");
  /* After a freeze, for example, another owner may have taken these events out long ago, and a
   * feed's reader may have forgotten them: a copy made now would be applied again. What is left of
   * them the other owner finds in the ledger. */
  if (stop_is_too_late(acker->stop)) {
    acker->given_up = true;
    return;
  }
  if (acknowledge(acker, events, count, any_is_repeated(queued, count), &failure)) {
    crash_point("after_acknowledge");
    for (size_t i = 0; i < count; i++)
      lane_settle(home_of(acker, queued[i]), queued[i]);
  } else if (acker->given_up) {
    return;
  } else if (count == 1) {
    keep_refused(acker, queued[0], &failure);
  } else if (stop_requested(acker->stop)) {
    acker->given_up = true;
  } else if (acker->refused >= REFUSED_MOST) {
    keep_untried(acker, queued, count);
  } else {
    let_leave(acker, queued, count / 2);
    let_leave(acker, queued + count / 2, count - count / 2);
  }
}

static void acknowledge_all(Acker *acker, const GPtrArray *all) {
  acker->refused = 0;
  for (guint from = 0; from < all->len; from += TOGETHER)
    let_leave(acker, (QueuedEvent **)all->pdata + from, MIN(TOGETHER, all->len - from));
  if (acker->refused >= REFUSED_MOST)
    acker->refused_retry = MIN(acker->refused_retry * 2, REFUSED_RETRY_MAX_MS);
  else if (acker->refused > 0)
    acker->refused_retry = REFUSED_RETRY_MS;
}

/* Returns false when no event is queued and none will be. */
static bool step(Acker *acker) {
  g_autoptr(GPtrArray) events = take(acker);
  if (!events)
    return false;
  pulse_begin(&acker->pulse);
  acknowledge_all(acker, events);
  pulse_end(&acker->pulse);
  return true;
}

static gpointer run(gpointer data) {
  while (step(data))
    ;
  return NULL;
}

Acker *acker_new(MongoStore *store, const char *owner, const Lanes *lanes, Stop *stop) {
  Acker *acker = g_new0(Acker, 1);
  acker->outbox = outbox_new(store, owner);
  acker->lanes = lanes;
  acker->stop = stop;
  g_mutex_init(&acker->lock);
  g_cond_init(&acker->changed);
  acker->queue = g_ptr_array_new();
  acker->refused_retry = REFUSED_RETRY_MS;
  return acker;
}

void acker_heed(Acker *acker, Feeder *feeder) {
  acker->feeder = feeder;
}

void acker_count_in(Acker *acker, Metrics *metrics) {
  acker->metrics = metrics;
}

void acker_start(Acker *acker) {
  acker->thread = g_thread_new("acker", run, acker);
}

Pulse *acker_pulse(Acker *acker) {
  return &acker->pulse;
}

void acker_join(Acker *acker) {
  g_mutex_lock(&acker->lock);
  acker->finishing = true;
  g_cond_broadcast(&acker->changed);
  g_mutex_unlock(&acker->lock);
  g_thread_join(acker->thread);
}

void acker_free(Acker *acker) {
  if (!acker)
    return;
  outbox_free(acker->outbox);
  g_ptr_array_unref(acker->queue);
  g_mutex_clear(&acker->lock);
  g_cond_clear(&acker->changed);
  g_free(acker);
}

/* Call with the lock. */
static void wait_for_room(Acker *acker) {
  Pulse *pulse = pulse_put_down();
  while (acker->queue->len >= WAITING)
    g_cond_wait(&acker->changed, &acker->lock);
  pulse_take_up(pulse);
}

void acker_push(Acker *acker, QueuedEvent *const *events, size_t count) {
  if (count == 0)
    return;
  SCOPED_LOCK(&acker->lock);
  wait_for_room(acker);
  for (size_t i = 0; i < count; i++)
    g_ptr_array_add(acker->queue, events[i]);
  g_cond_broadcast(&acker->changed);
}

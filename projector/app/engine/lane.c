/* lane.c - the queue, the set of the ids in memory, and what a hold does to them. */
#include "projector/app/engine/lane_private.h"

#include "projector/domain/claim.h"
#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

enum {
  REPEAT_MS = 50, /* pause before a blocking event that should be gone is looked at again */
};

static void hold_free(gpointer data) {
  Hold *hold = data;
  if (hold->place)
    g_sequence_remove(hold->place);
  g_free(hold->aggregate);
  g_free(hold);
}

Lane *lane_new(LaneLimits limits, Alarm *due) {
  Lane *lane = g_new0(Lane, 1);
  g_mutex_init(&lane->lock);
  g_cond_init(&lane->room);
  g_cond_init(&lane->work);
  lane->queue = event_queue_new();
  lane->known = g_hash_table_new(id_hash_key, id_equal_key);
  lane->holds = g_hash_table_new_full(aggregate_hash_key, aggregate_equal_key, NULL, hold_free);
  lane->due = g_sequence_new(NULL);
  lane->alarm = due;
  lane->limits = limits;
  return lane;
}

void lane_free(Lane *lane) {
  if (!lane)
    return;
  GHashTableIter iter;
  gpointer queued;
  g_hash_table_iter_init(&iter, lane->known);
  while (g_hash_table_iter_next(&iter, NULL, &queued)) {
    g_hash_table_iter_steal(&iter);
    queued_event_free(queued);
  }
  g_hash_table_unref(lane->known);
  g_hash_table_unref(lane->holds);
  g_sequence_free(lane->due);
  event_queue_free(lane->queue);
  g_mutex_clear(&lane->lock);
  g_cond_clear(&lane->room);
  g_cond_clear(&lane->work);
  g_free(lane);
}

void lane_stop(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  lane->stopped = true;
  g_cond_broadcast(&lane->room);
  g_cond_broadcast(&lane->work);
}

/* --- holds and the queue ------------------------------------------------------------------ */

static gint compare_due(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  const Hold *x = a, *y = b;
  return (x->due > y->due) - (x->due < y->due);
}

void lane_set_due(Lane *lane, Hold *hold, int64_t delay_ms) {
  ASSERT_LOCKED(&lane->lock);
  if (hold->place)
    g_sequence_remove(hold->place);
  hold->place = NULL;
  if (delay_ms == DUE_NEVER)
    return;
  hold->due = clock_us() + delay_ms * 1000;
  hold->place = g_sequence_insert_sorted(lane->due, hold, compare_due, NULL);
  if (g_sequence_iter_is_begin(hold->place))
    alarm_ring(lane->alarm);
}

Hold *lane_find_hold(const Lane *lane, const Event *event) {
  if (g_hash_table_size(lane->holds) == 0 || !event_has_aggregate(event))
    return NULL;
  return g_hash_table_lookup(lane->holds, &event->aggregate);
}

void lane_count_hold(Lane *lane, gint more) {
  if (!lane->limits.all_holds)
    return;
  gint before = g_atomic_int_add(lane->limits.all_holds, more);
  g_assert(before + more >= 0);
}

static int64_t since(const Lane *lane, const QueuedEvent *queued) {
  return queued->readable_at ? queued->readable_at : lane->assumed;
}

/* The event that blocked so far now waits behind an older one. */
static int64_t head_behind(const Hold *hold, const Event *event) {
  return hold->reason != HOLD_DEAD && hold->reason != HOLD_FUTURE &&
                 order_key_compare(&event->key, &hold->key) < 0
             ? hold->head_since
             : INT64_MAX;
}

/* An event whose time was far ahead, and what is behind it, did not wait until now. */
void lane_end_future(const Lane *lane, Hold *hold) {
  if (hold->reason != HOLD_FUTURE)
    return;
  hold->head_since = lane->assumed;
  if (hold->behind_since != INT64_MAX || hold->rest_since != INT64_MAX)
    hold->behind_since = lane->assumed;
  hold->rest_since = INT64_MAX;
}

/* An older event takes the hold over from a younger one: a hold belongs to the first event that
 * blocks. */
Hold *lane_open_hold(Lane *lane, const QueuedEvent *queued, HoldReason reason, int64_t delay_ms) {
  const Event *event = queued->event;
  Hold *hold = g_hash_table_lookup(lane->holds, &event->aggregate);
  if (!hold) {
    hold = g_new0(Hold, 1);
    hold->aggregate = aggregate_copy(&event->aggregate);
    hold->head_since = hold->behind_since = hold->rest_since = INT64_MAX;
    g_hash_table_insert(lane->holds, hold->aggregate, hold);
    lane_count_hold(lane, 1);
  } else if (hold->state != STATE_DRAINING && order_key_compare(&event->key, &hold->key) > 0) {
    return NULL;
  }
  int64_t behind = head_behind(hold, event);
  lane_end_future(lane, hold);
  if (hold->state == STATE_DRAINING && hold->missed_from == INT64_MAX) {
    hold->rest_since = MIN(hold->behind_since, behind);
    hold->behind_since = behind = INT64_MAX;
  }
  if (hold->reason == HOLD_FUTURE && hold->state != STATE_DRAINING &&
      order_key_compare(&event->key, &hold->key) < 0)
    hold->behind_since = INT64_MAX; /* what waits here is behind the future event, as before */
  hold->behind_since = MIN(hold->behind_since, behind);
  hold->head_since = since(lane, queued);
  order_key_copy(&event->key, &hold->key, hold->key_bytes);
  hold->state = STATE_WAITING;
  hold->reason = reason;
  hold->call = CALL_DUE;
  hold->looks = 0;
  hold->undecided = false;
  hold->batch = lane->batch;
  lane_set_due(lane, hold, delay_ms);
  return hold;
}

static bool is_head(const Hold *hold, const Event *event) {
  return order_key_compare(&event->key, &hold->key) == 0;
}

static void note_missed(const Lane *lane, Hold *hold, const QueuedEvent *queued) {
  const Event *event = queued->event;
  int64_t read = since(lane, queued);
  /* The blocking event itself, read again, does not wait behind its hold. */
  if (!is_head(hold, event) && event->status != STATUS_DEAD)
    hold->behind_since = MIN(hold->behind_since, read);
  hold->missed_from = MIN(hold->missed_from, event->key.occurred_at);
}

/* Whether the event must wait: it is behind a hold, and the draining has not reached it yet. */
bool lane_has_to_wait(const Hold *hold, const Event *event) {
  return order_key_compare(&event->key, &hold->key) > 0 &&
         (hold->state != STATE_DRAINING || order_key_compare(&event->key, &hold->reached) > 0);
}

static bool is_full(const Lane *lane) {
  size_t holds = lane->limits.all_holds ? (size_t)g_atomic_int_get(lane->limits.all_holds)
                                        : g_hash_table_size(lane->holds);
  return holds >= lane->limits.holds;
}

static bool has_room(const Lane *lane) {
  return g_hash_table_size(lane->known) == 0 ||
         (event_queue_count(lane->queue) < lane->limits.events && lane->bytes < lane->limits.bytes);
}

/* Call after the queue or the memory in use became smaller. */
static void wake_readers(Lane *lane) {
  if (lane->for_room > 0 && has_room(lane))
    g_cond_broadcast(&lane->room);
}

/* Call after the queue became longer, or more of it may be taken. */
void lane_wake_worker(Lane *lane) {
  if (lane->wanted > 0 && event_queue_count(lane->queue) >= lane->wanted)
    g_cond_broadcast(&lane->work);
}

static void enqueue(Lane *lane, QueuedEvent *queued) {
  g_assert(queued->place != PLACE_QUEUE);
  queued->place = PLACE_QUEUE;
  event_queue_push(lane->queue, queued);
  lane_wake_worker(lane);
}

/* Events let through behind a hold get half as much room again: they must not wait for the reader's
 * queue, from which nobody takes at the limit of holds. */
bool lane_has_room_around(const Lane *lane) {
  return has_room(lane) || (event_queue_count(lane->queue) < lane->limits.events / 2 * 3 &&
                            lane->bytes < lane->limits.bytes / 2 * 3);
}

bool lane_has_room(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  return has_room(lane);
}

bool lane_wait_room(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  lane->for_room++;
  while (!lane->stopped && !has_room(lane))
    g_cond_wait(&lane->room, &lane->lock);
  lane->for_room--;
  return !lane->stopped;
}

QueuedEvent *lane_find_known(const Lane *lane, const Event *event) {
  return g_hash_table_lookup(lane->known, &event->key.event_id);
}

bool lane_knows(Lane *lane, const Id *event_id) {
  SCOPED_LOCK(&lane->lock);
  return g_hash_table_contains(lane->known, event_id);
}

bool lane_queue(Lane *lane, QueuedEvent *queued) {
  ASSERT_LOCKED(&lane->lock);
  g_assert(queued->place == PLACE_NEW);
  if (lane->stopped || lane_find_known(lane, queued->event)) {
    queued_event_free(queued);
    return false;
  }
  queued->readable_at = since(lane, queued);
  g_hash_table_insert(lane->known, &queued->event->key.event_id, queued);
  lane->bytes += queued_event_memory(queued);
  enqueue(lane, queued);
  return true;
}

static void forget(Lane *lane, QueuedEvent *queued) {
  if (lane->next == queued)
    lane->next = NULL;
  bool known = g_hash_table_remove(lane->known, &queued->event->key.event_id);
  size_t size = queued_event_memory(queued);
  g_assert(known && queued->place == PLACE_TAKEN && size <= lane->bytes);
  lane->bytes -= size;
  queued_event_free(queued);
  wake_readers(lane);
}

static HoldReason reason_of(EventStatus status) {
  return status == STATUS_DEAD ? HOLD_DEAD : status == STATUS_FAILED ? HOLD_FAILED : HOLD_TAKEN;
}

static bool has_failed(const Event *event) {
  return event->status == STATUS_FAILED || event->status == STATUS_DEAD;
}

/* The janitor learns when to retry it; whatever earlier event is settled from now on may be what it
 * waits for. */
void lane_hold_as_read(Lane *lane, const QueuedEvent *queued, HoldCall call) {
  const Hold *before = lane_find_hold(lane, queued->event);
  /* The outbox may be read as it was before the draining began: not again and again at once. */
  bool repeats = before && before->state == STATE_DRAINING && is_head(before, queued->event);
  Hold *hold =
      lane_open_hold(lane, queued, reason_of(queued->event->status), repeats ? REPEAT_MS : 0);
  hold->call = call;
  hold->undecided = repeats;
  hold->batch = 0;
}

bool lane_offer(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  const Event *event = queued->event;
  Hold *hold = lane_find_hold(lane, event);
  if (hold &&
      (lane_has_to_wait(hold, event) || (is_head(hold, event) && hold->state != STATE_DRAINING))) {
    note_missed(lane, hold, queued);
    queued_event_free(queued);
    return false;
  }
  if (hold && order_key_compare(&event->key, &hold->key) >= 0) {
    queued->read_at = 0; /* the draining is past it, and may have let it through before */
    queued->gap_waited = is_head(hold, event) && hold->reason == HOLD_GAP && hold->call == CALL_DUE;
  }
  if (!has_failed(event) || (event->status == STATUS_FAILED && !event_has_aggregate(event)))
    return lane_queue(lane, queued);
  if (event_has_aggregate(event) && !lane_find_known(lane, event))
    lane_hold_as_read(lane, queued, CALL_REVIEW);
  queued_event_free(queued);
  return false;
}

/* --- taking ------------------------------------------------------------------------------- */

static bool is_held(const Event *event, gconstpointer data) {
  return lane_find_hold(data, event) != NULL;
}

static QueuedEvent *taken(QueuedEvent *queued) {
  g_assert(queued->place == PLACE_QUEUE);
  queued->place = PLACE_TAKEN;
  return queued;
}

/* The smallest event of the aggregate of `like`, then of all: events of one aggregate in one
 * transaction cost one position and one row, however many there are. */
static QueuedEvent *pop(Lane *lane, const QueuedEvent *like) {
  QueuedEvent *queued = NULL;
  if (is_full(lane)) { /* of holds: only events of held aggregates */
    queued = event_queue_pop_where(lane->queue, is_held, lane);
  } else {
    queued = like ? event_queue_pop_like(lane->queue, like) : NULL;
    if (!queued)
      queued = event_queue_pop(lane->queue);
  }
  return queued ? taken(queued) : NULL;
}

/* The next event of the queue that no hold blocks. */
static QueuedEvent *pop_free(Lane *lane, const QueuedEvent *like) {
  QueuedEvent *queued;
  while ((queued = pop(lane, like))) {
    Hold *hold = lane_find_hold(lane, queued->event);
    if (!hold || !lane_has_to_wait(hold, queued->event))
      return queued;
    note_missed(lane, hold, queued);
    forget(lane, queued);
  }
  return NULL;
}

/* At the limit of holds, only events of held aggregates. */
static size_t count_takeable(Lane *lane) {
  return is_full(lane) ? event_queue_count_where(lane->queue, is_held, lane)
                       : event_queue_count(lane->queue);
}

/* An event that could not be taken together with smaller ones gets its turn first: while those are
 * retried again and again, it would wait forever. It never overtakes an earlier event of its
 * aggregate. */
static QueuedEvent *pop_next(Lane *lane) {
  QueuedEvent *next = g_steal_pointer(&lane->next);
  if (!next || (is_full(lane) && !lane_find_hold(lane, next->event)))
    return NULL;
  const Hold *hold = lane_find_hold(lane, next->event);
  bool waits = hold && lane_has_to_wait(hold, next->event);
  return !waits && event_queue_take(lane->queue, next) ? taken(next) : NULL;
}

static size_t pop_batch(Lane *lane, const Taking *how, QueuedEvent **events) {
  size_t count = 0, bytes = 0;
  const QueuedEvent *like = NULL;
  lane->batch++;
  while (!lane->stopped && count < how->max_events) {
    QueuedEvent *queued = count == 0 ? pop_next(lane) : NULL;
    if (!queued)
      queued = pop_free(lane, like);
    if (!queued)
      break;
    size_t size = queued_event_memory(queued);
    bool apart = count > 0 && (claim_comes_alone(queued->event->attempts) ||
                               claim_comes_alone(events[count - 1]->event->attempts));
    if (apart || (count > 0 && bytes + size > how->max_bytes)) {
      lane->next = apart ? queued : NULL;
      enqueue(lane, queued);
      break;
    }
    queued->batch = lane->batch;
    events[count++] = queued;
    bytes += size;
    like = lane->limits.by_aggregate ? queued : NULL;
  }
  wake_readers(lane);
  return count;
}

/* Once something is queued, waits for a full batch, for at most `linger_ms`. */
static void linger(Lane *lane, const Taking *how) {
  int64_t until = clock_us() + how->linger_ms * 1000;
  bool in_time = event_queue_count(lane->queue) > 0;
  lane->wanted = how->max_events;
  while (in_time && !lane->stopped && event_queue_count(lane->queue) < how->max_events)
    in_time = g_cond_wait_until(&lane->work, &lane->lock, until);
  lane->wanted = 0;
}

/* Returns false when stopped. */
static bool wait_work(Lane *lane) {
  lane->wanted = 1;
  if (!lane->stopped)
    g_cond_wait(&lane->work, &lane->lock);
  lane->wanted = 0;
  return !lane->stopped;
}

size_t lane_take(Lane *lane, const Taking *how, QueuedEvent **events) {
  SCOPED_LOCK(&lane->lock);
  size_t count;
  do {
    if (how->linger_ms > 0)
      linger(lane, how);
    count = pop_batch(lane, how, events);
  } while (count == 0 && how->wait && wait_work(lane));
  return count;
}

void lane_requeue(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  enqueue(lane, queued);
}

/* Whether the hold keeps out an event that was in hand; also its own event, when that waits for the
 * gap before it. */
static bool has_to_wait_in_outbox(const Hold *hold, const Event *event) {
  if (lane_has_to_wait(hold, event))
    return true;
  return hold->reason == HOLD_GAP && hold->state != STATE_DRAINING && is_head(hold, event);
}

/* What a draining has let through stays in the queue: it would come again only after the later
 * events that were let through with it. */
void lane_give_back(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = lane_find_hold(lane, queued->event);
  if (hold && has_to_wait_in_outbox(hold, queued->event)) {
    note_missed(lane, hold, queued);
    forget(lane, queued);
  } else {
    queued->has_hold = false; /* one of its own would keep it out */
    enqueue(lane, queued);
  }
}

void lane_wake(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  lane_wake_worker(lane);
}

void lane_forget(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  forget(lane, queued);
}

/* A review must not replace a retry that is still owed: it would wait for the event's own due
 * time. */
void lane_call(Lane *lane, Hold *hold, HoldCall why) {
  hold->state = STATE_WAITING;
  if (hold->call != CALL_RETRY)
    hold->call = why;
  hold->looks = 0;
  lane_set_due(lane, hold, 0);
}

/* Whether the end of this event may change what the hold waits for. An event that was taken with or
 * before the blocking one was already applied when that failed. */
static bool concerns(const Hold *hold, const QueuedEvent *queued) {
  int order = order_key_compare(&queued->event->key, &hold->key);
  return order == 0 || (order < 0 && queued->batch > hold->batch);
}

void lane_settle(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = lane_find_hold(lane, queued->event);
  if (hold && hold->state != STATE_DRAINING && concerns(hold, queued))
    lane_call(lane, hold, CALL_RETRY);
  forget(lane, queued);
}

bool lane_is_behind_hold(Lane *lane, const Event *event) {
  SCOPED_LOCK(&lane->lock);
  const Hold *hold = lane_find_hold(lane, event);
  return hold && lane_has_to_wait(hold, event);
}

/* --- figures ------------------------------------------------------------------------------ */

void lane_assume(Lane *lane, int64_t settled_until) {
  SCOPED_LOCK(&lane->lock);
  lane->assumed = settled_until;
}

int64_t lane_waiting_since(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  int64_t earliest = INT64_MAX;
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, lane->known);
  while (g_hash_table_iter_next(&iter, NULL, &value))
    earliest = MIN(earliest, ((const QueuedEvent *)value)->readable_at);
  g_hash_table_iter_init(&iter, lane->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Hold *hold = value;
    if (hold->reason == HOLD_FUTURE && hold->state != STATE_DRAINING)
      continue;
    earliest = MIN(earliest, MIN(hold->behind_since, hold->rest_since));
    if (hold->reason != HOLD_DEAD)
      earliest = MIN(earliest, hold->head_since);
  }
  return earliest;
}

LaneFigures lane_figures(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  LaneFigures figures = {.queued = event_queue_count(lane->queue),
                         .takeable = count_takeable(lane),
                         .in_hand = g_hash_table_size(lane->known) - event_queue_count(lane->queue),
                         .bytes = lane->bytes,
                         .holds = g_hash_table_size(lane->holds),
                         .full = is_full(lane)};
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, lane->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Hold *hold = value;
    figures.dead += hold->reason == HOLD_DEAD;
    figures.future += hold->reason == HOLD_FUTURE;
    figures.undecided += hold->state == STATE_CHECKED || hold->undecided;
    figures.gaps += hold->reason == HOLD_GAP || hold->state == STATE_DRAINING;
  }
  return figures;
}

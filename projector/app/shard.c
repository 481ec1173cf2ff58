/* shard.c - the queue, the set of the ids in memory, and the holds. */
#include "projector/app/shard.h"

#include "projector/app/event_heap.h"
#include "projector/infra/clock.h"

#include <limits.h>

typedef enum HoldState { HOLD_WAITING, HOLD_LOOKED_AT, HOLD_DRAINING } HoldState;

typedef struct Hold {
  Aggregate *aggregate;
  HoldState state;
  HoldReason reason;
  HoldCall call;
  unsigned looks;
  uint64_t batch; /* the last one taken when the hold was opened */
  OrderKey key;
  int64_t gap_first, gap_last;
  int64_t due;          /* monotonic, us */
  GSequenceIter *place; /* among those that will be due; NULL: it will not be, by itself */
  OrderKey reached;     /* by the draining: up to here the events have been let through */
  OrderKey next;        /* behind this it reads on */
  bool from_start;
  int64_t head_since;   /* the event that blocks waits since then, */
  int64_t behind_since; /* and those behind it; INT64_MAX: none is */
  int64_t missed_from;  /* earliest time of what was left out while draining; INT64_MAX: nothing */
  uint8_t key_bytes[EVENT_ID_MAX], reached_bytes[EVENT_ID_MAX], next_bytes[EVENT_ID_MAX];
} Hold;

#define NOBODY UINT_MAX /* has the shard */

/* Whoever waits is woken only for what it waits for: waking costs a system call, and there are
 * thousands of events a second. */
struct Shard {
  GMutex lock;
  GCond room;        /* in the queue, for those who read */
  GCond work;        /* for the shard's own worker */
  unsigned for_room; /* how many wait */
  unsigned for_work;
  size_t wanted;     /* events in the queue before the worker is woken */
  GPtrArray *heap;   /* of Event, the smallest at 0 */
  GHashTable *known; /* Id → Event, everything in memory */
  GHashTable *holds; /* Aggregate → Hold */
  GSequence *due;    /* of Hold, the earliest first */
  Alarm *alarm;
  ShardLimits limits;
  size_t bytes;
  int64_t assumed;     /* see shard_assume */
  uint64_t batch;      /* the last one taken */
  uint64_t news;       /* see shard_news */
  unsigned taken_by;   /* worker, or NOBODY */
  int64_t apart_until; /* monotonic, us */
  bool stopped;
};

static void hold_free(gpointer data) {
  Hold *hold = data;
  if (hold->place)
    g_sequence_remove(hold->place);
  g_free(hold->aggregate);
  g_free(hold);
}

Shard *shard_new(ShardLimits limits, Alarm *due) {
  Shard *shard = g_new0(Shard, 1);
  g_mutex_init(&shard->lock);
  g_cond_init(&shard->room);
  g_cond_init(&shard->work);
  shard->heap = g_ptr_array_new();
  shard->known = g_hash_table_new(id_hash_key, id_equal_key);
  shard->holds = g_hash_table_new_full(aggregate_hash_key, aggregate_equal_key, NULL, hold_free);
  shard->due = g_sequence_new(NULL);
  shard->alarm = due;
  shard->limits = limits;
  shard->taken_by = NOBODY;
  return shard;
}

void shard_free(Shard *shard) {
  if (!shard)
    return;
  GHashTableIter iter;
  gpointer event;
  g_hash_table_iter_init(&iter, shard->known);
  while (g_hash_table_iter_next(&iter, NULL, &event)) {
    g_hash_table_iter_steal(&iter);
    event_free(event);
  }
  g_hash_table_unref(shard->known);
  g_hash_table_unref(shard->holds);
  g_sequence_free(shard->due);
  g_ptr_array_unref(shard->heap);
  g_mutex_clear(&shard->lock);
  g_cond_clear(&shard->room);
  g_cond_clear(&shard->work);
  g_free(shard);
}

void shard_stop(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->stopped = true;
  g_cond_broadcast(&shard->room);
  g_cond_broadcast(&shard->work);
}

/* --- holds and the queue ------------------------------------------------------------------ */

static gint compare_due(gconstpointer a, gconstpointer b, gpointer data) {
  (void)data;
  const Hold *x = a, *y = b;
  return (x->due > y->due) - (x->due < y->due);
}

static void set_due(Shard *shard, Hold *hold, int64_t delay_ms) {
  if (hold->place)
    g_sequence_remove(hold->place);
  hold->place = NULL;
  if (delay_ms == DUE_NEVER)
    return;
  hold->due = clock_us() + delay_ms * 1000;
  hold->place = g_sequence_insert_sorted(shard->due, hold, compare_due, NULL);
  if (g_sequence_iter_is_begin(hold->place))
    alarm_ring(shard->alarm);
}

static Hold *find_hold(Shard *shard, const Event *event) {
  if (g_hash_table_size(shard->holds) == 0 || !event_has_aggregate(event))
    return NULL;
  return g_hash_table_lookup(shard->holds, &event->aggregate);
}

static void count_hold(Shard *shard, gint more) {
  if (shard->limits.all_holds)
    g_atomic_int_add(shard->limits.all_holds, more);
}

static int64_t since(const Shard *shard, const Event *event) {
  return event->readable_at ? event->readable_at : shard->assumed;
}

/* The event that blocked so far stands behind an older one from now on. */
static int64_t head_behind(const Hold *hold, const Event *event) {
  return hold->reason != HOLD_DEAD && order_key_compare(&event->key, &hold->key) < 0
             ? hold->head_since
             : INT64_MAX;
}

/* An older event takes the place of a younger one: the hold stands before the first that blocks. */
static Hold *open_hold(Shard *shard, const Event *event, HoldReason reason, int64_t delay_ms) {
  Hold *hold = g_hash_table_lookup(shard->holds, &event->aggregate);
  if (!hold) {
    hold = g_new0(Hold, 1);
    hold->aggregate = aggregate_copy(&event->aggregate);
    hold->head_since = hold->behind_since = INT64_MAX;
    g_hash_table_insert(shard->holds, hold->aggregate, hold);
    count_hold(shard, 1);
  } else if (hold->state != HOLD_DRAINING && order_key_compare(&event->key, &hold->key) > 0) {
    return NULL;
  }
  int64_t behind = head_behind(hold, event);
  hold->behind_since = MIN(hold->behind_since, behind);
  hold->head_since = since(shard, event);
  order_key_copy(&event->key, &hold->key, hold->key_bytes);
  hold->state = HOLD_WAITING;
  hold->reason = reason;
  hold->call = CALL_DUE;
  hold->looks = 0;
  hold->batch = shard->batch;
  set_due(shard, hold, delay_ms);
  return hold;
}

static void note_missed(const Shard *shard, Hold *hold, const Event *event) {
  int64_t read = since(shard, event);
  if (order_key_compare(&event->key, &hold->key) != 0) /* not the one that blocks, read again */
    hold->behind_since = MIN(hold->behind_since, read);
  hold->missed_from = MIN(hold->missed_from, event->key.occurred_at);
}

/* Whether the event has to wait: a hold stands before it, whose draining has not come to it yet. */
static bool has_to_wait(const Hold *hold, const Event *event) {
  return hold && order_key_compare(&event->key, &hold->key) > 0 &&
         (hold->state != HOLD_DRAINING || order_key_compare(&event->key, &hold->reached) > 0);
}

static bool is_full(const Shard *shard) {
  size_t holds = shard->limits.all_holds ? (size_t)g_atomic_int_get(shard->limits.all_holds)
                                         : g_hash_table_size(shard->holds);
  return holds >= shard->limits.holds;
}

static bool has_room(const Shard *shard) {
  return g_hash_table_size(shard->known) == 0 ||
         (shard->heap->len < shard->limits.events && shard->bytes < shard->limits.bytes);
}

/* After the queue or what is in memory became smaller. */
static void tell_readers(Shard *shard) {
  if (shard->for_room > 0 && has_room(shard))
    g_cond_broadcast(&shard->room);
}

/* After the queue became longer, or free to be taken from. A worker that has the shard looks into
 * it again before it gives it up. */
static void tell_worker(Shard *shard) {
  shard->news++;
  if (shard->for_work > 0 && shard->taken_by == NOBODY && shard->heap->len >= shard->wanted)
    g_cond_broadcast(&shard->work);
}

static void enqueue(Shard *shard, Event *event) {
  event_heap_push(shard->heap, event);
  tell_worker(shard);
}

/* What is let through behind a hold has half as much again: it must not wait for the reader's
 * queue, which at the limit of holds nobody takes from. */
static bool has_room_around(const Shard *shard) {
  return has_room(shard) || (shard->heap->len < shard->limits.events / 2 * 3 &&
                             shard->bytes < shard->limits.bytes / 2 * 3);
}

bool shard_has_room(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  return has_room(shard);
}

bool shard_wait_room(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->for_room++;
  while (!shard->stopped && !has_room(shard))
    g_cond_wait(&shard->room, &shard->lock);
  shard->for_room--;
  return !shard->stopped;
}

static Event *find_known(Shard *shard, const Event *event) {
  return g_hash_table_lookup(shard->known, &event->key.event_id);
}

bool shard_knows(Shard *shard, const Id *event_id) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  return g_hash_table_contains(shard->known, event_id);
}

static bool queue(Shard *shard, Event *event) {
  if (shard->stopped || find_known(shard, event)) {
    event_free(event);
    return false;
  }
  event->readable_at = since(shard, event);
  g_hash_table_insert(shard->known, &event->key.event_id, event);
  shard->bytes += event_memory(event);
  enqueue(shard, event);
  return true;
}

static void forget(Shard *shard, Event *event) {
  g_hash_table_remove(shard->known, &event->key.event_id);
  shard->bytes -= event_memory(event);
  event_free(event);
  tell_readers(shard);
}

static HoldReason reason_of(EventStatus status) {
  return status == STATUS_DEAD ? HOLD_DEAD : status == STATUS_FAILED ? HOLD_FAILED : HOLD_TAKEN;
}

static bool has_failed(const Event *event) {
  return event->status == STATUS_FAILED || event->status == STATUS_DEAD;
}

/* The keeper learns when it is to be tried again; any event before it that is settled from now on
 * may be what it waits for. */
static void hold_as_read(Shard *shard, const Event *event, HoldCall call) {
  Hold *hold = open_hold(shard, event, reason_of(event->status), 0);
  hold->call = call;
  hold->batch = 0;
}

bool shard_offer(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  if (hold && order_key_compare(&event->key, &hold->key) >= 0) {
    note_missed(shard, hold, event);
    event_free(event);
    return false;
  }
  if (!has_failed(event) || (event->status == STATUS_FAILED && !event_has_aggregate(event)))
    return queue(shard, event);
  if (event_has_aggregate(event) && !find_known(shard, event))
    hold_as_read(shard, event, CALL_REVIEW);
  event_free(event);
  return false;
}

/* --- taking ------------------------------------------------------------------------------- */

/* While too many aggregates are blocked: the smallest event that belongs to one of them. */
static Event *pop_held(Shard *shard) {
  unsigned smallest = shard->heap->len;
  for (unsigned i = 0; i < shard->heap->len; i++)
    if (find_hold(shard, shard->heap->pdata[i]) &&
        (smallest == shard->heap->len || event_heap_before(shard->heap, i, smallest)))
      smallest = i;
  return smallest < shard->heap->len ? event_heap_remove(shard->heap, smallest) : NULL;
}

/* The next event of the queue that no hold blocks. */
static Event *pop_free(Shard *shard) {
  while (shard->heap->len > 0) {
    Event *event = is_full(shard) ? pop_held(shard) : event_heap_remove(shard->heap, 0);
    Hold *hold = event ? find_hold(shard, event) : NULL;
    if (!has_to_wait(hold, event))
      return event;
    note_missed(shard, hold, event);
    forget(shard, event);
  }
  return NULL;
}

/* At the limit of holds, only what belongs to one. */
static bool is_takeable(Shard *shard, const Event *event) {
  return !is_full(shard) || find_hold(shard, event);
}

static bool has_takeable(Shard *shard) {
  for (unsigned i = 0; i < shard->heap->len; i++)
    if (is_takeable(shard, shard->heap->pdata[i]))
      return true;
  return false;
}

static void pop_batch(Shard *shard, Taken *taken) {
  shard->batch++;
  while (taken->count < taken->max_events) {
    Event *event = pop_free(shard);
    if (!event)
      break;
    size_t size = event_memory(event);
    if (taken->count > 0 && (taken->bytes + size > taken->max_bytes || comes_alone(event) ||
                             comes_alone(taken->events[taken->count - 1]))) {
      event_heap_push(shard->heap, event);
      break;
    }
    event->batch = shard->batch;
    taken->events[taken->count++] = event;
    taken->bytes += size;
  }
}

static void release(Shard *shard, unsigned worker) {
  if (shard->taken_by != worker)
    return;
  shard->taken_by = NOBODY;
  if (has_takeable(shard))
    tell_worker(shard);
}

static bool is_apart(const Shard *shard) {
  return clock_us() < shard->apart_until;
}

static bool is_free_for(const Shard *shard, unsigned worker) {
  return !shard->stopped && (shard->taken_by == NOBODY || shard->taken_by == worker);
}

static void take(Shard *shard, unsigned worker, Taken *taken) {
  shard->taken_by = worker;
  pop_batch(shard, taken);
  tell_readers(shard);
}

void shard_take(Shard *shard, unsigned worker, Taken *taken) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  if (is_free_for(shard, worker))
    take(shard, worker, taken);
}

/* A shard of which nothing could be taken along, although something is queued, is left to its own
 * worker. */
void shard_take_along(Shard *shard, unsigned worker, size_t queued_most, Taken *taken) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  size_t before = taken->count;
  if (!is_free_for(shard, worker))
    return;
  bool good = shard->heap->len <= queued_most && !is_apart(shard);
  if (good)
    take(shard, worker, taken);
  if (!good || (taken->count == before && shard->heap->len > 0))
    release(shard, worker);
}

void shard_release(Shard *shard, unsigned worker) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  release(shard, worker);
}

void shard_keep_apart(Shard *shard, int64_t for_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->apart_until = clock_us() + for_ms * 1000;
}

bool shard_is_apart(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  return is_apart(shard);
}

uint64_t shard_news(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  return shard->news;
}

bool shard_wait_news(Shard *shard, uint64_t seen) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->for_work++;
  shard->wanted = 1;
  while (!shard->stopped && shard->news == seen)
    g_cond_wait(&shard->work, &shard->lock);
  shard->for_work--;
  return !shard->stopped;
}

void shard_linger(Shard *shard, unsigned worker, size_t wanted, int64_t linger_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  release(shard, worker);
  int64_t until = clock_us() + linger_ms * 1000;
  bool in_time = shard->heap->len > 0;
  shard->for_work++;
  shard->wanted = wanted;
  while (in_time && !shard->stopped && shard->heap->len < wanted)
    in_time = g_cond_wait_until(&shard->work, &shard->lock, until);
  shard->for_work--;
}

void shard_requeue(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  enqueue(shard, event);
}

void shard_give_back(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  int order = hold ? order_key_compare(&event->key, &hold->key) : -1;
  if (order > 0 || (order == 0 && hold->reason == HOLD_GAP)) {
    note_missed(shard, hold, event);
    forget(shard, event);
  } else {
    enqueue(shard, event);
  }
}

void shard_wake(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  tell_worker(shard);
}

void shard_forget(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  forget(shard, event);
}

/* A retry that is still owed is not lost to a review, which would wait for the event's own time. */
static void call(Shard *shard, Hold *hold, HoldCall why) {
  hold->state = HOLD_WAITING;
  if (hold->call != CALL_RETRY)
    hold->call = why;
  hold->looks = 0;
  set_due(shard, hold, 0);
}

/* Whether the event's end may change what the hold waits for. One that was taken with or before the
 * one that blocks has been applied before that failed. */
static bool concerns(const Hold *hold, const Event *event) {
  int order = order_key_compare(&event->key, &hold->key);
  return order == 0 || (order < 0 && event->batch > hold->batch);
}

void shard_settle(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  if (hold && hold->state != HOLD_DRAINING && concerns(hold, event))
    call(shard, hold, CALL_RETRY);
  forget(shard, event);
}

bool shard_is_behind_hold(Shard *shard, const Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  const Hold *hold = find_hold(shard, event);
  return hold && hold->state != HOLD_DRAINING && order_key_compare(&event->key, &hold->key) > 0;
}

/* --- holds, for worker and keeper ---------------------------------------------------------- */

void shard_hold(Shard *shard, Event *event, HoldReason reason, int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  event->blocks = true;
  open_hold(shard, event, reason, delay_ms);
}

void shard_hold_gap(Shard *shard, Event *event, int64_t first, int64_t last, int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  event->blocks = true;
  Hold *hold = open_hold(shard, event, HOLD_GAP, delay_ms);
  if (hold) {
    hold->gap_first = first;
    hold->gap_last = last;
  }
}

void shard_review_holds(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Hold *hold = value;
    if (hold->reason != HOLD_GAP && hold->state != HOLD_DRAINING)
      call(shard, hold, CALL_REVIEW);
  }
}

static void show(const Hold *hold, HoldView *ret_view) {
  *ret_view = (HoldView){.aggregate = aggregate_copy(hold->aggregate),
                         .reason = hold->reason,
                         .call = hold->call,
                         .draining = hold->state == HOLD_DRAINING,
                         .looks = hold->looks,
                         .from_start = hold->from_start,
                         .gap_first = hold->gap_first,
                         .gap_last = hold->gap_last};
  order_key_copy(&hold->key, &ret_view->key, ret_view->key_bytes);
  if (ret_view->draining && !hold->from_start)
    order_key_copy(&hold->next, &ret_view->next, ret_view->next_bytes);
}

void hold_view_clear(HoldView *view) {
  g_clear_pointer(&view->aggregate, g_free);
}

unsigned shard_take_due(Shard *shard, HoldView *ret_views, unsigned max) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  int64_t now = clock_us();
  unsigned count = 0;
  while (count < max && !g_sequence_is_empty(shard->due)) {
    Hold *hold = g_sequence_get(g_sequence_get_begin_iter(shard->due));
    if (hold->due > now)
      break;
    set_due(shard, hold, DUE_NEVER);
    hold->looks++;
    show(hold, &ret_views[count++]);
    if (hold->state == HOLD_WAITING)
      hold->state = HOLD_LOOKED_AT;
  }
  return count;
}

int64_t shard_due_in(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  if (g_sequence_is_empty(shard->due))
    return DUE_NEVER;
  const Hold *hold = g_sequence_get(g_sequence_get_begin_iter(shard->due));
  int64_t left = hold->due - clock_us();
  return left <= 0 ? 0 : left / 1000 + 1;
}

static Hold *find_in(Shard *shard, const Aggregate *aggregate, HoldState state) {
  Hold *hold = g_hash_table_lookup(shard->holds, aggregate);
  return hold && hold->state == state ? hold : NULL;
}

static void put_off(Shard *shard, const HoldView *view, HoldReason reason, HoldCall call,
                    int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_in(shard, view->aggregate, HOLD_LOOKED_AT);
  if (hold) {
    hold->state = HOLD_WAITING;
    hold->reason = reason;
    hold->call = call;
    set_due(shard, hold, delay_ms);
  }
}

void shard_put_off(Shard *shard, const HoldView *view, HoldReason reason, int64_t delay_ms) {
  put_off(shard, view, reason, CALL_DUE, delay_ms);
}

void shard_look_again(Shard *shard, const HoldView *view, HoldReason reason, int64_t delay_ms) {
  put_off(shard, view, reason, view->call, delay_ms);
}

bool shard_offer_head(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  const Hold *hold = find_hold(shard, event);
  if (hold && hold->state == HOLD_LOOKED_AT)
    return queue(shard, event);
  event_free(event);
  return false;
}

static void mark_reached(Hold *hold, const Event *event) {
  order_key_copy(&event->key, &hold->next, hold->next_bytes);
  hold->from_start = false;
  if (order_key_compare(&event->key, &hold->reached) > 0)
    order_key_copy(&event->key, &hold->reached, hold->reached_bytes);
}

Offer shard_offer_around(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  Offer result = OFFER_BLOCKED;
  if (hold && hold->state != HOLD_WAITING && !shard->stopped) {
    const Event *known = find_known(shard, event);
    if (!known && !has_room_around(shard)) {
      result = OFFER_FULL;
    } else if (known ? known->blocks : event->status != STATUS_PENDING) {
      /* What the draining let through, or the end of the hold itself, may be what it waits for. */
      hold_as_read(shard, event, hold->state == HOLD_DRAINING ? CALL_RETRY : CALL_REVIEW);
    } else {
      if (hold->state == HOLD_DRAINING)
        mark_reached(hold, event);
      queue(shard, event);
      return OFFER_GO_ON;
    }
  }
  event_free(event);
  return result;
}

bool shard_begin_drain(Shard *shard, HoldView *view) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_in(shard, view->aggregate, HOLD_LOOKED_AT);
  if (!hold)
    return false;
  hold->state = HOLD_DRAINING;
  order_key_copy(&hold->key, &hold->reached, hold->reached_bytes);
  hold->from_start = view->draining = view->from_start = true;
  hold->missed_from = INT64_MAX;
  return true;
}

void shard_go_on_draining(Shard *shard, const HoldView *view, int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_in(shard, view->aggregate, HOLD_DRAINING);
  if (hold)
    set_due(shard, hold, delay_ms);
}

void shard_end_drain(Shard *shard, const HoldView *view) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_in(shard, view->aggregate, HOLD_DRAINING);
  if (!hold)
    return;
  if (hold->missed_from != INT64_MAX) {
    OrderKey first = order_key_first(hold->missed_from);
    order_key_copy(&first, &hold->next, hold->next_bytes);
    hold->from_start = false;
    hold->missed_from = INT64_MAX;
    set_due(shard, hold, 0);
    return;
  }
  g_hash_table_remove(shard->holds, hold->aggregate);
  count_hold(shard, -1);
  tell_worker(shard); /* it may have been waiting for the number of holds to sink */
}

/* --- figures ------------------------------------------------------------------------------ */

void shard_assume(Shard *shard, int64_t settled_until) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->assumed = settled_until;
}

int64_t shard_waiting_since(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  int64_t earliest = INT64_MAX;
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, shard->known);
  while (g_hash_table_iter_next(&iter, NULL, &value))
    earliest = MIN(earliest, ((const Event *)value)->readable_at);
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Hold *hold = value;
    earliest = MIN(earliest, hold->behind_since);
    if (hold->reason != HOLD_DEAD)
      earliest = MIN(earliest, hold->head_since);
  }
  return earliest;
}

static size_t count_takeable(Shard *shard) {
  size_t count = 0;
  if (!is_full(shard))
    return shard->heap->len;
  for (unsigned i = 0; i < shard->heap->len; i++)
    count += is_takeable(shard, shard->heap->pdata[i]);
  return count;
}

ShardFigures shard_figures(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  ShardFigures figures = {.queued = shard->heap->len,
                          .takeable = count_takeable(shard),
                          .in_hand = g_hash_table_size(shard->known) - shard->heap->len,
                          .bytes = shard->bytes,
                          .holds = g_hash_table_size(shard->holds),
                          .full = is_full(shard)};
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Hold *hold = value;
    figures.dead += hold->reason == HOLD_DEAD;
    figures.looked_at += hold->state == HOLD_LOOKED_AT;
    figures.gaps += hold->reason == HOLD_GAP || hold->state == HOLD_DRAINING;
  }
  return figures;
}

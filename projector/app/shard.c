/* shard.c - a heap of events, the set of their ids, and the holds. */
#include "projector/app/shard.h"

#include "projector/infra/clock.h"

#include <string.h>

typedef struct Hold {
  Aggregate *aggregate;
  HoldReason reason;
  OrderKey key;
  uint8_t id_bytes[EVENT_ID_MAX];
  int64_t gap_first, gap_last;
  int64_t due; /* monotonic, us; INT64_MAX: not due */
  bool draining;
  OrderKey reached; /* by the draining; its id points into reached_id */
  uint8_t reached_id[EVENT_ID_MAX];
  int64_t missed_from; /* earliest time of what was left out while draining; INT64_MAX: nothing */
  bool woken;
  bool looked_at; /* by the keeper, and nothing has changed it since */
} Hold;

struct Shard {
  GMutex lock;
  GCond changed;
  GPtrArray *heap;   /* of Event, the smallest at 0 */
  GHashTable *known; /* Id → Event, everything in memory */
  GHashTable *holds; /* Aggregate → Hold */
  size_t event_limit, byte_limit, bytes;
  bool stopped;
};

static void hold_free(gpointer data) {
  Hold *hold = data;
  g_free(hold->aggregate);
  g_free(hold);
}

Shard *shard_new(size_t event_limit, size_t byte_limit) {
  Shard *shard = g_new0(Shard, 1);
  g_mutex_init(&shard->lock);
  g_cond_init(&shard->changed);
  shard->heap = g_ptr_array_new();
  shard->known = g_hash_table_new(id_hash_key, id_equal_key);
  shard->holds = g_hash_table_new_full(aggregate_hash_key, aggregate_equal_key, NULL, hold_free);
  shard->event_limit = event_limit;
  shard->byte_limit = byte_limit;
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
  g_ptr_array_unref(shard->heap);
  g_mutex_clear(&shard->lock);
  g_cond_clear(&shard->changed);
  g_free(shard);
}

void shard_stop(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  shard->stopped = true;
  g_cond_broadcast(&shard->changed);
}

/* --- heap --------------------------------------------------------------------------------- */

static bool before(const GPtrArray *heap, unsigned a, unsigned b) {
  const Event *x = heap->pdata[a], *y = heap->pdata[b];
  return order_key_compare(&x->key, &y->key) < 0;
}

static void swap(GPtrArray *heap, unsigned a, unsigned b) {
  gpointer kept = heap->pdata[a];
  heap->pdata[a] = heap->pdata[b];
  heap->pdata[b] = kept;
}

static void heap_push(GPtrArray *heap, Event *event) {
  g_ptr_array_add(heap, event);
  for (unsigned at = heap->len - 1; at > 0 && before(heap, at, (at - 1) / 2); at = (at - 1) / 2)
    swap(heap, at, (at - 1) / 2);
}

static Event *heap_pop(GPtrArray *heap) {
  Event *smallest = heap->pdata[0];
  Event *last = g_ptr_array_steal_index(heap, heap->len - 1);
  if (heap->len == 0)
    return smallest;
  heap->pdata[0] = last;
  for (unsigned at = 0;;) {
    unsigned child = 2 * at + 1;
    if (child >= heap->len)
      return smallest;
    if (child + 1 < heap->len && before(heap, child + 1, child))
      child++;
    if (!before(heap, child, at))
      return smallest;
    swap(heap, at, child);
    at = child;
  }
}

/* --- queue -------------------------------------------------------------------------------- */

static void push_locked(Shard *shard, Event *event) {
  g_hash_table_insert(shard->known, &event->key.event_id, event);
  shard->bytes += event_memory(event);
  heap_push(shard->heap, event);
  g_cond_broadcast(&shard->changed);
}

static void forget_locked(Shard *shard, Event *event) {
  g_hash_table_remove(shard->known, &event->key.event_id);
  shard->bytes -= event_memory(event);
  event_free(event);
  g_cond_broadcast(&shard->changed);
}

static Hold *find_hold(Shard *shard, const Event *event) {
  if (g_hash_table_size(shard->holds) == 0 || !event_has_aggregate(event))
    return NULL;
  return g_hash_table_lookup(shard->holds, &event->aggregate);
}

static void note_missed(Hold *hold, const Event *event) {
  hold->missed_from = MIN(hold->missed_from, event->key.occurred_at);
}

bool shard_wait_room(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  while (!shard->stopped && g_hash_table_size(shard->known) > 0 &&
         (shard->heap->len >= shard->event_limit || shard->bytes >= shard->byte_limit))
    g_cond_wait(&shard->changed, &shard->lock);
  return !shard->stopped;
}

static bool offer_locked(Shard *shard, Event *event) {
  if (shard->stopped || g_hash_table_contains(shard->known, &event->key.event_id)) {
    event_free(event);
    return false;
  }
  push_locked(shard, event);
  return true;
}

bool shard_offer(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  if (hold && order_key_compare(&event->key, &hold->key) >= 0) {
    note_missed(hold, event);
    event_free(event);
    return false;
  }
  return offer_locked(shard, event);
}

/* Whether the event has to wait: a hold stands before it, whose draining has not come to it yet. */
static bool has_to_wait(const Hold *hold, const Event *event) {
  return hold && order_key_compare(&event->key, &hold->key) > 0 &&
         (!hold->draining || order_key_compare(&event->key, &hold->reached) > 0);
}

/* The next event of the queue that no hold blocks. */
static Event *pop_free(Shard *shard) {
  while (shard->heap->len > 0) {
    Event *event = heap_pop(shard->heap);
    Hold *hold = find_hold(shard, event);
    if (!has_to_wait(hold, event))
      return event;
    note_missed(hold, event);
    forget_locked(shard, event);
  }
  return NULL;
}

static bool comes_alone(const Event *event) {
  return event->attempts >= 2;
}

static void linger(Shard *shard, size_t wanted, int64_t linger_ms) {
  int64_t until = clock_us() + linger_ms * 1000;
  while (!shard->stopped && shard->heap->len < wanted)
    if (!g_cond_wait_until(&shard->changed, &shard->lock, until))
      return;
}

size_t shard_take(Shard *shard, Event **events, size_t max_events, size_t max_bytes, bool wait,
                  int64_t linger_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  size_t count = 0, bytes = 0;
  while (count == 0) {
    while (wait && !shard->stopped && shard->heap->len == 0)
      g_cond_wait(&shard->changed, &shard->lock);
    if (shard->heap->len == 0)
      return 0;
    if (linger_ms > 0)
      linger(shard, max_events, linger_ms);
    if (shard->stopped)
      return 0;
    while (count < max_events) {
      Event *event = pop_free(shard);
      if (!event)
        break;
      size_t size = event_memory(event);
      if (count > 0 && (bytes + size > max_bytes || comes_alone(event))) {
        heap_push(shard->heap, event);
        break;
      }
      events[count++] = event;
      bytes += size;
      if (comes_alone(event))
        break;
    }
  }
  g_cond_broadcast(&shard->changed);
  return count;
}

void shard_requeue(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  heap_push(shard->heap, event);
  g_cond_broadcast(&shard->changed);
}

void shard_give_back(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  int order = hold ? order_key_compare(&event->key, &hold->key) : -1;
  if (order > 0 || (order == 0 && hold->reason == HOLD_GAP)) {
    note_missed(hold, event);
    forget_locked(shard, event);
  } else {
    heap_push(shard->heap, event);
    g_cond_broadcast(&shard->changed);
  }
}

void shard_forget(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  forget_locked(shard, event);
}

/* --- holds -------------------------------------------------------------------------------- */

static int64_t due_after(int64_t delay_ms) {
  return delay_ms == DUE_NEVER ? INT64_MAX : clock_us() + delay_ms * 1000;
}

static void copy_key(const OrderKey *from, OrderKey *key, uint8_t id_bytes[static EVENT_ID_MAX]) {
  *key = *from;
  key->event_id.length = MIN(from->event_id.length, (uint32_t)EVENT_ID_MAX);
  if (key->event_id.length)
    memcpy(id_bytes, from->event_id.bytes, key->event_id.length);
  key->event_id.bytes = id_bytes;
}

/* An older event takes the place of a younger one: the hold stands before the first that blocks. */
static Hold *open_hold(Shard *shard, const Event *event, HoldReason reason, int64_t delay_ms) {
  Hold *hold = g_hash_table_lookup(shard->holds, &event->aggregate);
  if (!hold) {
    hold = g_new0(Hold, 1);
    hold->aggregate = aggregate_copy(&event->aggregate);
    g_hash_table_insert(shard->holds, hold->aggregate, hold);
  } else if (!hold->draining && order_key_compare(&event->key, &hold->key) > 0) {
    return NULL;
  }
  copy_key(&event->key, &hold->key, hold->id_bytes);
  hold->reason = reason;
  hold->due = due_after(delay_ms);
  hold->draining = hold->woken = hold->looked_at = false;
  g_cond_broadcast(&shard->changed);
  return hold;
}

void shard_hold(Shard *shard, const Event *event, HoldReason reason, int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  open_hold(shard, event, reason, delay_ms);
}

void shard_hold_gap(Shard *shard, const Event *event, int64_t first, int64_t last,
                    int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = open_hold(shard, event, HOLD_GAP, delay_ms);
  if (hold) {
    hold->gap_first = first;
    hold->gap_last = last;
  }
}

bool shard_is_behind_hold(Shard *shard, const Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  const Hold *hold = find_hold(shard, event);
  return hold && !hold->draining && order_key_compare(&event->key, &hold->key) > 0;
}

bool shard_holds(Shard *shard, const Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  const Hold *hold = find_hold(shard, event);
  return hold && !hold->draining && order_key_compare(&event->key, &hold->key) >= 0;
}

bool shard_knows(Shard *shard, const Id *event_id) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  return g_hash_table_contains(shard->known, event_id);
}

static void wake(Hold *hold) {
  hold->due = 0;
  hold->woken = true;
  hold->looked_at = false;
}

void shard_settled(Shard *shard, const Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  if (hold && !hold->draining && order_key_compare(&event->key, &hold->key) <= 0)
    wake(hold);
}

void shard_review_holds(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Hold *hold = value;
    if (hold->reason != HOLD_GAP && !hold->draining)
      wake(hold);
  }
}

static Hold *earliest(Shard *shard) {
  GHashTableIter iter;
  gpointer value;
  Hold *first = NULL;
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Hold *hold = value;
    if (!hold->draining && (!first || hold->due < first->due))
      first = hold;
  }
  return first;
}

bool shard_next_due(Shard *shard, HoldView *ret_view) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = earliest(shard);
  if (!hold || hold->due > clock_us())
    return false;
  hold->due = INT64_MAX;
  hold->looked_at = true;
  *ret_view = (HoldView){.aggregate = aggregate_copy(hold->aggregate),
                         .reason = hold->reason,
                         .key = hold->key,
                         .gap_first = hold->gap_first,
                         .gap_last = hold->gap_last,
                         .woken = hold->woken};
  hold->woken = false;
  memcpy(ret_view->id_bytes, hold->id_bytes, sizeof ret_view->id_bytes);
  ret_view->key.event_id.bytes = ret_view->id_bytes;
  return true;
}

int64_t shard_due_in(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = earliest(shard);
  if (!hold || hold->due == INT64_MAX)
    return DUE_NEVER;
  int64_t left = hold->due - clock_us();
  return left <= 0 ? 0 : left / 1000 + 1;
}

void shard_put_off(Shard *shard, const Aggregate *aggregate, HoldReason reason, int64_t delay_ms) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = g_hash_table_lookup(shard->holds, aggregate);
  if (hold && hold->looked_at) {
    hold->reason = reason;
    hold->due = due_after(delay_ms);
    hold->looked_at = false;
  }
}

bool shard_offer_head(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  const Hold *hold = find_hold(shard, event);
  if (hold && hold->looked_at)
    return offer_locked(shard, event);
  event_free(event);
  return false;
}

bool shard_begin_drain(Shard *shard, const Aggregate *aggregate) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = g_hash_table_lookup(shard->holds, aggregate);
  if (!hold || !hold->looked_at)
    return false;
  hold->looked_at = false;
  hold->draining = true;
  copy_key(&hold->key, &hold->reached, hold->reached_id);
  hold->missed_from = INT64_MAX;
  return true;
}

bool shard_offer_drained(Shard *shard, Event *event) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = find_hold(shard, event);
  if (!hold || !hold->draining) { /* one of the drained events failed: a new hold stands */
    event_free(event);
    return false;
  }
  if (order_key_compare(&event->key, &hold->reached) > 0)
    copy_key(&event->key, &hold->reached, hold->reached_id);
  offer_locked(shard, event);
  return !shard->stopped;
}

bool shard_end_drain(Shard *shard, const Aggregate *aggregate, int64_t *ret_from) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  Hold *hold = g_hash_table_lookup(shard->holds, aggregate);
  if (!hold || !hold->draining)
    return true;
  if (hold->missed_from != INT64_MAX) {
    *ret_from = hold->missed_from;
    hold->missed_from = INT64_MAX;
    return false;
  }
  g_hash_table_remove(shard->holds, aggregate);
  return true;
}

/* --- figures ------------------------------------------------------------------------------ */

ShardFigures shard_figures(Shard *shard) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&shard->lock);
  ShardFigures figures = {.queued = shard->heap->len,
                          .in_hand = g_hash_table_size(shard->known) - shard->heap->len,
                          .bytes = shard->bytes,
                          .holds = g_hash_table_size(shard->holds)};
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, shard->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    const Hold *hold = value;
    figures.dead += hold->reason == HOLD_DEAD;
    figures.gaps += hold->reason == HOLD_GAP || hold->draining;
  }
  return figures;
}

/* hand.c - the events of a batch between claim and COMMIT. */
#include "projector/app/engine/hand.h"

#include "projector/domain/claim.h"
#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/pulse.h"

struct Hand {
  GMutex lock;
  GCond ended;
  GPtrArray *batch;   /* of QueuedEvent, in order */
  GHashTable *open;   /* those that are neither committed nor marked */
  int64_t claimed_at; /* monotonic, us */
  bool marking;
};

Hand *hand_new(void) {
  Hand *hand = g_new0(Hand, 1);
  g_mutex_init(&hand->lock);
  g_cond_init(&hand->ended);
  hand->batch = g_ptr_array_new();
  hand->open = g_hash_table_new(NULL, NULL);
  return hand;
}

void hand_free(Hand *hand) {
  if (!hand)
    return;
  g_ptr_array_unref(hand->batch);
  g_hash_table_unref(hand->open);
  g_mutex_clear(&hand->lock);
  g_cond_clear(&hand->ended);
  g_free(hand);
}

void hand_take(Hand *hand, QueuedEvent *const *events, size_t count) {
  SCOPED_LOCK(&hand->lock);
  g_assert(g_hash_table_size(hand->open) == 0);
  hand->claimed_at = clock_us();
  for (size_t i = 0; i < count; i++) {
    g_ptr_array_add(hand->batch, events[i]);
    g_hash_table_add(hand->open, events[i]);
  }
}

void hand_commit(Hand *hand, const Item *items, size_t count) {
  SCOPED_LOCK(&hand->lock);
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_KNOWN || verdict_outcome(items[i].verdict))
      g_hash_table_remove(hand->open, queued_of(&items[i]));
}

void hand_empty(Hand *hand) {
  SCOPED_LOCK(&hand->lock);
  g_hash_table_remove_all(hand->open);
  g_ptr_array_set_size(hand->batch, 0);
  Pulse *pulse = pulse_put_down();
  while (hand->marking)
    g_cond_wait(&hand->ended, &hand->lock);
  pulse_take_up(pulse);
}

size_t hand_begin_marks(Hand *hand, int64_t mark_ms, size_t most, bson_t *ids) {
  SCOPED_LOCK(&hand->lock);
  if (!claim_is_slow(hand->claimed_at, clock_us(), mark_ms))
    return 0;
  size_t count = 0;
  for (guint i = 0; i < hand->batch->len && count < most; i++) {
    QueuedEvent *queued = g_ptr_array_index(hand->batch, i);
    char buffer[16];
    const char *key;
    if (!g_hash_table_remove(hand->open, queued))
      continue;
    bson_uint32_to_string((uint32_t)count++, &key, buffer, sizeof buffer);
    event_append_id(queued->event, ids, key);
    queued->marked = true;
  }
  g_assert(!hand->marking);
  hand->marking = count > 0;
  return count;
}

void hand_end_marks(Hand *hand) {
  SCOPED_LOCK(&hand->lock);
  g_assert(hand->marking);
  hand->marking = false;
  g_cond_broadcast(&hand->ended);
}

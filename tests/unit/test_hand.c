/* test_hand.c - which events of a batch are marked, and which no longer. */
#include "projector/app/engine/hand.h"
#include "tests/unit/support.h"

enum { SLOW_MS = 0, BATCH = 3 };

static QueuedEvent *new_event(const char *id) {
  bson_t *document = BCON_NEW("_id", BCON_UTF8(id));
  QueuedEvent *event = queued_event_new(event_decode(document));
  bson_destroy(document);
  return event;
}

typedef struct Batch {
  Hand *hand;
  QueuedEvent *events[BATCH];
  Item items[BATCH];
} Batch;

static void take(Batch *batch) {
  static const char *const ids[BATCH] = {"e0", "e1", "e2"};
  *batch = (Batch){.hand = hand_new()};
  for (size_t i = 0; i < BATCH; i++) {
    batch->events[i] = new_event(ids[i]);
    batch->items[i] = queued_event_begin(batch->events[i]);
  }
  hand_take(batch->hand, batch->events, BATCH);
}

static void clear(Batch *batch) {
  hand_empty(batch->hand);
  hand_free(batch->hand);
  for (size_t i = 0; i < BATCH; i++)
    queued_event_free(batch->events[i]);
}

static size_t marks(Batch *batch, int64_t mark_ms, size_t most) {
  bson_t ids = BSON_INITIALIZER;
  size_t count = hand_begin_marks(batch->hand, mark_ms, most, &ids);
  assert_int_equal(bson_count_keys(&ids), count);
  if (count > 0)
    hand_end_marks(batch->hand);
  bson_destroy(&ids);
  return count;
}

static void test_each_event_is_marked_once_and_not_all_at_once(void **state) {
  (void)state;
  Batch batch;
  take(&batch);
  assert_int_equal(marks(&batch, SLOW_MS, 2), 2);
  assert_true(batch.events[0]->marked && batch.events[1]->marked && !batch.events[2]->marked);
  assert_int_equal(marks(&batch, SLOW_MS, 2), 1);
  assert_int_equal(marks(&batch, SLOW_MS, 2), 0);
  clear(&batch);
}

static void test_a_young_batch_is_not_marked(void **state) {
  (void)state;
  Batch batch;
  take(&batch);
  assert_int_equal(marks(&batch, 3600000, BATCH), 0);
  clear(&batch);
}

static void test_what_is_in_the_ledger_is_not_marked(void **state) {
  (void)state;
  Batch batch;
  take(&batch);
  batch.items[0].verdict = VERDICT_APPLIED;
  batch.items[1].verdict = VERDICT_KNOWN;
  batch.items[2].verdict = VERDICT_GAP;
  hand_commit(batch.hand, batch.items, BATCH);
  assert_int_equal(marks(&batch, SLOW_MS, BATCH), 1);
  assert_true(!batch.events[0]->marked && !batch.events[1]->marked && batch.events[2]->marked);
  clear(&batch);
}

static void test_an_empty_hand_has_nothing_to_mark(void **state) {
  (void)state;
  Batch batch;
  take(&batch);
  hand_empty(batch.hand);
  assert_int_equal(marks(&batch, SLOW_MS, BATCH), 0);
  clear(&batch);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_each_event_is_marked_once_and_not_all_at_once),
      cmocka_unit_test(test_a_young_batch_is_not_marked),
      cmocka_unit_test(test_what_is_in_the_ledger_is_not_marked),
      cmocka_unit_test(test_an_empty_hand_has_nothing_to_mark),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

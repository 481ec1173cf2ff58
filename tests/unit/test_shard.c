/* test_shard.c - the queue and the holds of one shard, without stores. */
#include "projector/app/shard.h"
#include "tests/unit/support.h"

#include <stdio.h>

enum { LIMIT = 10, HOLDS_MAX = 8 };

static const ShardLimits roomy = {.events = LIMIT, .bytes = 1 << 20, .holds = 1000000};

static Event *event_of(const char *aggregate, int64_t time, const char *status, int attempts) {
  g_autofree char *id = g_strdup_printf("%s-%d", aggregate, (int)time);
  bson_t *document = BCON_NEW(
      "_id", BCON_UTF8(id), "aggregate_type", BCON_UTF8("account"), "aggregate_id",
      BCON_UTF8(aggregate), "event_type", BCON_UTF8("Opened"), "occurred_at", BCON_DATE_TIME(time),
      "payload", "{", "}", "status", BCON_UTF8(status), "attempts", BCON_INT32(attempts));
  Event *event = event_decode(document);
  bson_destroy(document);
  return event;
}

static Event *pending(const char *aggregate, int64_t time) {
  return event_of(aggregate, time, "pending", 0);
}

/* Takes everything there is, as "a-1 a-2", and keeps it in `taken`. */
static const char *take(Shard *shard, GPtrArray *taken) {
  static char text[512];
  Event *events[LIMIT];
  text[0] = '\0';
  Taken batch = {.events = events, .max_events = LIMIT, .max_bytes = 1 << 20};
  shard_take(shard, 0, &batch);
  for (size_t i = 0; i < batch.count; i++) {
    g_ptr_array_add(taken, events[i]);
    char id[ID_TEXT_SIZE];
    id_text(&events[i]->key.event_id, id);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, "%s%s", i ? " " : "", id);
  }
  return text;
}

static Event *last(const GPtrArray *taken) {
  return taken->pdata[taken->len - 1];
}

/* What is due, at most one expected. */
static bool look(Shard *shard, HoldView *ret_view) {
  return shard_take_due(shard, ret_view, 1) == 1;
}

static void test_gives_the_smallest_first_and_each_once(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  for (int time = 5; time > 0; time--)
    assert_true(shard_offer(shard, pending("a", time)));
  assert_false(shard_offer(shard, pending("a", 3)));
  assert_string_equal(take(shard, taken), "a-1 a-2 a-3 a-4 a-5");
  assert_false(shard_offer(shard, pending("a", 3)));
  assert_string_equal(take(shard, taken), "");
  shard_free(shard);
}

static void test_an_event_tried_twice_comes_alone(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  shard_offer(shard, pending("a", 1));
  shard_offer(shard, event_of("b", 2, "pending", 2));
  shard_offer(shard, pending("c", 3));
  assert_string_equal(take(shard, taken), "a-1");
  assert_string_equal(take(shard, taken), "b-2");
  assert_string_equal(take(shard, taken), "c-3");
  shard_free(shard);
}

static void test_a_failed_event_that_is_read_holds_its_aggregate(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  shard_offer(shard, event_of("a", 2, "failed", 1));
  shard_offer(shard, event_of("b", 2, "dead", 10));
  shard_offer(shard, pending("a", 3));
  shard_offer(shard, pending("b", 3));
  shard_offer(shard, pending("a", 1));
  shard_offer(shard, pending("c", 4));
  assert_string_equal(take(shard, taken), "a-1 c-4");
  HoldView view;
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_REVIEW);
  hold_view_clear(&view);
  shard_free(shard);
}

static void test_an_earlier_event_wakes_the_hold_but_not_one_of_its_own_batch(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  shard_offer(shard, pending("a", 1));
  shard_offer(shard, pending("a", 3));
  assert_string_equal(take(shard, taken), "a-1 a-3");
  shard_hold(shard, taken->pdata[1], HOLD_FAILED, 3600 * 1000);
  shard_forget(shard, taken->pdata[1]);
  shard_settle(shard, taken->pdata[0]);
  assert_false(look(shard, &view));
  shard_offer(shard, pending("a", 2));
  assert_string_equal(take(shard, taken), "a-2");
  shard_settle(shard, last(taken));
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  shard_free(shard);
}

/* After a restart the reader may come to the failed event when the earlier one is in hand. */
static void test_an_earlier_event_in_hand_wakes_a_hold_that_was_read(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  shard_offer(shard, pending("a", 1));
  assert_string_equal(take(shard, taken), "a-1");
  shard_offer(shard, event_of("a", 2, "failed", 1));
  assert_true(look(shard, &view));
  shard_put_off(shard, &view, HOLD_FAILED, 3600 * 1000);
  hold_view_clear(&view);
  shard_settle(shard, last(taken));
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  shard_free(shard);
}

/* A failed event on hold, and an earlier one that was settled after it had failed. */
static void fail_and_settle_earlier(Shard *shard) {
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  shard_offer(shard, pending("a", 2));
  take(shard, taken);
  shard_hold(shard, last(taken), HOLD_FAILED, 3600 * 1000);
  shard_forget(shard, last(taken));
  shard_offer(shard, pending("a", 1));
  assert_string_equal(take(shard, taken), "a-1");
  shard_settle(shard, last(taken));
}

static void test_a_review_does_not_swallow_the_wake_of_an_earlier_event(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  HoldView view;
  fail_and_settle_earlier(shard);
  shard_review_holds(shard);
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_RETRY);
  shard_review_holds(shard); /* while it is being looked at */
  hold_view_clear(&view);
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  shard_free(shard);
}

static void test_a_wake_stands_until_the_event_is_tried(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  HoldView view;
  fail_and_settle_earlier(shard);
  assert_true(look(shard, &view));
  shard_look_again(shard, &view, HOLD_TAKEN, 3600 * 1000); /* its mark is not written yet */
  hold_view_clear(&view);
  assert_false(look(shard, &view));
  shard_review_holds(shard);
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_RETRY);
  assert_true(shard_offer_head(shard, event_of("a", 2, "failed", 1)));
  shard_put_off(shard, &view, HOLD_FAILED, 3600 * 1000);
  hold_view_clear(&view);
  shard_review_holds(shard);
  assert_true(look(shard, &view));
  assert_int_equal(view.call, CALL_REVIEW);
  hold_view_clear(&view);
  shard_free(shard);
}

/* What was settled while the hold before it stood or drained woke nobody. */
static void test_a_failed_event_found_while_draining_is_tried_at_once(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  HoldView view;
  g_autoptr(Event) head = pending("a", 1);
  shard_hold(shard, head, HOLD_FAILED, 0);
  assert_true(look(shard, &view));
  assert_true(shard_begin_drain(shard, &view));
  assert_int_equal(shard_offer_around(shard, event_of("a", 2, "failed", 1)), OFFER_BLOCKED);
  hold_view_clear(&view);
  shard_review_holds(shard);
  assert_true(look(shard, &view));
  assert_int_equal(view.key.occurred_at, 2);
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  shard_free(shard);
}

static void test_the_head_that_is_gone_ends_the_wait(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  shard_offer(shard, pending("a", 1));
  take(shard, taken);
  shard_hold(shard, last(taken), HOLD_TAKEN, 3600 * 1000);
  shard_settle(shard, last(taken));
  assert_true(look(shard, &view));
  assert_true(shard_begin_drain(shard, &view));
  assert_int_equal(shard_offer_around(shard, pending("a", 2)), OFFER_GO_ON);
  assert_false(shard_offer(shard, pending("a", 5))); /* left out, so the draining goes back to it */
  shard_end_drain(shard, &view);
  hold_view_clear(&view);
  assert_string_equal(take(shard, taken), "a-2");
  assert_true(look(shard, &view));
  assert_true(view.draining && !view.from_start && view.next.occurred_at == 5);
  assert_int_equal(shard_offer_around(shard, pending("a", 5)), OFFER_GO_ON);
  shard_end_drain(shard, &view);
  hold_view_clear(&view);
  assert_int_equal(shard_figures(shard).holds, 0);
  assert_string_equal(take(shard, taken), "a-5");
  shard_free(shard);
}

static void test_what_changes_a_hold_makes_the_look_at_it_void(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  HoldView view;
  g_autoptr(Event) head = pending("a", 2);
  shard_hold(shard, head, HOLD_FAILED, 0);
  assert_true(look(shard, &view));
  g_autoptr(Event) earlier = pending("a", 1);
  shard_hold(shard, earlier, HOLD_FAILED, 3600 * 1000);
  assert_false(shard_offer_head(shard, pending("a", 2)));
  assert_false(shard_begin_drain(shard, &view));
  shard_put_off(shard, &view, HOLD_FAILED, 0);
  hold_view_clear(&view);
  assert_false(look(shard, &view));
  shard_free(shard);
}

static void test_a_hold_found_while_draining_stands(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(Event) head = pending("a", 1);
  shard_hold(shard, head, HOLD_FAILED, 0);
  look(shard, &view);
  shard_begin_drain(shard, &view);
  assert_int_equal(shard_offer_around(shard, pending("a", 2)), OFFER_GO_ON);
  assert_int_equal(shard_offer_around(shard, event_of("a", 3, "dead", 9)), OFFER_BLOCKED);
  assert_int_equal(shard_offer_around(shard, pending("a", 4)), OFFER_BLOCKED);
  hold_view_clear(&view);
  assert_false(shard_offer(shard, pending("a", 4)));
  assert_string_equal(take(shard, taken), "a-2");
  assert_int_equal(shard_figures(shard).holds, 1);
  shard_free(shard);
}

static void test_holds_come_up_in_the_order_in_which_they_are_due(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  static const int delays[HOLDS_MAX] = {-30, -10, -70, -50, 60000, -20, -80, -40};
  for (int i = 0; i < HOLDS_MAX; i++) {
    char name[] = {(char)('a' + i), '\0'};
    g_autoptr(Event) event = pending(name, 1);
    shard_hold(shard, event, HOLD_FAILED, delays[i]);
  }
  HoldView views[HOLDS_MAX];
  assert_int_equal(shard_take_due(shard, views, 3), 3);
  assert_int_equal(shard_take_due(shard, views + 3, HOLDS_MAX), 4);
  char order[HOLDS_MAX] = "";
  for (int i = 0; i < 7; i++) {
    order[i] = (char)views[i].aggregate->id.bytes[0];
    hold_view_clear(&views[i]);
  }
  assert_string_equal(order, "gcdhafb");
  assert_in_range(shard_due_in(shard), 1, 60001);
  shard_free(shard);
}

static void test_at_the_limit_of_holds_only_what_may_end_one_is_taken(void **state) {
  (void)state;
  Shard *shard = shard_new((ShardLimits){.events = LIMIT, .bytes = 1 << 20, .holds = 2}, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView views[2];
  shard_offer(shard, event_of("a", 2, "failed", 1));
  shard_offer(shard, pending("c", 1));
  shard_offer(shard, event_of("b", 2, "dead", 10));
  shard_offer(shard, pending("c", 3));
  shard_offer(shard, pending("b", 1));
  assert_true(shard_figures(shard).full);
  assert_string_equal(take(shard, taken), "b-1");
  assert_string_equal(take(shard, taken), "");
  assert_int_equal(shard_take_due(shard, views, 2), 2);
  assert_true(shard_offer_head(shard, event_of("a", 2, "failed", 1)));
  assert_string_equal(take(shard, taken), "a-2");
  assert_true(shard_begin_drain(shard, &views[0]));
  shard_end_drain(shard, &views[0]);
  assert_string_equal(take(shard, taken), "c-1 c-3");
  hold_view_clear(&views[0]);
  hold_view_clear(&views[1]);
  shard_free(shard);
}

/* Strangers fill the queue, and nobody takes them: what stands behind a hold has to get through. */
static void test_at_the_limit_of_holds_a_full_queue_keeps_no_hold_from_ending(void **state) {
  (void)state;
  Shard *shard = shard_new((ShardLimits){.events = 4, .bytes = 1 << 20, .holds = 1}, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  shard_offer(shard, event_of("a", 1, "failed", 1));
  for (int time = 1; time <= 4; time++)
    shard_offer(shard, pending("b", time));
  assert_false(shard_has_room(shard));
  assert_int_equal(shard_figures(shard).takeable, 0);
  assert_true(look(shard, &view));
  assert_true(shard_begin_drain(shard, &view));
  assert_int_equal(shard_offer_around(shard, pending("a", 2)), OFFER_GO_ON);
  assert_string_equal(take(shard, taken), "a-2");
  shard_settle(shard, last(taken));
  shard_end_drain(shard, &view);
  hold_view_clear(&view);
  assert_string_equal(take(shard, taken), "b-1 b-2 b-3 b-4");
  shard_free(shard);
}

static void test_a_failed_event_without_a_place_is_tried_again(void **state) {
  (void)state;
  Shard *shard = shard_new(roomy, NULL);
  g_autoptr(bson_t) document = document_from("{'_id': 'x', 'status': 'failed'}");
  assert_true(shard_offer(shard, event_decode(document)));
  shard_free(shard);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gives_the_smallest_first_and_each_once),
      cmocka_unit_test(test_an_event_tried_twice_comes_alone),
      cmocka_unit_test(test_a_failed_event_that_is_read_holds_its_aggregate),
      cmocka_unit_test(test_an_earlier_event_wakes_the_hold_but_not_one_of_its_own_batch),
      cmocka_unit_test(test_an_earlier_event_in_hand_wakes_a_hold_that_was_read),
      cmocka_unit_test(test_a_review_does_not_swallow_the_wake_of_an_earlier_event),
      cmocka_unit_test(test_a_wake_stands_until_the_event_is_tried),
      cmocka_unit_test(test_a_failed_event_found_while_draining_is_tried_at_once),
      cmocka_unit_test(test_the_head_that_is_gone_ends_the_wait),
      cmocka_unit_test(test_what_changes_a_hold_makes_the_look_at_it_void),
      cmocka_unit_test(test_a_hold_found_while_draining_stands),
      cmocka_unit_test(test_holds_come_up_in_the_order_in_which_they_are_due),
      cmocka_unit_test(test_at_the_limit_of_holds_only_what_may_end_one_is_taken),
      cmocka_unit_test(test_at_the_limit_of_holds_a_full_queue_keeps_no_hold_from_ending),
      cmocka_unit_test(test_a_failed_event_without_a_place_is_tried_again),
  };
  return RUN_TESTS(tests);
}

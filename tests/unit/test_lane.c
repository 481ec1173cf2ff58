/* test_lane.c - the queue and the holds of one lane, without stores. */
#include "tests/unit/lane_world.h"

enum { HOLDS_MAX = 8 };

static Lane *new_by_aggregate(void) {
  LaneLimits limits = roomy;
  limits.by_aggregate = true;
  return lane_new(limits, NULL);
}

static void test_by_aggregate_gives_what_is_queued_of_one_together(void **state) {
  (void)state;
  Lane *lane = new_by_aggregate();
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  for (int time = 6; time > 0; time--)
    assert_true(lane_offer(lane, pending(time % 3 == 0 ? "c" : time % 3 == 1 ? "a" : "b", time)));
  assert_string_equal(take(lane, taken), "a-1 a-4 b-2 b-5 c-3 c-6");
  lane_free(lane);
}

/* Events behind a hold leave the queue, and the next aggregate follows. */
static void test_by_aggregate_stops_at_a_hold(void **state) {
  (void)state;
  Lane *lane = new_by_aggregate();
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, pending("a", 5));
  assert_string_equal(take(lane, taken), "a-5");
  for (int time = 1; time < 10; time += 2)
    if (time != 5)
      lane_offer(lane, pending("a", time));
  lane_offer(lane, pending("b", 2));
  lane_hold(lane, last(taken), HOLD_FAILED, 1000000);
  lane_forget(lane, last(taken));
  g_ptr_array_set_size(taken, 0);
  assert_string_equal(take(lane, taken), "a-1 a-3 b-2");
  lane_free(lane);
}

/* The oldest event of all goes first, however many others of one aggregate are queued. */
static void test_by_aggregate_lets_nobody_wait_for_ever(void **state) {
  (void)state;
  Lane *lane = new_by_aggregate();
  QueuedEvent *events[3];
  int order[3] = {0};
  for (int time = 1; time <= 7; time++)
    lane_offer(lane, pending(time == 2 ? "b" : "a", time));
  for (int round = 0; round < 3; round++) {
    const Taking two = {.max_events = 2, .max_bytes = 1 << 20};
    assert_int_equal(lane_take(lane, &two, events), 2);
    order[round] = (int)events[0]->event->key.occurred_at;
  }
  assert_int_equal(order[0], 1);
  assert_int_equal(order[1], 2);
  assert_int_equal(order[2], 5);
  lane_free(lane);
}

static void test_gives_the_smallest_first_and_each_once(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  for (int time = 5; time > 0; time--)
    assert_true(lane_offer(lane, pending("a", time)));
  assert_false(lane_offer(lane, pending("a", 3)));
  assert_string_equal(take(lane, taken), "a-1 a-2 a-3 a-4 a-5");
  assert_false(lane_offer(lane, pending("a", 3)));
  assert_string_equal(take(lane, taken), "");
  lane_free(lane);
}

static void test_a_batch_ends_at_its_bytes_but_has_one_event(void **state) {
  (void)state;
  const Taking little = {.max_events = LIMIT, .max_bytes = 1};
  QueuedEvent *events[LIMIT];
  Lane *lane = lane_new(roomy, NULL);
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, pending("b", 2));
  assert_int_equal(lane_take(lane, &little, events), 1);
  assert_int_equal(lane_take(lane, &little, events), 1);
  assert_int_equal(lane_take(lane, &little, events), 0);
  lane_free(lane);
}

static void test_an_event_tried_twice_comes_alone(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, event_of("b", 2, "pending", 2));
  lane_offer(lane, pending("c", 3));
  assert_string_equal(take(lane, taken), "a-1");
  assert_string_equal(take(lane, taken), "b-2");
  assert_string_equal(take(lane, taken), "c-3");
  lane_free(lane);
}

static void
test_what_comes_alone_is_not_kept_waiting_by_what_is_tried_again_and_again(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, event_of("c", 3, "pending", 2));
  assert_string_equal(take(lane, taken), "a-1");
  lane_requeue(lane, taken->pdata[0]);
  assert_string_equal(take(lane, taken), "c-3");
  assert_string_equal(take(lane, taken), "a-1");
  lane_free(lane);
}

static void test_an_event_whose_turn_it_is_waits_for_an_earlier_one_of_its_aggregate(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, event_of("c", 3, "pending", 2));
  assert_string_equal(take(lane, taken), "a-1");
  lane_requeue(lane, taken->pdata[0]);
  lane_offer(lane, pending("c", 2));
  assert_string_equal(take(lane, taken), "a-1 c-2");
  assert_string_equal(take(lane, taken), "c-3");
  lane_free(lane);
}

static void test_a_failed_event_that_is_read_holds_its_aggregate(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, event_of("a", 2, "failed", 1));
  lane_offer(lane, event_of("b", 2, "dead", 10));
  lane_offer(lane, pending("a", 3));
  lane_offer(lane, pending("b", 3));
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, pending("c", 4));
  assert_string_equal(take(lane, taken), "a-1 c-4");
  HoldView view;
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_REVIEW);
  hold_view_clear(&view);
  lane_free(lane);
}

static void test_an_earlier_event_wakes_the_hold_but_not_one_of_its_own_batch(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  lane_offer(lane, pending("a", 1));
  lane_offer(lane, pending("a", 3));
  assert_string_equal(take(lane, taken), "a-1 a-3");
  lane_hold(lane, taken->pdata[1], HOLD_FAILED, 3600 * 1000);
  lane_forget(lane, taken->pdata[1]);
  lane_settle(lane, taken->pdata[0]);
  assert_false(look(lane, &view));
  lane_offer(lane, pending("a", 2));
  assert_string_equal(take(lane, taken), "a-2");
  lane_settle(lane, last(taken));
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  lane_free(lane);
}

/* After a restart, the reader may reach the failed event while the earlier one is in hand. */
static void test_an_earlier_event_in_hand_wakes_a_hold_that_was_read(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  lane_offer(lane, pending("a", 1));
  assert_string_equal(take(lane, taken), "a-1");
  lane_offer(lane, event_of("a", 2, "failed", 1));
  assert_true(look(lane, &view));
  lane_put_off(lane, &view, HOLD_FAILED, 3600 * 1000);
  hold_view_clear(&view);
  lane_settle(lane, last(taken));
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  lane_free(lane);
}

static size_t undecided_after(HoldReason reason, bool again) {
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  lane_offer(lane, event_of("a", 2, "failed", 1));
  assert_true(look(lane, &view));
  assert_int_equal(lane_figures(lane).undecided, 1);
  (again ? lane_look_again : lane_put_off)(lane, &view, reason, 3600 * 1000);
  hold_view_clear(&view);
  size_t undecided = lane_figures(lane).undecided;
  lane_free(lane);
  return undecided;
}

/* `run --once` ends when nothing is, and does not wait for what another one has in progress. */
static void test_a_hold_stays_undecided_until_the_janitor_could_decide(void **state) {
  (void)state;
  assert_int_equal(undecided_after(HOLD_FAILED, true), 1);
  assert_int_equal(undecided_after(HOLD_FAILED, false), 0);
  assert_int_equal(undecided_after(HOLD_TAKEN, true), 0);
}

/* A failed event on hold, and an earlier one that was settled after it had failed. */
static void fail_and_settle_earlier(Lane *lane) {
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  lane_offer(lane, pending("a", 2));
  take(lane, taken);
  lane_hold(lane, last(taken), HOLD_FAILED, 3600 * 1000);
  lane_forget(lane, last(taken));
  lane_offer(lane, pending("a", 1));
  assert_string_equal(take(lane, taken), "a-1");
  lane_settle(lane, last(taken));
}

static void test_a_review_does_not_swallow_the_wake_of_an_earlier_event(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  fail_and_settle_earlier(lane);
  lane_review_holds(lane);
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_RETRY);
  lane_review_holds(lane); /* while it is being looked at */
  hold_view_clear(&view);
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  lane_free(lane);
}

static void test_a_wake_stands_until_the_event_is_tried(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  fail_and_settle_earlier(lane);
  assert_true(look(lane, &view));
  lane_look_again(lane, &view, HOLD_TAKEN, 3600 * 1000); /* its mark is not written yet */
  hold_view_clear(&view);
  assert_false(look(lane, &view));
  lane_review_holds(lane);
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_RETRY);
  assert_true(lane_offer_head(lane, event_of("a", 2, "failed", 1)));
  lane_put_off(lane, &view, HOLD_FAILED, 3600 * 1000);
  hold_view_clear(&view);
  lane_review_holds(lane);
  assert_true(look(lane, &view));
  assert_int_equal(view.call, CALL_REVIEW);
  hold_view_clear(&view);
  lane_free(lane);
}

/* Events settled while the hold before them was waiting or draining woke nobody. */
static void test_a_failed_event_found_while_draining_is_tried_at_once(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  lane_hold(lane, head, HOLD_FAILED, 0);
  assert_true(look(lane, &view));
  assert_true(lane_begin_drain(lane, &view));
  assert_int_equal(lane_offer_around(lane, event_of("a", 2, "failed", 1)), OFFER_BLOCKED);
  hold_view_clear(&view);
  lane_review_holds(lane);
  assert_true(look(lane, &view));
  assert_int_equal(view.key.occurred_at, 2);
  assert_int_equal(view.call, CALL_RETRY);
  hold_view_clear(&view);
  lane_free(lane);
}

static void test_the_head_that_is_gone_ends_the_wait(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  lane_offer(lane, pending("a", 1));
  take(lane, taken);
  lane_hold(lane, last(taken), HOLD_TAKEN, 3600 * 1000);
  lane_settle(lane, last(taken));
  assert_true(look(lane, &view));
  assert_true(lane_begin_drain(lane, &view));
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_false(lane_offer(lane, pending("a", 5))); /* left out, so the draining goes back to it */
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_string_equal(take(lane, taken), "a-2");
  assert_true(look(lane, &view));
  assert_true(view.draining && !view.from_start && view.next.occurred_at == 2);
  assert_int_equal(lane_offer_around(lane, pending("a", 5)), OFFER_GO_ON);
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_figures(lane).holds, 0);
  assert_string_equal(take(lane, taken), "a-5");
  lane_free(lane);
}

static void test_what_changes_a_hold_makes_the_look_at_it_void(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 2);
  lane_hold(lane, head, HOLD_FAILED, 0);
  assert_true(look(lane, &view));
  g_autoptr(QueuedEvent) earlier = pending("a", 1);
  lane_hold(lane, earlier, HOLD_FAILED, 3600 * 1000);
  assert_false(lane_offer_head(lane, pending("a", 2)));
  assert_false(lane_begin_drain(lane, &view));
  lane_put_off(lane, &view, HOLD_FAILED, 0);
  hold_view_clear(&view);
  assert_false(look(lane, &view));
  lane_free(lane);
}

static void test_a_hold_found_while_draining_stands(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  lane_hold(lane, head, HOLD_FAILED, 0);
  look(lane, &view);
  lane_begin_drain(lane, &view);
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, event_of("a", 3, "dead", 9)), OFFER_BLOCKED);
  assert_int_equal(lane_offer_around(lane, pending("a", 4)), OFFER_BLOCKED);
  hold_view_clear(&view);
  assert_false(lane_offer(lane, pending("a", 4)));
  assert_string_equal(take(lane, taken), "a-2");
  assert_int_equal(lane_figures(lane).holds, 1);
  lane_free(lane);
}

static void test_holds_come_up_in_the_order_in_which_they_are_due(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  static const int delays[HOLDS_MAX] = {-3000, -1000, -7000, -5000, 60000, -2000, -8000, -4000};
  for (int i = 0; i < HOLDS_MAX; i++) {
    char name[] = {(char)('a' + i), '\0'};
    g_autoptr(QueuedEvent) event = pending(name, 1);
    lane_hold(lane, event, HOLD_FAILED, delays[i]);
  }
  HoldView views[HOLDS_MAX];
  assert_int_equal(lane_take_due(lane, views, 3), 3);
  assert_int_equal(lane_take_due(lane, views + 3, HOLDS_MAX), 4);
  char order[HOLDS_MAX] = "";
  for (int i = 0; i < 7; i++) {
    order[i] = (char)views[i].aggregate->id.bytes[0];
    hold_view_clear(&views[i]);
  }
  assert_string_equal(order, "gcdhafb");
  assert_in_range(lane_due_in(lane), 1, 60001);
  lane_free(lane);
}

static void test_at_the_limit_of_holds_only_what_may_end_one_is_taken(void **state) {
  (void)state;
  Lane *lane = lane_new((LaneLimits){.events = LIMIT, .bytes = 1 << 20, .holds = 2}, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView views[2];
  lane_offer(lane, event_of("a", 2, "failed", 1));
  lane_offer(lane, pending("c", 1));
  lane_offer(lane, event_of("b", 2, "dead", 10));
  lane_offer(lane, pending("c", 3));
  lane_offer(lane, pending("b", 1));
  assert_true(lane_figures(lane).full);
  assert_string_equal(take(lane, taken), "b-1");
  assert_string_equal(take(lane, taken), "");
  assert_int_equal(lane_take_due(lane, views, 2), 2);
  assert_true(lane_offer_head(lane, event_of("a", 2, "failed", 1)));
  assert_string_equal(take(lane, taken), "a-2");
  assert_true(lane_begin_drain(lane, &views[0]));
  lane_end_drain(lane, &views[0]);
  assert_string_equal(take(lane, taken), "c-1 c-3");
  hold_view_clear(&views[0]);
  hold_view_clear(&views[1]);
  lane_free(lane);
}

static void test_a_queue_is_full_by_its_events_or_by_its_bytes(void **state) {
  (void)state;
  QueuedEvent *one = pending("a", 1);
  size_t bytes = queued_event_memory(one);
  queued_event_free(one);
  const LaneLimits limits[] = {{.events = 2, .bytes = 1 << 20, .holds = 1},
                               {.events = LIMIT, .bytes = 2 * bytes, .holds = 1}};
  for (size_t i = 0; i < G_N_ELEMENTS(limits); i++) {
    Lane *lane = lane_new(limits[i], NULL);
    lane_offer(lane, pending("a", 1));
    assert_true(lane_has_room(lane));
    lane_offer(lane, pending("b", 1));
    assert_false(lane_has_room(lane));
    lane_free(lane);
  }
}

/* Other aggregates fill the queue, and nobody takes from it: events behind a hold have to get
 * through. */
static void test_at_the_limit_of_holds_a_full_queue_keeps_no_hold_from_ending(void **state) {
  (void)state;
  Lane *lane = lane_new((LaneLimits){.events = 4, .bytes = 1 << 20, .holds = 1}, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  lane_offer(lane, event_of("a", 1, "failed", 1));
  for (int time = 1; time <= 4; time++)
    lane_offer(lane, pending("b", time));
  assert_false(lane_has_room(lane));
  assert_int_equal(lane_figures(lane).takeable, 0);
  assert_true(look(lane, &view));
  assert_true(lane_begin_drain(lane, &view));
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_string_equal(take(lane, taken), "a-2");
  lane_settle(lane, last(taken));
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_string_equal(take(lane, taken), "b-1 b-2 b-3 b-4");
  lane_free(lane);
}

static void test_a_failed_event_without_a_place_is_tried_again(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(bson_t) document = document_from("{'_id': 'x', 'status': 'failed'}");
  assert_true(lane_offer(lane, queued_event_new(event_decode(document))));
  lane_free(lane);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gives_the_smallest_first_and_each_once),
      cmocka_unit_test(test_a_batch_ends_at_its_bytes_but_has_one_event),
      cmocka_unit_test(test_by_aggregate_gives_what_is_queued_of_one_together),
      cmocka_unit_test(test_by_aggregate_stops_at_a_hold),
      cmocka_unit_test(test_by_aggregate_lets_nobody_wait_for_ever),
      cmocka_unit_test(test_an_event_tried_twice_comes_alone),
      cmocka_unit_test(test_what_comes_alone_is_not_kept_waiting_by_what_is_tried_again_and_again),
      cmocka_unit_test(test_an_event_whose_turn_it_is_waits_for_an_earlier_one_of_its_aggregate),
      cmocka_unit_test(test_a_failed_event_that_is_read_holds_its_aggregate),
      cmocka_unit_test(test_an_earlier_event_wakes_the_hold_but_not_one_of_its_own_batch),
      cmocka_unit_test(test_an_earlier_event_in_hand_wakes_a_hold_that_was_read),
      cmocka_unit_test(test_a_hold_stays_undecided_until_the_janitor_could_decide),
      cmocka_unit_test(test_a_review_does_not_swallow_the_wake_of_an_earlier_event),
      cmocka_unit_test(test_a_wake_stands_until_the_event_is_tried),
      cmocka_unit_test(test_a_failed_event_found_while_draining_is_tried_at_once),
      cmocka_unit_test(test_the_head_that_is_gone_ends_the_wait),
      cmocka_unit_test(test_what_changes_a_hold_makes_the_look_at_it_void),
      cmocka_unit_test(test_a_hold_found_while_draining_stands),
      cmocka_unit_test(test_holds_come_up_in_the_order_in_which_they_are_due),
      cmocka_unit_test(test_at_the_limit_of_holds_only_what_may_end_one_is_taken),
      cmocka_unit_test(test_a_queue_is_full_by_its_events_or_by_its_bytes),
      cmocka_unit_test(test_at_the_limit_of_holds_a_full_queue_keeps_no_hold_from_ending),
      cmocka_unit_test(test_a_failed_event_without_a_place_is_tried_again),
  };
  return RUN_TESTS(tests);
}

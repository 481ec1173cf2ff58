/* test_lane_draining.c - what a draining lets through, in which order, and since when it waits. */
#include "tests/unit/lane_world.h"

/* The hold that is due begins to drain; its view is for those who end it. */
static void drain(Lane *lane, HoldView *ret_view) {
  assert_true(look(lane, ret_view));
  assert_true(lane_begin_drain(lane, ret_view));
}

/* The same of a new one, of the event `head`. */
static void begin_draining(Lane *lane, QueuedEvent *head, HoldReason reason, HoldView *ret_view) {
  lane_hold(lane, head, reason, 0);
  drain(lane, ret_view);
}

/* It must not let those pass that the draining let through behind it. */
static void test_what_was_let_through_and_given_back_keeps_its_place(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  lane_hold_gap(lane, head, 1, 1, 0);
  drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_offer_around(lane, pending("a", 1)), OFFER_GO_ON);
  assert_string_equal(take(lane, taken), "a-1");
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, pending("a", 3)), OFFER_GO_ON);
  lane_give_back(lane, last(taken));
  assert_string_equal(take(lane, taken), "a-1 a-2 a-3");
  assert_false(lane_is_behind_hold(lane, last(taken)->event));
  lane_give_back(lane, last(taken));
  assert_string_equal(take(lane, taken), "a-3");
  lane_free(lane);
}

/* An event in hand that the draining has not reached comes again when it does. */
static void test_what_a_draining_has_not_reached_leaves_the_queue(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  lane_offer(lane, pending("a", 3));
  assert_string_equal(take(lane, taken), "a-3");
  g_autoptr(QueuedEvent) head = pending("a", 1);
  lane_hold(lane, head, HOLD_TAKEN, 0);
  assert_true(lane_is_behind_hold(lane, last(taken)->event));
  drain(lane, &view);
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_true(lane_is_behind_hold(lane, last(taken)->event));
  lane_give_back(lane, last(taken));
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_string_equal(take(lane, taken), "a-2");
  assert_int_equal(lane_figures(lane).holds, 1);
  assert_true(look(lane, &view));
  assert_int_equal(lane_offer_around(lane, pending("a", 3)), OFFER_GO_ON);
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_string_equal(take(lane, taken), "a-3");
  assert_int_equal(lane_figures(lane).holds, 0);
  lane_free(lane);
}

/* It sorts before what the queue has, although the draining is past its place. */
static void test_what_arrives_before_the_place_reached_has_its_turn(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, pending("a", 5)), OFFER_GO_ON);
  QueuedEvent *between = pending("a", 3);
  between->read_at = 1;
  assert_true(lane_offer(lane, between));
  assert_false(lane_offer(lane, pending("a", 5)));
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_figures(lane).holds, 0);
  assert_string_equal(take(lane, taken), "a-2 a-3 a-5");
  /* It may have been let through and applied before it arrived. */
  assert_int_equal(((QueuedEvent *)taken->pdata[1])->read_at, 0);
  lane_free(lane);
}

/* A page may have been read before an event of its middle was inserted. */
static void test_what_was_left_out_comes_before_what_is_behind_it(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  assert_false(lane_offer(lane, pending("a", 3)));
  assert_int_equal(lane_offer_around(lane, pending("a", 5)), OFFER_BLOCKED);
  assert_true(look(lane, &view));
  assert_true(view.draining && !view.from_start && view.next.occurred_at == 2);
  assert_int_equal(lane_offer_around(lane, pending("a", 3)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, pending("a", 5)), OFFER_GO_ON);
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_string_equal(take(lane, taken), "a-2 a-3 a-5");
  assert_int_equal(lane_figures(lane).holds, 0);
  lane_free(lane);
}

/* They arrive one by one, each before the page has been read to its end. */
static void test_a_draining_makes_its_way_through_events_of_one_time(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  hold_view_clear(&view);
  for (char name[] = "x1"; name[1] < '4'; name[1]++) {
    assert_int_equal(lane_offer_around(lane, twin(name, "a", 5)), OFFER_GO_ON);
    assert_false(lane_offer(lane, twin("x8", "a", 5)));
    assert_int_equal(lane_offer_around(lane, twin("x7", "a", 5)), OFFER_BLOCKED);
    assert_true(look(lane, &view));
    char next[ID_TEXT_SIZE];
    id_text(&view.next.event_id, next);
    assert_string_equal(next, name);
    hold_view_clear(&view);
  }
  assert_string_equal(take(lane, taken), "x1 x2 x3");
  lane_free(lane);
}

/* As an event before the blocking one may have the same time as one that was left out. */
static void test_what_is_before_the_place_reached_is_no_reason_to_go_back(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = twin("x5", "a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  assert_false(lane_offer(lane, twin("x8", "a", 1)));
  assert_int_equal(lane_offer_around(lane, twin("x1", "a", 1)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, twin("x8", "a", 1)), OFFER_BLOCKED);
  assert_string_equal(take(lane, taken), "x1");
  hold_view_clear(&view);
  lane_free(lane);
}

/* Sent again, it would otherwise be read again only by a rescan. */
static void test_the_blocking_event_that_arrives_again_is_queued(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  assert_int_equal(lane_offer_around(lane, pending("a", 2)), OFFER_GO_ON);
  QueuedEvent *again = pending("a", 1);
  again->read_at = 1;
  assert_true(lane_offer(lane, again));
  assert_int_equal(lane_offer_around(lane, pending("a", 3)), OFFER_GO_ON);
  lane_end_drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_figures(lane).holds, 0);
  assert_string_equal(take(lane, taken), "a-1 a-2 a-3");
  assert_int_equal(((QueuedEvent *)taken->pdata[0])->read_at, 0); /* it may have been applied */
  lane_free(lane);
}

/* Otherwise nothing would remember it: it sorts before the hold that begins. */
static void test_what_was_left_out_comes_before_what_blocks_behind_it(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = pending("a", 1);
  begin_draining(lane, head, HOLD_TAKEN, &view);
  hold_view_clear(&view);
  assert_false(lane_offer(lane, pending("a", 3)));
  assert_int_equal(lane_offer_around(lane, event_of("a", 5, "dead", 9)), OFFER_BLOCKED);
  assert_true(look(lane, &view));
  assert_true(view.draining && view.next.occurred_at == 1);
  hold_view_clear(&view);
  assert_int_equal(lane_offer_around(lane, pending("a", 3)), OFFER_GO_ON);
  assert_int_equal(lane_offer_around(lane, event_of("a", 5, "dead", 9)), OFFER_BLOCKED);
  assert_true(look(lane, &view));
  assert_true(!view.draining && view.key.occurred_at == 5);
  hold_view_clear(&view);
  lane_free(lane);
}

/* As the outbox is read where a majority does not have its end yet. */
static void test_a_blocking_event_that_is_there_again_is_not_looked_at_at_once(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = event_of("a", 1, "failed", 1);
  begin_draining(lane, head, HOLD_FAILED, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_offer_around(lane, event_of("a", 1, "failed", 1)), OFFER_BLOCKED);
  assert_true(lane_due_in(lane) > 0);
  assert_int_equal(lane_figures(lane).undecided, 1);
  lane_free(lane);
}

/* --- since when --- */

static QueuedEvent *readable(int64_t time, int64_t since) {
  QueuedEvent *queued = pending("a", time);
  queued->readable_at = since;
  return queued;
}

/* Days may lie between its arrival and its time. */
static void test_a_future_event_has_not_waited_until_its_time_comes(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = readable(9, 100);
  lane_assume(lane, 5000);
  lane_hold(lane, head, HOLD_FUTURE, 0);
  assert_false(lane_offer(lane, readable(10, 200)));
  assert_true(lane_waiting_since(lane) == INT64_MAX);
  assert_true(look(lane, &view));
  lane_put_off(lane, &view, HOLD_FAILED, 1000);
  hold_view_clear(&view);
  assert_int_equal(lane_waiting_since(lane), 5000);
  lane_free(lane);
}

/* Nor when an operator takes it away, and what is behind it goes on. */
static void test_what_was_behind_a_future_event_has_not_waited_either(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  HoldView view;
  g_autoptr(QueuedEvent) head = readable(9, 100);
  lane_assume(lane, 5000);
  lane_hold(lane, head, HOLD_FUTURE, 0);
  assert_false(lane_offer(lane, readable(10, 200)));
  drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_waiting_since(lane), 5000);
  lane_free(lane);
}

static void test_a_future_event_does_not_wait_behind_an_earlier_one(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(QueuedEvent) future = readable(9, 100);
  g_autoptr(QueuedEvent) failed = readable(1, 7000);
  lane_hold(lane, future, HOLD_FUTURE, 3600000);
  assert_false(lane_offer(lane, readable(10, 200)));
  lane_hold(lane, failed, HOLD_FAILED, 3600000);
  assert_int_equal(lane_waiting_since(lane), 7000);
  assert_false(lane_offer(lane, readable(2, 6000)));
  assert_int_equal(lane_waiting_since(lane), 6000);
  lane_free(lane);
}

/* Read again by a rescan, say: only an operator can end it. */
static void test_a_dead_event_does_not_wait_behind_a_hold(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(QueuedEvent) head = readable(1, 7000);
  lane_hold(lane, head, HOLD_FAILED, 3600000);
  QueuedEvent *dead = event_of("a", 2, "dead", 9);
  dead->readable_at = 100;
  assert_false(lane_offer(lane, dead));
  assert_int_equal(lane_waiting_since(lane), 7000);
  lane_free(lane);
}

/* The last event, dead already when the draining sees that it was the last. */
static void test_what_a_draining_let_through_waits_no_longer(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  HoldView view, next;
  g_autoptr(QueuedEvent) head = readable(1, 100);
  lane_hold(lane, head, HOLD_TAKEN, 0);
  assert_false(lane_offer(lane, readable(2, 200)));
  drain(lane, &view);
  assert_int_equal(lane_offer_around(lane, readable(2, 200)), OFFER_GO_ON);
  assert_string_equal(take(lane, taken), "a-2");
  lane_hold(lane, last(taken), HOLD_DEAD, DUE_NEVER);
  lane_forget(lane, last(taken));
  assert_int_equal(lane_waiting_since(lane), 200); /* there may be more */
  lane_end_drain(lane, &view);
  assert_true(lane_waiting_since(lane) == INT64_MAX);
  assert_false(lane_offer(lane, readable(3, 300)));
  assert_int_equal(lane_waiting_since(lane), 300);
  lane_end_drain(lane, &view);
  assert_int_equal(lane_waiting_since(lane), 300);
  hold_view_clear(&view);
  lane_review_holds(lane);
  drain(lane, &next);
  assert_int_equal(lane_waiting_since(lane), 300);
  hold_view_clear(&next);
  lane_free(lane);
}

/* As it was read again, so it counts from the time it was read. */
static void test_what_a_future_event_leaves_unread_has_not_waited(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(QueuedEvent) head = readable(1, 7000);
  HoldView view;
  lane_assume(lane, 5000);
  lane_hold(lane, head, HOLD_TAKEN, 0);
  assert_false(lane_offer(lane, readable(2, 200)));
  drain(lane, &view);
  hold_view_clear(&view);
  assert_int_equal(lane_offer_around(lane, event_of("a", 9, "failed", 0)), OFFER_BLOCKED);
  assert_int_equal(lane_waiting_since(lane), 200);
  assert_true(look(lane, &view));
  lane_put_off(lane, &view, HOLD_FUTURE, 0);
  hold_view_clear(&view);
  assert_true(lane_waiting_since(lane) == INT64_MAX);
  assert_true(look(lane, &view));
  lane_put_off(lane, &view, HOLD_DEAD, DUE_NEVER);
  hold_view_clear(&view);
  assert_int_equal(lane_waiting_since(lane), 5000);
  lane_free(lane);
}

static void test_nothing_waits_behind_the_last_event_if_it_blocks(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(QueuedEvent) head = readable(1, 100);
  g_autoptr(QueuedEvent) dead = pending("a", 9), later = pending("a", 10);
  HoldView view;
  lane_hold(lane, head, HOLD_TAKEN, 0);
  assert_false(lane_offer(lane, readable(2, 200)));
  drain(lane, &view); /* somebody has removed that event */
  assert_int_equal(lane_offer_around(lane, event_of("a", 9, "dead", 9)), OFFER_BLOCKED);
  lane_note_end(lane, later->event); /* that one was left out because an earlier one blocked */
  assert_int_equal(lane_waiting_since(lane), 200);
  lane_note_end(lane, dead->event);
  assert_true(lane_waiting_since(lane) == INT64_MAX);
  hold_view_clear(&view);
  lane_free(lane);
}

/* What arrived behind it before it blocked is not read with the page. */
static void test_what_was_left_out_behind_an_event_that_died_waits(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  g_autoptr(QueuedEvent) head = readable(1, 100);
  HoldView view;
  begin_draining(lane, head, HOLD_TAKEN, &view);
  assert_int_equal(lane_offer_around(lane, readable(2, 200)), OFFER_GO_ON);
  assert_string_equal(take(lane, taken), "a-2");
  assert_false(lane_offer(lane, readable(3, 300)));
  lane_hold(lane, last(taken), HOLD_DEAD, DUE_NEVER);
  lane_forget(lane, last(taken));
  lane_end_drain(lane, &view);
  assert_int_equal(lane_waiting_since(lane), 300);
  hold_view_clear(&view);
  lane_free(lane);
}

/* The reader comes to the event behind the gap before the draining does. */
static void test_a_gap_is_waited_for_once_whoever_reads_its_event(void **state) {
  (void)state;
  Lane *lane = lane_new(roomy, NULL);
  g_autoptr(GPtrArray) taken = g_ptr_array_new();
  g_autoptr(QueuedEvent) head = pending("a", 1);
  HoldView view;
  lane_hold_gap(lane, head, 1, 1, 0);
  drain(lane, &view);
  hold_view_clear(&view);
  assert_true(lane_offer(lane, pending("a", 1)));
  assert_true(lane_offer(lane, pending("b", 1)));
  assert_string_equal(take(lane, taken), "a-1 b-1");
  assert_true(((QueuedEvent *)taken->pdata[0])->gap_waited);
  assert_false(((QueuedEvent *)taken->pdata[1])->gap_waited);
  lane_free(lane);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_was_let_through_and_given_back_keeps_its_place),
      cmocka_unit_test(test_what_a_draining_has_not_reached_leaves_the_queue),
      cmocka_unit_test(test_what_arrives_before_the_place_reached_has_its_turn),
      cmocka_unit_test(test_what_was_left_out_comes_before_what_is_behind_it),
      cmocka_unit_test(test_what_was_left_out_comes_before_what_blocks_behind_it),
      cmocka_unit_test(test_a_draining_makes_its_way_through_events_of_one_time),
      cmocka_unit_test(test_what_is_before_the_place_reached_is_no_reason_to_go_back),
      cmocka_unit_test(test_the_blocking_event_that_arrives_again_is_queued),
      cmocka_unit_test(test_a_blocking_event_that_is_there_again_is_not_looked_at_at_once),
      cmocka_unit_test(test_a_future_event_has_not_waited_until_its_time_comes),
      cmocka_unit_test(test_what_was_behind_a_future_event_has_not_waited_either),
      cmocka_unit_test(test_a_future_event_does_not_wait_behind_an_earlier_one),
      cmocka_unit_test(test_a_dead_event_does_not_wait_behind_a_hold),
      cmocka_unit_test(test_what_a_draining_let_through_waits_no_longer),
      cmocka_unit_test(test_what_a_future_event_leaves_unread_has_not_waited),
      cmocka_unit_test(test_nothing_waits_behind_the_last_event_if_it_blocks),
      cmocka_unit_test(test_what_was_left_out_behind_an_event_that_died_waits),
      cmocka_unit_test(test_a_gap_is_waited_for_once_whoever_reads_its_event),
  };
  return RUN_TESTS(tests);
}

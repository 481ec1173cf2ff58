/* test_watch.c - what is remembered of events and tables, on a clock of the test's own. */
#include "projector/app/engine/watch.h"
#include "projector/infra/clock.h"
#include "tests/unit/support.h"

enum { TABLE = 1, HOLD_MS = 5000, TRIES = 60 };

static int64_t now_ms;

int64_t clock_us(void) {
  return now_ms * 1000;
}

static void close_rows(Watch *watch) {
  static const Failure why = {.class = FAILURE_UNKNOWN, .source = SOURCE_MYSQL};
  watch_close(watch, TABLE, &why, true);
}

static Gate gate(Watch *watch) {
  Failure why;
  bool rows;
  return watch_gate(watch, TABLE, &why, &rows);
}

/* Events of three aggregates have failed alone; the table is the reason, as far as one can see. */
static Watch *closed_by_three(void) {
  Watch *watch = watch_new();
  assert_false(watch_tally(watch, TABLE, 'a'));
  assert_false(watch_tally(watch, TABLE, 'b'));
  assert_false(watch_tally(watch, TABLE, 'b'));
  assert_true(watch_tally(watch, TABLE, 'c'));
  close_rows(watch);
  return watch;
}

static void test_a_table_that_refuses_several_aggregates_stays_the_reason(void **state) {
  (void)state;
  Watch *watch = closed_by_three();
  for (int i = 0; i < TRIES; i++) {
    now_ms += HOLD_MS;
    assert_int_equal(gate(watch), GATE_TRIAL);
    watch_still_waits(watch, TABLE, 'b');
    watch_still_waits(watch, TABLE, 'c');
    assert_true(watch_tally(watch, TABLE, 'a'));
    close_rows(watch);
    assert_int_equal(gate(watch), GATE_CLOSED);
  }
  watch_free(watch);
}

static void test_a_trial_of_which_nothing_came_is_another_events(void **state) {
  (void)state;
  Watch *watch = closed_by_three();
  now_ms += HOLD_MS;
  assert_int_equal(gate(watch), GATE_TRIAL);
  assert_int_equal(gate(watch), GATE_CLOSED);
  watch_end_trial(watch, TABLE); /* it waits for a missing version, say, and met no row */
  assert_int_equal(gate(watch), GATE_TRIAL);
  assert_true(watch_tally(watch, TABLE, 'a'));
  close_rows(watch);
  watch_end_trial(watch, TABLE); /* this one did */
  assert_int_equal(gate(watch), GATE_CLOSED);
  watch_free(watch);
}

static void test_the_last_event_that_fails_is_the_reason_itself(void **state) {
  (void)state;
  Watch *watch = closed_by_three();
  bool several = true;
  for (int i = 0; i < TRIES && several; i++) {
    now_ms += HOLD_MS;
    assert_int_equal(gate(watch), GATE_TRIAL);
    several = watch_tally(watch, TABLE, 'a');
    if (several)
      close_rows(watch);
  }
  assert_false(several);
  assert_int_equal(gate(watch), GATE_OPEN); /* nobody waits because of it */
  assert_true(watch_tallied(watch, TABLE, 'a'));
  assert_false(watch_tallied(watch, TABLE, 'b'));
  watch_free(watch);
}

static void test_what_is_written_opens_the_gate(void **state) {
  (void)state;
  Watch *watch = closed_by_three();
  assert_int_equal(gate(watch), GATE_CLOSED);
  watch_open(watch, TABLE);
  assert_int_equal(gate(watch), GATE_OPEN);
  assert_false(watch_tally(watch, TABLE, 'd'));
  watch_free(watch);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_table_that_refuses_several_aggregates_stays_the_reason),
      cmocka_unit_test(test_a_trial_of_which_nothing_came_is_another_events),
      cmocka_unit_test(test_the_last_event_that_fails_is_the_reason_itself),
      cmocka_unit_test(test_what_is_written_opens_the_gate),
  };
  return RUN_TESTS(tests);
}

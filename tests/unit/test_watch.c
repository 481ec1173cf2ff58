/* test_watch.c - what is remembered of events and tables, on a clock of the test's own. */
#include "projector/app/engine/watch.h"
#include "projector/infra/clock.h"
#include "tests/unit/support.h"

enum { TABLE = 1, HOLD_MS = 5000, TRIES = 60, SUSPECTS = 1000, ONCE = 20000 };

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

/* Events of three aggregates have failed alone: the table appears to be the reason. */
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
  watch_end_trial(watch, TABLE); /* it waits for a missing version, for example, and met no row */
  assert_int_equal(gate(watch), GATE_TRIAL);
  assert_true(watch_tally(watch, TABLE, 'a'));
  close_rows(watch);
  watch_end_trial(watch, TABLE); /* this one met one */
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

static void test_a_thousand_are_suspected_and_the_oldest_is_forgotten(void **state) {
  (void)state;
  Watch *watch = watch_new();
  Id id = {.kind = ID_INT};
  for (id.number = 0; id.number <= SUSPECTS; id.number++) {
    now_ms++;
    watch_suspect(watch, &id);
  }
  for (id.number = 0; id.number <= SUSPECTS; id.number++)
    assert_int_equal(watch_suspects(watch, &id), id.number > 0);
  watch_free(watch);
}

/* However many there are: the set is emptied at its limit, so some are told of once more. */
static void test_who_was_told_of_is_not_remembered_for_ever(void **state) {
  (void)state;
  Watch *watch = watch_new();
  unsigned told = 0;
  assert_true(watch_is_first(watch, 0));
  assert_false(watch_is_first(watch, 0));
  for (uint64_t aggregate = 1; aggregate < ONCE; aggregate++)
    told += watch_is_first(watch, aggregate);
  assert_int_equal(told, ONCE - 1);
  assert_true(watch_is_first(watch, ONCE));
  assert_true(watch_is_first(watch, 0));
  watch_free(watch);
}

static void test_so_many_refusals_are_remembered_and_no_more(void **state) {
  (void)state;
  static const Failure why = {.class = FAILURE_DATA, .source = SOURCE_MONGODB};
  Watch *watch = watch_new();
  Id id = {.kind = ID_INT};
  for (id.number = 0; id.number < 3 * REFUSED_MAX; id.number++)
    watch_refuse(watch, &id, &why);
  g_autoptr(GArray) refused = watch_list_refused(watch);
  assert_int_equal(refused->len, 2 * REFUSED_MAX);
  watch_free(watch);
}

/* While MySQL is away, the janitor looks for the same versions again and again. */
static bool misses(Watch *watch, uint64_t aggregate_hash, int64_t version) {
  Event event = {.aggregate_hash = aggregate_hash, .key = {.version = version}};
  Item item = {.event = &event, .was_missing = true};
  watch_recall_missing(watch, &item, 1);
  return item.was_missing;
}

static void test_repeated_looks_push_no_missing_version_out(void **state) {
  (void)state;
  Watch *watch = watch_new();
  watch_miss(watch, 'a', 2, 3);
  for (int i = 0; i < 2 * WATCH_MISSED_MAX; i++)
    watch_miss(watch, 'b', 5, 5);
  assert_true(misses(watch, 'a', 3) && misses(watch, 'b', 5));
  assert_false(misses(watch, 'a', 4));
  for (int i = 0; i < WATCH_MISSED_MAX; i++)
    watch_miss(watch, 'c', i + 1, i + 1);
  assert_false(misses(watch, 'a', 3));
  watch_free(watch);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_table_that_refuses_several_aggregates_stays_the_reason),
      cmocka_unit_test(test_a_trial_of_which_nothing_came_is_another_events),
      cmocka_unit_test(test_the_last_event_that_fails_is_the_reason_itself),
      cmocka_unit_test(test_what_is_written_opens_the_gate),
      cmocka_unit_test(test_a_thousand_are_suspected_and_the_oldest_is_forgotten),
      cmocka_unit_test(test_who_was_told_of_is_not_remembered_for_ever),
      cmocka_unit_test(test_so_many_refusals_are_remembered_and_no_more),
      cmocka_unit_test(test_repeated_looks_push_no_missing_version_out),
  };
  return RUN_TESTS(tests);
}

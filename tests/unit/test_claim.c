/* test_claim.c - which events are claimed how, and what a claim that nobody ends means. */
#include "projector/domain/claim.h"
#include "tests/unit/support.h"

static void test_only_what_is_as_new_goes_by_the_batch(void **state) {
  (void)state;
  for (EventStatus status = STATUS_PENDING; status <= STATUS_DEAD; status++)
    for (int attempts = 0; attempts < 3; attempts++) {
      const Event event = {.status = status, .attempts = attempts};
      assert_int_equal(claim_goes_by_batch(&event), status == STATUS_PENDING && attempts == 0);
    }
}

static void test_what_was_read_before_the_worker_stood_still_is_outdated(void **state) {
  (void)state;
  assert_false(claim_is_outdated(100, 0));
  assert_false(claim_is_outdated(100, 100));
  assert_true(claim_is_outdated(99, 100));
  assert_true(claim_is_outdated(0, 0)); /* not known when */
}

static void test_a_batch_is_slow_from_its_time_on(void **state) {
  (void)state;
  assert_false(claim_is_slow(5000, 5000 + 999999, 1000));
  assert_true(claim_is_slow(5000, 5000 + 1000000, 1000));
}

static void test_an_event_dies_of_crashes_only_after_one_that_it_had_alone(void **state) {
  (void)state;
  static const struct {
    int attempts, max_attempts;
    bool spent;
  } cases[] = {{1, 1, false}, {2, 1, false}, {3, 1, true},   {2, 2, false}, {3, 2, true},
               {3, 3, true},  {3, 4, false}, {9, 10, false}, {10, 10, true}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const Event event = {.attempts = cases[i].attempts},
                retried = {.attempts = cases[i].attempts, .retried = true};
    assert_int_equal(claim_is_spent(&event, cases[i].max_attempts), cases[i].spent);
    assert_false(claim_is_spent(&retried, cases[i].max_attempts));
  }
  assert_false(claim_comes_alone(1));
  assert_true(claim_comes_alone(2));
}

/* A failed event may wait for a lock, and must not keep all workers waiting. */
static void test_only_what_a_crash_has_left_runs_alone(void **state) {
  (void)state;
  for (EventStatus status = STATUS_PENDING; status <= STATUS_FAILED; status++)
    for (int attempts = 0; attempts < 5; attempts++) {
      const Event event = {.status = status, .attempts = attempts};
      assert_int_equal(claim_runs_alone(&event), status != STATUS_FAILED && attempts >= 2);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_only_what_is_as_new_goes_by_the_batch),
      cmocka_unit_test(test_what_was_read_before_the_worker_stood_still_is_outdated),
      cmocka_unit_test(test_a_batch_is_slow_from_its_time_on),
      cmocka_unit_test(test_an_event_dies_of_crashes_only_after_one_that_it_had_alone),
      cmocka_unit_test(test_only_what_a_crash_has_left_runs_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

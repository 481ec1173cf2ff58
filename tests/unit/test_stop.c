/* test_stop.c - the reason of a stop decides how the process ends, and with which exit status. */
#include "projector/app/engine/stop.h"
#include "tests/unit/support.h"

static const Failure config = {.class = FAILURE_CONFIG}, later = {.class = FAILURE_UNAVAILABLE};

static void test_the_first_reason_counts(void **unused) {
  (void)unused;
  Stop *stop = stop_new();
  stop_request(stop, &config);
  stop_request(stop, &later);
  stop_at(stop, 1, &later);
  assert_true(stop_requested(stop));
  assert_int_equal(stop_reason(stop).class, FAILURE_CONFIG);
  stop_free(stop);
}

static void test_what_fails_after_an_orderly_stop_is_no_reason(void **unused) {
  (void)unused;
  Stop *stop = stop_new();
  stop_request(stop, NULL);
  stop_request(stop, &later);
  assert_int_equal(stop_reason(stop).class, FAILURE_NONE);
  stop_free(stop);
}

static void test_a_time_that_has_passed_is_a_reason(void **unused) {
  (void)unused;
  Stop *stop = stop_new();
  assert_false(stop_requested(stop));
  stop_at(stop, 1, &later);
  assert_true(stop_wait(stop, 0));
  assert_int_equal(stop_reason(stop).class, FAILURE_UNAVAILABLE);
  stop_free(stop);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_the_first_reason_counts),
      cmocka_unit_test(test_what_fails_after_an_orderly_stop_is_no_reason),
      cmocka_unit_test(test_a_time_that_has_passed_is_a_reason),
  };
  return RUN_TESTS(tests);
}

/* test_pace.c - how many events workers may take. */
#include "projector/app/engine/pace.h"
#include "tests/unit/support.h"

static void test_what_was_granted_and_not_used_is_not_lost(void **state) {
  (void)state;
  g_autoptr(Pace) pace = pace_new();
  pace_set_rate(pace, 1); /* so slow that nothing is added during the test */
  assert_int_equal(pace_grant(pace, 100), 1);
  pace_return(pace, 1);
  assert_int_equal(pace_grant(pace, 100), 1);
  assert_int_equal(pace_grant(pace, 100), 0);
}

static void test_whoever_stops_the_work_grants_nothing(void **state) {
  (void)state;
  static void (*const stops[])(Pace *, bool) = {pace_set_paused, pace_set_lagging};
  g_autoptr(Pace) pace = pace_new();
  assert_int_equal(pace_grant(pace, 100), 100);
  for (size_t i = 0; i < COUNT_OF(stops); i++) {
    stops[i](pace, true);
    assert_true(pace_is_stopped(pace));
    assert_int_equal(pace_grant(pace, 100), 0);
    stops[i](pace, false);
    assert_int_equal(pace_grant(pace, 100), 100);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_what_was_granted_and_not_used_is_not_lost),
      cmocka_unit_test(test_whoever_stops_the_work_grants_nothing),
  };
  return RUN_TESTS(tests);
}

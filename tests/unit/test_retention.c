/* test_retention.c - how much time has passed for what is deleted by its age. */
#include "projector/domain/retention.h"
#include "tests/unit/support.h"

enum { DAY_MS = 86400000 };

static const int64_t START_MS = 1700000000000, STARTED_MS = 12345;

static void time_passes_as_the_clocks_tell(void **state) {
  (void)state;
  RetentionClock clock = RETENTION_CLOCK_INIT;
  for (int64_t passed = 0; passed < 10 * DAY_MS; passed += DAY_MS / 3)
    assert_int_equal(retention_now_ms(&clock, START_MS + passed, STARTED_MS + passed),
                     START_MS + passed);
}

static void a_clock_that_is_put_ahead_makes_nothing_old(void **state) {
  (void)state;
  RetentionClock clock = RETENTION_CLOCK_INIT;
  retention_now_ms(&clock, START_MS, STARTED_MS);
  assert_int_equal(retention_now_ms(&clock, START_MS + 30 * (int64_t)DAY_MS, STARTED_MS + 1000),
                   START_MS + 1000);
  assert_int_equal(retention_now_ms(&clock, START_MS + 2000, STARTED_MS + 2000), START_MS + 2000);
}

static void a_clock_that_is_put_back_counts(void **state) {
  (void)state;
  RetentionClock clock = RETENTION_CLOCK_INIT;
  retention_now_ms(&clock, START_MS + 30 * (int64_t)DAY_MS, STARTED_MS);
  assert_int_equal(retention_now_ms(&clock, START_MS, STARTED_MS), START_MS);
  assert_int_equal(retention_now_ms(&clock, START_MS + DAY_MS, STARTED_MS), START_MS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(time_passes_as_the_clocks_tell),
      cmocka_unit_test(a_clock_that_is_put_ahead_makes_nothing_old),
      cmocka_unit_test(a_clock_that_is_put_back_counts),
  };
  return RUN_TESTS(tests);
}

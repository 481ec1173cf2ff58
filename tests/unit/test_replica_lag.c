/* test_replica_lag.c - how far a replica is behind, looked at once a second. */
#include "projector/domain/replica_lag.h"
#include "tests/unit/support.h"

static const int64_t SECOND_US = 1000000, LASTS_S = 10000;

static const char *time_of(int64_t second) {
  static char text[REPLICA_LAG_TIME_SIZE];
  g_snprintf(text, sizeof text, "%010" G_GINT64_FORMAT, second);
  return text;
}

/* The primary has a new entry each second. */
static ReplicaLag *looked_for(int64_t seconds) {
  ReplicaLag *lag = replica_lag_new();
  for (int64_t now = 0; now <= seconds; now++)
    replica_lag_note(lag, time_of(now), now * SECOND_US);
  return lag;
}

static void a_lag_of_hours_is_measured(void **state) {
  (void)state;
  static const int64_t lags_s[] = {10, 3600, 7200, 9999};
  ReplicaLag *lag = looked_for(LASTS_S);
  for (size_t i = 0; i < COUNT_OF(lags_s); i++) {
    g_autofree char *name = g_strdup_printf("%" G_GINT64_FORMAT " s", lags_s[i]);
    double told = replica_lag_of(lag, time_of(LASTS_S - lags_s[i]), LASTS_S * SECOND_US);
    check_that(name, told < (double)lags_s[i], "no more than it is");
    check_that(name, told > (double)lags_s[i] * 0.9 - 3, "and hardly less");
  }
  check_that("none", replica_lag_of(lag, time_of(LASTS_S), LASTS_S * SECOND_US) == 0, "0");
  replica_lag_free(lag);
}

/* It counts from when the primary had more, not from the last look. */
static void an_idle_primary_lets_the_lag_grow(void **state) {
  (void)state;
  ReplicaLag *lag = looked_for(5);
  for (int64_t now = 6; now < 100; now++)
    replica_lag_note(lag, time_of(5), now * SECOND_US);
  assert_true(replica_lag_of(lag, time_of(4), 100 * SECOND_US) == 95);
  assert_true(replica_lag_of(lag, "", 100 * SECOND_US) == 100); /* it has nothing yet */
  replica_lag_free(lag);
}

static void what_the_primary_has_lost_no_replica_needs(void **state) {
  (void)state;
  ReplicaLag *lag = looked_for(50);
  replica_lag_note(lag, time_of(20), 51 * SECOND_US);
  assert_true(replica_lag_of(lag, time_of(20), 60 * SECOND_US) == 0);
  assert_true(replica_lag_of(lag, time_of(19), 60 * SECOND_US) == 40);
  replica_lag_free(lag);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_lag_of_hours_is_measured),
      cmocka_unit_test(an_idle_primary_lets_the_lag_grow),
      cmocka_unit_test(what_the_primary_has_lost_no_replica_needs),
  };
  return RUN_TESTS(tests);
}

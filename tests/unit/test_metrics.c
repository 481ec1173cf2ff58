/* test_metrics.c - the counters of a process, whatever becomes of its tenures. */
#include "projector/app/engine/metrics.h"
#include "tests/unit/support.h"

static int64_t restarts_after(Metrics *metrics, int64_t of_the_tenure) {
  metrics_publish(metrics, &(TenureView){.restarts = of_the_tenure});
  g_auto(Figures) figures = metrics_read(metrics);
  return figures.restarts;
}

static void test_a_counter_of_restarts_never_goes_down(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from("{'projections': [{'aggregate_type': 'a', 'table': "
                                            "'t', 'key': {'id': {'from': '$aggregate_id', 'type': "
                                            "'int'}}, 'events': {'E': {'op': 'upsert'}}}]}",
                                            &failure);
  check_text("mapping", failure.message, "");
  g_autoptr(Metrics) metrics = metrics_new(mapping);
  int64_t expected = 0;
  for (int tenure = 0; tenure < 3; tenure++) {
    metrics_set_role(metrics, ROLE_WORKING);
    check_number("a new tenure", restarts_after(metrics, 0), expected);
    check_number("two restarts", restarts_after(metrics, 2), expected + 2);
    metrics_set_role(metrics, ROLE_STANDBY);
    expected += 2;
    g_auto(Figures) between = metrics_read(metrics);
    check_number("between tenures", between.restarts, expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_counter_of_restarts_never_goes_down),
  };
  return RUN_TESTS(tests);
}

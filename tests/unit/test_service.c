/* test_service.c - which part of a tenure counts as one that hangs. */
#include "projector/app/process/service.h"
#include "projector/infra/pulse.h"
#include "tests/unit/support.h"

static int64_t now_us = 1000000;

gint64 __wrap_g_get_monotonic_time(void);
gint64 __wrap_g_get_monotonic_time(void) {
  return now_us;
}

enum { WORKER, READER, PARTS };

static Pulse pulses[PARTS];

/* The thread that looks at the others does so now and then. */
static void pass_ms(int64_t ms) {
  for (; ms > 0; ms -= 500) {
    now_us += 500000;
    service_look();
  }
}

static int begin(void **state) {
  static const ServicePart parts[PARTS] = {{"a worker", 0, &pulses[WORKER]},
                                           {"the reader", 1000, &pulses[READER]}};
  (void)state;
  for (int i = 0; i < PARTS; i++)
    pulses[i] = (Pulse){0};
  service_begins_work(parts, PARTS, 1000);
  return 0;
}

static int end(void **state) {
  (void)state;
  service_ends_work();
  return 0;
}

static void assert_stuck(int64_t ms, const char *part) {
  const char *found = "";
  service_look();
  assert_int_equal(service_stuck_ms(&found), ms);
  assert_string_equal(found, part);
}

static void test_who_rests_does_not_hang(void **state) {
  (void)state;
  pass_ms(500000);
  assert_stuck(0, "");
  pulse_begin(&pulses[WORKER]);
  pulse_end(&pulses[WORKER]);
  assert_stuck(0, "");
  pass_ms(500000);
  assert_stuck(0, "");
}

static void test_who_is_at_work_without_an_answer_does(void **state) {
  (void)state;
  pulse_begin(&pulses[WORKER]);
  assert_stuck(0, "");
  pass_ms(3000);
  assert_stuck(3000, "a worker");
  pulse_end(&pulses[WORKER]);
  assert_stuck(0, "");
}

static void test_each_answer_counts(void **state) {
  (void)state;
  pulse_begin(&pulses[WORKER]);
  for (int i = 0; i < 5; i++) {
    pass_ms(3000);
    pulse_move();
    assert_stuck(0, "");
  }
  pass_ms(2000);
  assert_stuck(2000, "a worker");
  pulse_end(&pulses[WORKER]);
}

static void test_a_move_outside_of_work_is_nobodys(void **state) {
  (void)state;
  pulse_move();
  for (int i = 0; i < PARTS; i++)
    assert_int_equal(pulse_moves(&pulses[i]), 0);
}

static gpointer beat(gpointer data) {
  (void)data;
  pulse_move();
  return NULL;
}

static void test_answers_of_another_thread_do_not_count(void **state) {
  (void)state;
  pulse_begin(&pulses[WORKER]);
  assert_stuck(0, "");
  pass_ms(3000);
  g_thread_join(g_thread_new("another", beat, NULL));
  assert_stuck(3000, "a worker");
  pulse_end(&pulses[WORKER]);
}

static void test_the_usual_rest_of_a_part_is_allowed_for(void **state) {
  (void)state;
  pulse_begin(&pulses[READER]);
  assert_stuck(0, "");
  pass_ms(1000);
  assert_stuck(0, "");
  pass_ms(2000);
  assert_stuck(2000, "the reader");
  pulse_end(&pulses[READER]);
}

static void test_of_several_the_longest_is_named(void **state) {
  (void)state;
  pulse_begin(&pulses[READER]);
  assert_stuck(0, "");
  pass_ms(5000);
  assert_stuck(4000, "the reader");
  g_atomic_int_inc(&pulses[WORKER].moves); /* as another thread would */
  assert_stuck(4000, "the reader");
  pass_ms(1000);
  assert_stuck(5000, "the reader");
  pulse_end(&pulses[READER]);
  assert_stuck(1000, "a worker");
}

static void test_time_in_which_the_process_stood_still_is_nobodys(void **state) {
  (void)state;
  pulse_begin(&pulses[WORKER]);
  assert_stuck(0, "");
  now_us += INT64_C(500000000);
  assert_stuck(1000, "a worker"); /* what passes between two looks at most */
  pulse_end(&pulses[WORKER]);
}

static void test_who_waits_for_another_part_does_not_hang(void **state) {
  (void)state;
  pulse_take_up(pulse_put_down()); /* of a thread that is not at work */
  pulse_begin(&pulses[WORKER]);
  assert_stuck(0, "");
  Pulse *pulse = pulse_put_down();
  pass_ms(5000);
  assert_stuck(0, "");
  pulse_take_up(pulse);
  assert_stuck(0, "");
  pass_ms(2000);
  assert_stuck(2000, "a worker");
  pulse_end(&pulses[WORKER]);
}

enum { LIMIT_US = 1000000 };

static void assert_alive(void) {
  const char *part = NULL;
  assert_true(service_is_alive(LIMIT_US, &part));
}

static void assert_hangs(const char *part) {
  const char *found = "";
  assert_false(service_is_alive(LIMIT_US, &found));
  assert_string_equal(found, part);
}

static void test_a_part_that_hangs_is_not_alive(void **state) {
  (void)state;
  assert_alive();
  pulse_begin(&pulses[WORKER]);
  for (int i = 0; i < 3; i++) {
    pass_ms(500);
    assert_alive(); /* the first look sees that it is at work */
  }
  pass_ms(500);
  assert_hangs("a worker");
  pulse_end(&pulses[WORKER]);
  service_look();
  assert_alive();
}

static void test_nobody_who_looks_is_not_alive(void **state) {
  (void)state;
  service_look();
  assert_alive();
  for (int i = 0; i < 2; i++) {
    now_us += 500000;
    assert_alive();
  }
  now_us += 500000;
  assert_hangs("the thread that looks at the others");
  service_look();
  assert_alive();
}

static void test_after_a_standstill_all_are_alive(void **state) {
  (void)state;
  service_look();
  assert_alive();
  now_us += INT64_C(100000000);
  assert_alive(); /* the thread that notifies the manager comes first */
  service_look();
  assert_alive();
}

static void test_a_standby_is_alive(void **state) {
  service_ends_work();
  assert_alive();
  now_us += 500000;
  assert_alive();
  begin(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_who_rests_does_not_hang, begin, end),
      cmocka_unit_test_setup_teardown(test_who_is_at_work_without_an_answer_does, begin, end),
      cmocka_unit_test_setup_teardown(test_each_answer_counts, begin, end),
      cmocka_unit_test_setup_teardown(test_a_move_outside_of_work_is_nobodys, begin, end),
      cmocka_unit_test_setup_teardown(test_answers_of_another_thread_do_not_count, begin, end),
      cmocka_unit_test_setup_teardown(test_the_usual_rest_of_a_part_is_allowed_for, begin, end),
      cmocka_unit_test_setup_teardown(test_of_several_the_longest_is_named, begin, end),
      cmocka_unit_test_setup_teardown(test_time_in_which_the_process_stood_still_is_nobodys, begin,
                                      end),
      cmocka_unit_test_setup_teardown(test_who_waits_for_another_part_does_not_hang, begin, end),
      cmocka_unit_test_setup_teardown(test_a_part_that_hangs_is_not_alive, begin, end),
      cmocka_unit_test_setup_teardown(test_nobody_who_looks_is_not_alive, begin, end),
      cmocka_unit_test_setup_teardown(test_after_a_standstill_all_are_alive, begin, end),
      cmocka_unit_test_setup_teardown(test_a_standby_is_alive, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

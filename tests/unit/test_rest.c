/* test_rest.c - work that nobody waits for rests long, and no longer than it may. */
#include "projector/domain/rest.h"
#include "tests/unit/support.h"

enum { MS = 1000, S = 1000 * MS };

static void test_a_search_takes_a_tenth_of_the_time(void **state) {
  (void)state;
  assert_int_equal(rest_after_search_us(1 * S, 100000, 0), 10 * S);
  assert_int_equal(rest_after_search_us(1 * S, 1000, 50 * 1000 * 1000),
                   10 * S); /* large documents */
  assert_int_equal(rest_after_search_us(30 * S, 10000000, 0), 60 * S);
  assert_int_equal(rest_after_search_us(600 * S, 10000000, 0), 600 * S);
}

static void test_waiting_for_the_store_is_no_searching(void **state) {
  (void)state;
  assert_int_equal(rest_after_search_us(30 * S, 0, 0), 0);
  assert_int_equal(rest_after_search_us(30 * S, 10, 0), 10 * MS);
  assert_int_equal(rest_after_search_us(30 * S, 0, 50 * 1000), 10 * MS);
}

static void test_a_page_takes_a_sixth_of_the_time(void **state) {
  (void)state;
  assert_int_equal(rest_after_page_us(10 * MS, 200, 0, 60 * MS), 50 * MS);
  assert_int_equal(rest_after_page_us(10 * MS, 200, 60, 60 * MS), 50 * MS); /* 1,000 a second */
}

static void test_a_page_that_waited_for_its_store_does_not_end_the_pruning(void **state) {
  (void)state;
  assert_int_equal(rest_after_page_us(30 * S, 200, 0, 30 * S), 10 * S);
}

static void test_twice_as_many_entries_go_as_come(void **state) {
  (void)state;
  assert_int_equal(rest_after_page_us(10 * MS, 200, 300, 60 * MS), 10 * MS); /* 5,000 a second */
  assert_int_equal(rest_after_page_us(10 * MS, 200, 100, 20 * MS), 10 * MS);
  assert_int_equal(rest_after_page_us(10 * MS, 200, 600, 60 * MS), 0);
  assert_int_equal(rest_after_page_us(10 * MS, 200, 6000, 60 * MS), 0);
}

/* Entries come by the commit, many at once; a page of 200 takes 7 ms. Returns how many go for each
 * that comes, in ten seconds. */
static double gone_for_each(int64_t lump, int64_t lump_us) {
  Arrivals arrivals;
  int64_t now = 5 * S, end = now + 10 * S, begun_at = now, came = 0, gone = 0, since;
  arrivals_begin(&arrivals, now, 0);
  while (now < end) {
    int64_t took = 7 * MS;
    now += took;
    gone += 200;
    came = (now - begun_at) / lump_us * lump;
    int64_t added = arrivals_since(&arrivals, now, came, &since);
    now += rest_after_page_us(took, 200, added, since);
  }
  return (double)gone / (double)came;
}

static void test_twice_as_many_go_as_come_many_at_once(void **state) {
  (void)state;
  assert_true(gone_for_each(500, 100 * MS) > 1.8); /* 5,000 a second */
  assert_true(gone_for_each(500, 50 * MS) > 1.8);
  assert_true(gone_for_each(2000, 200 * MS) > 1.8);
  assert_true(gone_for_each(500, 100 * MS) < 2.5);
}

static void test_entries_that_stay_are_passed_at_leisure(void **state) {
  (void)state;
  assert_int_equal(rest_after_page_us(10 * MS, 0, 100, 20 * MS), 50 * MS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_search_takes_a_tenth_of_the_time),
      cmocka_unit_test(test_waiting_for_the_store_is_no_searching),
      cmocka_unit_test(test_a_page_takes_a_sixth_of_the_time),
      cmocka_unit_test(test_a_page_that_waited_for_its_store_does_not_end_the_pruning),
      cmocka_unit_test(test_twice_as_many_entries_go_as_come),
      cmocka_unit_test(test_twice_as_many_go_as_come_many_at_once),
      cmocka_unit_test(test_entries_that_stay_are_passed_at_leisure),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

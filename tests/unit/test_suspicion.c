/* test_suspicion.c - when a standby considers the owner dead. */
#include "projector/domain/suspicion.h"
#include "tests/unit/support.h"

#include <glib.h>

enum { LEASE_MS = 10000, POLL_MS = 100 };

/* A standby that looks every POLL_MS at an owner. */
typedef struct Watch {
  Suspicion suspicion;
  int64_t now_ms, beat;
  uint64_t tenure;
} Watch;

static void look(Watch *watch) {
  suspicion_look(&watch->suspicion, (HeartbeatLook){watch->beat, watch->tenure},
                 watch->now_ms * 1000);
}

static void stay_silent(Watch *watch, int64_t ms) {
  for (int64_t left = ms; left > 0; left -= POLL_MS) {
    watch->now_ms += MIN(left, POLL_MS);
    look(watch);
  }
}

static void beat_after(Watch *watch, int64_t ms) {
  if (ms > POLL_MS)
    stay_silent(watch, ms - POLL_MS);
  watch->now_ms += MIN(ms, POLL_MS);
  watch->beat++;
  look(watch);
}

static Watch regular_watch(void) {
  Watch watch = {.now_ms = 5000, .beat = 7, .tenure = 1};
  look(&watch);
  for (int i = 0; i < 30; i++)
    beat_after(&watch, 300);
  return watch;
}

static bool is_aroused(const Watch *watch) {
  return suspicion_is_aroused(&watch->suspicion, (int64_t)LEASE_MS * 1000);
}

static int64_t patience_ms(const Watch *watch) {
  return suspicion_patience_us(&watch->suspicion, (int64_t)LEASE_MS * 1000) / 1000;
}

static void a_regular_owner_is_suspected_after_a_few_heartbeats(void **state) {
  (void)state;
  Watch watch = regular_watch();
  check_number("patience", patience_ms(&watch), 900);
  stay_silent(&watch, 800);
  check_that("0.8 s", !is_aroused(&watch), "suspected too early");
  stay_silent(&watch, 200);
  check_that("1 s", is_aroused(&watch), "not suspected");
}

static void an_irregular_owner_is_given_more_time(void **state) {
  (void)state;
  Watch watch = regular_watch();
  for (int i = 0; i < 10; i++) {
    beat_after(&watch, 300);
    beat_after(&watch, 1200);
  }
  check_that("patience", patience_ms(&watch) > 1800, "no more patience after late heartbeats");
  stay_silent(&watch, 1700);
  check_that("1.7 s", !is_aroused(&watch), "suspected by the longest interval it has had");
}

static void patience_ends_with_the_lease(void **state) {
  (void)state;
  Watch watch = regular_watch();
  for (int i = 0; i < 20; i++)
    beat_after(&watch, 9000);
  check_number("patience", patience_ms(&watch), LEASE_MS);
}

static void without_a_rhythm_there_is_no_suspicion(void **state) {
  (void)state;
  Watch watch = {.now_ms = 5000, .tenure = 1};
  look(&watch);
  for (int i = 0; i < SUSPICION_INTERVALS_MIN; i++) /* the first heartbeat ends no whole interval */
    beat_after(&watch, 300);
  stay_silent(&watch, 60000);
  check_that("too few", !is_aroused(&watch), "suspected by too few heartbeats");
  check_number("patience", patience_ms(&watch), LEASE_MS);
}

static void silence_while_the_standby_cannot_read_does_not_count(void **state) {
  (void)state;
  Watch watch = regular_watch();
  stay_silent(&watch, 700);
  watch.now_ms += 100;
  suspicion_look_failed(&watch.suspicion);
  check_that("failed", !is_aroused(&watch), "suspected without having looked");
  watch.now_ms += 100;
  look(&watch);
  stay_silent(&watch, 800);
  check_that("anew", !is_aroused(&watch), "the silence before the failure was counted");
  stay_silent(&watch, 200);
  check_that("in the end", is_aroused(&watch), "not suspected after a whole silence");
}

static void the_standbys_own_pause_does_not_count(void **state) {
  (void)state;
  Watch watch = regular_watch();
  watch.now_ms += 30000; /* for example stopped by a signal */
  look(&watch);
  check_that("pause", !is_aroused(&watch), "suspected for its own pause");
  stay_silent(&watch, 800);
  check_that("anew", !is_aroused(&watch), "the pause was counted");
}

static void an_interval_with_a_missed_heartbeat_is_not_learnt(void **state) {
  (void)state;
  Watch watch = regular_watch();
  stay_silent(&watch, 1900);
  watch.beat++; /* the one between two looks */
  beat_after(&watch, POLL_MS);
  check_number("patience", patience_ms(&watch), 900);
}

static void a_pause_is_not_learnt_as_an_interval(void **state) {
  (void)state;
  Watch watch = regular_watch();
  watch.now_ms += 30000;
  watch.beat++;
  look(&watch);
  beat_after(&watch, 300);
  check_number("patience", patience_ms(&watch), 900);
}

static void after_an_election_or_a_new_owner_all_is_learnt_anew(void **state) {
  (void)state;
  Watch watch = regular_watch();
  stay_silent(&watch, 800);
  watch.tenure = 2;
  stay_silent(&watch, 5000);
  check_that("election", !is_aroused(&watch), "suspected by what was learnt before the election");
  for (int i = 0; i < 10; i++)
    beat_after(&watch, 300);
  stay_silent(&watch, 1100);
  check_that("again", is_aroused(&watch), "the new rhythm was not learnt");
}

static void a_heartbeat_ends_the_suspicion(void **state) {
  (void)state;
  Watch watch = regular_watch();
  beat_after(&watch, 1500);
  check_that("alive", !is_aroused(&watch), "suspected in spite of a heartbeat");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_regular_owner_is_suspected_after_a_few_heartbeats),
      cmocka_unit_test(an_irregular_owner_is_given_more_time),
      cmocka_unit_test(patience_ends_with_the_lease),
      cmocka_unit_test(without_a_rhythm_there_is_no_suspicion),
      cmocka_unit_test(silence_while_the_standby_cannot_read_does_not_count),
      cmocka_unit_test(the_standbys_own_pause_does_not_count),
      cmocka_unit_test(an_interval_with_a_missed_heartbeat_is_not_learnt),
      cmocka_unit_test(a_pause_is_not_learnt_as_an_interval),
      cmocka_unit_test(after_an_election_or_a_new_owner_all_is_learnt_anew),
      cmocka_unit_test(a_heartbeat_ends_the_suspicion),
  };
  return RUN_TESTS(tests);
}

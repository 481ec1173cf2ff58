// UUIDv7: format, order within a millisecond, with a clock that stands or goes back, and across
// threads.
#include "outbox/internal.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static int64_t time_of(const uint8_t id[16]) {
  int64_t ms = 0;
  for (int i = 0; i < 6; i++) {
    ms = ms << 8 | id[i];
  }
  return ms;
}

static void assert_format(const uint8_t id[16]) {
  assert_int_equal(id[6] >> 4, 7);
  assert_int_equal(id[8] >> 6, 2);
}

static void test_time_version_and_variant(void **unused) {
  (void)unused;
  outbox_uuid7_state_t state = {0};
  uint8_t id[16];
  static const uint8_t random[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  outbox_uuid7_next(&state, 0x0123456789ab, random, id);
  static const uint8_t expected[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x7f, 0xff,
                                       0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  assert_memory_equal(id, expected, 16);
}

static void test_rises_whatever_the_clock_does(void **unused) {
  (void)unused;
  static const int64_t clock[] = {1000, 1000, 1000, 999, 1, 0, 1001, 1001, 1000, 5000, 4999};
  for (unsigned fill = 0; fill < 256; fill++) {
    outbox_uuid7_state_t state = {0};
    uint8_t before[16] = {0};
    uint8_t random[10];
    memset(random, (int)fill, sizeof random);
    for (size_t i = 0; i < sizeof clock / sizeof *clock; i++) {
      uint8_t id[16];
      outbox_uuid7_next(&state, clock[i], random, id);
      assert_format(id);
      assert_true(memcmp(before, id, 16) < 0);
      memcpy(before, id, 16);
    }
    assert_true(time_of(before) >= 5000);
  }
}

static void test_full_millisecond_borrows_the_next(void **unused) {
  (void)unused;
  outbox_uuid7_state_t state = {0};
  uint8_t first[16];
  uint8_t second[16];
  static const uint8_t ones[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static const uint8_t zeros[10] = {0};
  outbox_uuid7_next(&state, 7, ones, first);
  outbox_uuid7_next(&state, 7, zeros, second); // the least step there is
  assert_int_equal(time_of(first), 7);
  assert_int_equal(time_of(second), 8);
  assert_format(second);
}

static void test_carry_passes_the_variant_bits(void **unused) {
  (void)unused;
  outbox_uuid7_state_t state = {0};
  uint8_t first[16];
  uint8_t second[16];
  static const uint8_t low_full[10] = {0x00, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  static const uint8_t zeros[10] = {0};
  outbox_uuid7_next(&state, 7, low_full, first);
  outbox_uuid7_next(&state, 7, zeros, second);
  static const uint8_t expected[16] = {0, 0, 0, 0, 0, 7, 0x70, 0x02, 0x80, 0, 0, 0, 0, 0, 0, 0};
  assert_memory_equal(second, expected, 16);
}

enum { THREADS = 4, PER_THREAD = 20000 };

static void *make_ids(void *into) {
  uint8_t(*ids)[16] = into;
  for (int i = 0; i < PER_THREAD; i++) {
    outbox_uuid7(ids[i]);
  }
  return NULL;
}

static int compare(const void *a, const void *b) {
  return memcmp(a, b, 16);
}

static void test_unique_and_rising_in_threads(void **unused) {
  (void)unused;
  uint8_t(*ids)[16] = calloc(THREADS * PER_THREAD, sizeof *ids);
  pthread_t threads[THREADS];
  assert_non_null(ids);
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, make_ids, ids + (size_t)i * PER_THREAD), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    for (int k = 1; k < PER_THREAD; k++) {
      assert_true(compare(ids[i * PER_THREAD + k - 1], ids[i * PER_THREAD + k]) < 0);
    }
  }
  qsort(ids, (size_t)THREADS * PER_THREAD, sizeof *ids, compare);
  for (int i = 1; i < THREADS * PER_THREAD; i++) {
    assert_true(compare(ids[i - 1], ids[i]) != 0);
  }
  free(ids);
}

enum { FORKS = 1000, FORKS_S = 5 }; // under valgrind a fork takes longer than a millisecond

static void fork_an_id(uint8_t parent[static 16], uint8_t child[static 16]) {
  int ends[2];
  outbox_uuid7(parent);
  assert_int_equal(pipe(ends), 0);
  pid_t pid = fork();
  if (pid == 0) {
    outbox_uuid7(child);
    _exit(write(ends[1], child, 16) == 16 ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(read(ends[0], child, 16), 16);
  close(ends[0]);
  close(ends[1]);
}

// Only within one millisecond is there anything to count on from.
static void test_a_child_does_not_count_on_from_its_parent(void **unused) {
  (void)unused;
  uint8_t parent[16];
  uint8_t child[16];
  int forks = 0;
  time_t begun = time(NULL);
  do {
    if (forks++ == FORKS || time(NULL) > begun + FORKS_S) {
      skip();
    }
    fork_an_id(parent, child);
  } while (memcmp(parent, child, 6) != 0);
  // A step has 32 bits, and every other one carries into byte 11: counting on would leave bytes 8
  // to 10 as they were.
  assert_true(memcmp(parent + 8, child + 8, 3) != 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_time_version_and_variant),
      cmocka_unit_test(test_rises_whatever_the_clock_does),
      cmocka_unit_test(test_full_millisecond_borrows_the_next),
      cmocka_unit_test(test_carry_passes_the_variant_bits),
      cmocka_unit_test(test_unique_and_rising_in_threads),
      cmocka_unit_test(test_a_child_does_not_count_on_from_its_parent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_log.c - how often a failure that repeats is logged, on a clock of the test's own. */
#include "projector/infra/log.h"
#include "projector/infra/log_writer.h"
#include "tests/unit/support.h"

#include <glib.h>
#include <string.h>

enum { INTERVAL_S = 10 }; /* as log.h promises */

static int64_t now_s = 1000;
static char *last; /* NULL: nothing was logged */

/* Linked in place of GLib's. */
gint64 __wrap_g_get_monotonic_time(void);
gint64 __wrap_g_get_monotonic_time(void) {
  return now_s * G_USEC_PER_SEC;
}

void log_writer_start(char *(*notice)(int64_t dropped)) {
  (void)notice;
}

void log_writer_flush(int64_t limit_ms) {
  (void)limit_ms;
}

void log_writer_put(char *line) {
  g_free(last);
  last = line;
}

/* What the line says of those left out: their number, 0 if it says nothing, -1 without a line. */
static int64_t repeated(void) {
  static const Failure failure = {.class = FAILURE_UNAVAILABLE, .message = "away"};
  g_clear_pointer(&last, g_free);
  log_failure(LOG_LEVEL_WARNING, "cannot be reached", &failure);
  const char *count = last ? strstr(last, " repeated=") : NULL;
  return count ? g_ascii_strtoll(strchr(count, '=') + 1, NULL, 10) : last ? 0 : -1;
}

static void test_repeated_are_those_left_out_since_the_last_line(void **state) {
  (void)state;
  static const int64_t left_out[] = {3, 1, 0, 5};
  check_number("the first", repeated(), 0);
  for (size_t i = 0; i < COUNT_OF(left_out); i++) {
    for (int64_t n = 0; n < left_out[i]; n++)
      check_number("too soon", repeated(), -1);
    now_s += INTERVAL_S;
    check_number("after ten seconds", repeated(), left_out[i]);
  }
  g_clear_pointer(&last, g_free);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_repeated_are_those_left_out_since_the_last_line),
  };
  return RUN_TESTS(tests);
}

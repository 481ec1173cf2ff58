/* test_real.c - doubles in JSON: shortest text, distance, and what a server turns them into. */
#include "projector/domain/real.h"
#include "tests/unit/support.h"

#include <string.h>

/* --- text ----------------------------------------------------------------------------------- */

static void doubles_get_as_few_digits_as_they_need(void **state) {
  static const struct {
    const char *json, *expected;
  } cases[] = {
      {"12.339999999999999858", "12.34"},
      {"{\"a\": [0.10000000000000000555, 1.0, -0.0], \"b\": 7}",
       "{\"a\": [0.1, 1.0, -0.0], \"b\": 7}"},
      {"9223372036854775807", "9223372036854775807"},
      {"-5", "-5"},
      {"100000000000000000000.0", "1e+20"},
      {"4.9406564584124654418e-324", "4.94065645841247e-324"},
      {"1.7976931348623157081e+308", "1.7976931348623157e+308"},
      {"0.30000000000000004441", "0.30000000000000004"},
      {"\"1.50000 \\\" 2.50000\"", "\"1.50000 \\\" 2.50000\""},
      {"[\"\\\\\", 2.50000]", "[\"\\\\\", 2.5]"},
      {"{\"1.500\": null, \"t\": true}", "{\"1.500\": null, \"t\": true}"},
      {"\"cut", "\"cut"},
      {"\"cut\\", "\"cut\\"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(GString) text = g_string_new(NULL);
    json_append_short(text, cases[i].json, strlen(cases[i].json));
    check_text(cases[i].json, text->str, cases[i].expected);
  }
}

/* --- distance ------------------------------------------------------------------------------- */

static void distances(void **state) {
  (void)state;
  check_number("same", (int64_t)real_distance(1.5, 1.5), 0);
  check_number("zeros", (int64_t)real_distance(0.0, -0.0), 0);
  check_number("next", (int64_t)real_distance(1.0, 1.0000000000000002), 1);
  check_number("previous", (int64_t)real_distance(1.0, 0.99999999999999989), 1);
  check_number("around zero",
               (int64_t)real_distance(4.9406564584124654e-324, -4.9406564584124654e-324), 2);
  check_that("far", real_distance(-1e308, 1e308) > INT64_MAX / 2, "is far");
}

static void json_is_the_same_within_the_slack(void **state) {
  static const struct {
    const char *a, *b;
    unsigned slack;
    bool same;
  } cases[] = {
      {"{\"a\": 1.0}", "{\"a\": 1.0000000000000002}", 0, false},
      {"{\"a\": 1.0}", "{\"a\": 1.0000000000000002}", 3, true},
      {"[{\"x\": [1.0]}]", "[{\"x\": [1.0000000000000007]}]", 3, true},
      {"1.0", "1.0000000000000009", 3, false},
      {"1.0", "1", 3, false}, /* another type is another value */
      {"[1.0, 2]", "[1.0]", 3, false},
      {"{\"a\": 1}", "{\"b\": 1}", 3, false},
      {"{\"a\": 1}", "{\"a\": 1, \"b\": 1}", 3, false},
      {"\"x\"", "\"y\"", 3, false},
      {"{\"b\": null, \"a\": true}", "{\"a\": true, \"b\": null}", 3, true},
      {"{", "{", 3, false},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    check_number(cases[i].b,
                 json_text_same(cases[i].a, strlen(cases[i].a), cases[i].b, strlen(cases[i].b),
                                cases[i].slack),
                 cases[i].same);
}

/* --- the probe ------------------------------------------------------------------------------ */

static void the_probe_tells_a_server_that_is_off(void **state) {
  /* The answer of MySQL 8.0.33; 9.7 returns the doubles unchanged. */
  static const char mysql80[] =
      "[0.9452706955539224, 0.3812042376882124, 10.149298892552116, 184.46751421471,"
      " 23.955720489371338, 1.109523434929355e-153, 1.125154338087953e-38, 9.186772012844306e-293,"
      " 9.783306217769698e244]";
  static const char *const garbage[] = {"", "{}", "[]", "[1.0]", "null"};
  unsigned slack = 99;
  (void)state;
  check_that("exact", json_probe_judge(json_probe, strlen(json_probe), &slack), "is an answer");
  check_number("exact", slack, 0);
  check_that("8.0", json_probe_judge(mysql80, strlen(mysql80), &slack), "is an answer");
  check_number("8.0", slack, REAL_SLACK);
  check_that("8.0 is within the slack",
             json_text_same(json_probe, strlen(json_probe), mysql80, strlen(mysql80), slack),
             "is the same");
  for (size_t i = 0; i < COUNT_OF(garbage); i++)
    check_that(garbage[i], !json_probe_judge(garbage[i], strlen(garbage[i]), &slack),
               "is no answer");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(doubles_get_as_few_digits_as_they_need),
      cmocka_unit_test(distances),
      cmocka_unit_test(json_is_the_same_within_the_slack),
      cmocka_unit_test(the_probe_tells_a_server_that_is_off),
  };
  return RUN_TESTS(tests);
}

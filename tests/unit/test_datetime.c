/* test_datetime.c - dates between numbers and text: range ends, leap days, times before 1970. */
#include "projector/domain/datetime.h"
#include "tests/unit/support.h"

#include <string.h>

static const struct {
  int64_t us;
  unsigned fraction;
  const char *text;
} format_cases[] = {
    {0, 0, "1970-01-01 00:00:00"},
    {0, 6, "1970-01-01 00:00:00.000000"},
    {-1, 6, "1969-12-31 23:59:59.999999"},
    {-1000, 3, "1969-12-31 23:59:59.999"},
    {-1000000, 0, "1969-12-31 23:59:59"},
    {-86400000000LL, 0, "1969-12-31 00:00:00"},
    {-86400000001LL, 6, "1969-12-30 23:59:59.999999"},
    {1, 6, "1970-01-01 00:00:00.000001"},
    {1714979289123456LL, 6, "2024-05-06 07:08:09.123456"},
    {1714979289123456LL, 5, "2024-05-06 07:08:09.12345"},
    {1714979289123456LL, 3, "2024-05-06 07:08:09.123"},
    {1714979289123456LL, 1, "2024-05-06 07:08:09.1"},
    {1714979289123456LL, 0, "2024-05-06 07:08:09"},
    {951782400000000LL, 0, "2000-02-29 00:00:00"},
    {951868799999999LL, 6, "2000-02-29 23:59:59.999999"},
    {951868800000000LL, 0, "2000-03-01 00:00:00"},
    {1709164800000000LL, 0, "2024-02-29 00:00:00"},
    {4107542400000000LL, 0, "2100-03-01 00:00:00"},
    {4107456000000000LL, 0, "2100-02-28 00:00:00"},
    {-2203891200000000LL, 0, "1900-03-01 00:00:00"},
    {-2203977600000000LL, 0, "1900-02-28 00:00:00"},
    {-30610224000000000LL, 6, "1000-01-01 00:00:00.000000"},
    {253402300799999999LL, 6, "9999-12-31 23:59:59.999999"},
    {2147483647000000LL, 0, "2038-01-19 03:14:07"},
};

static void test_format(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(format_cases); i++) {
    char text[DATETIME_TEXT_SIZE];
    size_t length = datetime_format(format_cases[i].us, format_cases[i].fraction, text);
    check_text("format", text, format_cases[i].text);
    check_number(text, (int64_t)length, (int64_t)strlen(text));
  }
}

static const struct {
  const char *text;
  bool time;
  bool good;
  int64_t us;
} parse_cases[] = {
    {"1970-01-01", false, true, 0},
    {"1969-12-31", false, true, -86400000000LL},
    {"2000-02-29", false, true, 951782400000000LL},
    {"1000-01-01", false, true, -30610224000000000LL},
    {"9999-12-31", false, true, 253402214400000000LL},
    {"0999-12-31", false, true, -30610310400000000LL},
    {"0001-01-01", false, true, -62135596800000000LL},
    {"0000-12-31", false, false, 0},
    {"0000-00-00", false, false, 0},
    {"2023-02-29", false, false, 0},
    {"1900-02-29", false, false, 0},
    {"2100-02-29", false, false, 0},
    {"2024-04-31", false, false, 0},
    {"2024-01-32", false, false, 0},
    {"2024-01-00", false, false, 0},
    {"2024-00-01", false, false, 0},
    {"2024-13-01", false, false, 0},
    {"2024-1-01", false, false, 0},
    {"2024-01-1", false, false, 0},
    {"24-01-01", false, false, 0},
    {"2024/01/01", false, false, 0},
    {"2024-01/01", false, false, 0},
    {" 2024-01-01", false, false, 0},
    {"2024-01-01 ", false, false, 0},
    {"-024-01-01", false, false, 0},
    {"+024-01-01", false, false, 0},
    {"", false, false, 0},
    {"2024-01-01T00:00:00Z", false, false, 0},
    {"2024-05-06T07:08:09Z", true, true, 1714979289000000LL},
    {"2024-05-06 07:08:09Z", true, true, 1714979289000000LL},
    {"2024-05-06T07:08:09.1Z", true, true, 1714979289100000LL},
    {"2024-05-06T07:08:09.123456Z", true, true, 1714979289123456LL},
    {"2024-05-06T07:08:09.000001Z", true, true, 1714979289000001LL},
    {"1969-12-31T23:59:59.999999Z", true, true, -1},
    {"2024-05-06T23:59:59Z", true, true, 1715039999000000LL},
    {"9999-12-31T23:59:59.999999Z", true, true, 253402300799999999LL},
    {"2024-05-06T07:08:09.1234567Z", true, false, 0},
    {"2024-05-06T07:08:09.Z", true, false, 0},
    {"2024-05-06T07:08:09", true, false, 0},
    {"2024-05-06T07:08:09+00:00", true, true, 1714979289000000LL},
    {"2024-05-06T07:08:09.5+02:00", true, true, 1714972089500000LL},
    {"2024-05-06T07:08:09-03:30", true, true, 1714991889000000LL},
    {"2024-05-06T07:08:09.1230000Z", true, true, 1714979289123000LL},
    {"2024-05-06T07:08:09.1234560000+00:00", true, true, 1714979289123456LL},
    {"2024-05-06T07:08:09.12345600001Z", true, false, 0},
    {"0001-01-01T00:00:00+00:01", true, false, 0},
    {"0001-01-01T00:00:59.9995+00:01", true, false, 0},
    {"0001-01-01T00:01:00+00:01", true, true, -62135596800000000LL},
    {"9999-12-31T23:59:59-00:01", true, false, 0},
    {"2024-05-06T07:08:09+24:00", true, false, 0},
    {"2024-05-06T07:08:09+02:60", true, false, 0},
    {"2024-05-06T07:08:09+0200", true, false, 0},
    {"2024-05-06T07:08:09+02", true, false, 0},
    {"2024-05-06T07:08:09 02:00", true, false, 0},
    {"2024-05-06T07:08:09ZZ", true, false, 0},
    {"2024-05-06T07:08Z", true, false, 0},
    {"2024-05-06T0708:09Z", true, false, 0},
    {"2024-05-06T07:8:09Z", true, false, 0},
    {"2024-05-06T07:08:9Z", true, false, 0},
    {"2024-05-06T07:08:09.5", true, false, 0},
    {"2024-05-06T07:08:09+2:00", true, false, 0},
    {"2024-05-06T07:08:09+02:0", true, false, 0},
    {"2024-05-06t07:08:09Z", true, false, 0},
    {"2024-05-06T24:00:00Z", true, false, 0},
    {"2024-05-06T07:60:00Z", true, false, 0},
    {"2024-05-06T07:08:60Z", true, false, 0},
    {"2024-05-06T-7:08:09Z", true, false, 0},
    {"2024-05-06", true, false, 0},
    {"2024-02-30T00:00:00Z", true, false, 0},
};

static void test_parse(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(parse_cases); i++) {
    const char *text = parse_cases[i].text;
    /* A copy, so that valgrind sees reads beyond the text's end. */
    g_autofree char *exact = g_memdup2(text, strlen(text) + 1);
    int64_t us = 42;
    bool good = datetime_parse(exact, strlen(text), parse_cases[i].time, &us);
    check_number(text, good, parse_cases[i].good);
    check_number(text, us, good ? parse_cases[i].us : 42);
  }
}

static void test_parse_respects_the_length(void **state) {
  (void)state;
  int64_t us;
  check_that("2024-01-01|9", datetime_parse("2024-01-019", 10, false, &us),
             "bytes behind are not read");
  check_that("2024-01-0|1", !datetime_parse("2024-01-01", 9, false, &us), "the end is respected");
  check_that("NUL", !datetime_parse("2024-01-01\0", 11, false, &us), "a NUL is no end");
}

static const struct {
  int64_t ms;
  bool inside;
} range_cases[] = {
    {0, true},
    {-1, true},
    {-30610224000000LL, true},
    {-30610224000001LL, false},
    {253402300799999LL, true},
    {253402300800000LL, false},
    {INT64_MIN, false},
    {INT64_MAX, false},
};

static void test_range(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(range_cases); i++)
    check_number("range", datetime_in_range(range_cases[i].ms), range_cases[i].inside);
}

/* Every day of the range, formatted and read again, compared with a calendar counted by hand; or
 * those of some years. */
static void test_every_day(void **state) {
  (void)state;
  static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  enum { YEARS = 9000 };
  int64_t us = -30610224000000000LL;
  uint64_t few = cases_to_try(YEARS);
  int every = few < YEARS ? YEARS / (int)few : 1;
  for (int year = 1000; year <= 9999; year++)
    for (int month = 1; month <= 12; month++) {
      bool leap = month == 2 && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
      for (int day = 1; day <= month_days[month - 1] + leap; day++, us += 86400000000LL) {
        char expected[64], text[DATETIME_TEXT_SIZE];
        if (year % every != 0)
          continue;
        g_snprintf(expected, sizeof expected, "%04d-%02d-%02d 00:00:00", year, month, day);
        datetime_format(us, 0, text);
        int64_t back = 0;
        if (strcmp(text, expected) != 0 || !datetime_parse(text, 10, false, &back) || back != us)
          fail_msg("%s became %s and %lld", expected, text, (long long)back);
      }
    }
  check_number("the day after the last", us, 253402300800000000LL);
}

static void test_a_duration_has_two_units_at_most(void **state) {
  (void)state;
  static const struct {
    int64_t ms;
    const char *expected;
  } cases[] = {
      {999, "999 ms"},           {1500, "1.5 s"},          {59999, "59 s"},
      {61000, "1 min 1 s"},      {3599999, "59 min 59 s"}, {3661000, "1 h 1 min"},
      {86399999, "23 h 59 min"}, {90000000, "1 d 1 h"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    char text[DURATION_TEXT_SIZE];
    check_text("duration", duration_text(cases[i].ms, text), cases[i].expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_format),
      cmocka_unit_test(test_parse),
      cmocka_unit_test(test_parse_respects_the_length),
      cmocka_unit_test(test_range),
      cmocka_unit_test(test_every_day),
      cmocka_unit_test(test_a_duration_has_two_units_at_most),
  };
  return RUN_TESTS(tests);
}

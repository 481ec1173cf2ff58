/* test_decimal.c - exact decimals: reading, adding, fitting, integers at their limits. */
#include "projector/domain/decimal.h"
#include "tests/unit/support.h"

#include <string.h>

#define NINES_65 "99999999999999999999999999999999999999999999999999999999999999999"
#define ZEROS_65 "00000000000000000000000000000000000000000000000000000000000000000"

static bool parse(const char *text, Decimal *ret_decimal) {
  return decimal_parse(text, strlen(text), ret_decimal);
}

/* The parsed and formatted text, or "refused". */
static char *parsed(const char *text) {
  Decimal decimal;
  char buffer[DECIMAL_TEXT_SIZE];
  if (!parse(text, &decimal))
    return g_strdup("refused");
  size_t length = decimal_format(&decimal, buffer);
  check_number(text, (int64_t)length, (int64_t)strlen(buffer));
  return g_strdup(buffer);
}

static const struct {
  const char *text, *expected;
} parse_cases[] = {
    {"0", "0"},
    {"-0", "0"},
    {"+0", "0"},
    {"0.00", "0"},
    {"-0.00", "0"},
    {"000", "0"},
    {"0E+6111", "0"},
    {"-0E-6176", "0"},
    {"1", "1"},
    {"+1", "1"},
    {"-1", "-1"},
    {"0012", "12"},
    {"10", "10"},
    {"100.00", "100"},
    {"12.50", "12.5"},
    {"-12.50", "-12.5"},
    {".5", "0.5"},
    {"-.5", "-0.5"},
    {"5.", "5"},
    {"0.05", "0.05"},
    {"00.05", "0.05"},
    {"1.5E+3", "1500"},
    {"1.5e3", "1500"},
    {"1.5E3", "1500"},
    {"1.5E-3", "0.0015"},
    {"0.05E+1", "0.5"},
    {"0.05E+3", "50"},
    {"1500E-2", "15"},
    {"15E-2", "0.15"},
    {"150E-3", "0.15"},
    {"1E+0", "1"},
    {"1E-0", "1"},
    {"1E0000000000000000002", "100"},
    {"9223372036854775807", "9223372036854775807"},
    {"-9223372036854775808", "-9223372036854775808"},
    {"1234567890123456789012345678901234", "1234567890123456789012345678901234"},
    {"0.1234567890123456789012345678901234", "0.1234567890123456789012345678901234"},
    {NINES_65, NINES_65},
    {"-" NINES_65, "-" NINES_65},
    {"1" ZEROS_65, "1" ZEROS_65},
    {"1" ZEROS_65 ZEROS_65, "1" ZEROS_65 ZEROS_65},
    {"1E+159", "1" ZEROS_65 ZEROS_65 "00000000000000000000000000000"},
    {"1E+160", "refused"},
    {"10E+159", "refused"},
    {"1E-161", "refused"},
    {"9.99E+6144", "refused"},
    {"9.999999999999999999999999999999999E+6144", "refused"},
    {"1E-6176", "refused"},
    {"1E+100001", "refused"},
    {"1E-100001", "refused"},
    {"1E+99999999999999999999", "refused"},
    {NINES_65 NINES_65 NINES_65, "refused"},
    {"", "refused"},
    {"-", "refused"},
    {"+", "refused"},
    {".", "refused"},
    {"-.", "refused"},
    {"E3", "refused"},
    {".E3", "refused"},
    {"1E", "refused"},
    {"1E+", "refused"},
    {"1E1.5", "refused"},
    {"1.2.3", "refused"},
    {"--1", "refused"},
    {"+-1", "refused"},
    {" 1", "refused"},
    {"1 ", "refused"},
    {"1,5", "refused"},
    {"0x10", "refused"},
    {"1e5e5", "refused"},
    {"NaN", "refused"},
    {"Infinity", "refused"},
    {"-Infinity", "refused"},
    {"inf", "refused"},
    {"1;DROP", "refused"},
};

static void test_parse(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(parse_cases); i++) {
    g_autofree char *found = parsed(parse_cases[i].text);
    check_text(parse_cases[i].text, found, parse_cases[i].expected);
  }
}

static void test_parse_respects_the_length(void **state) {
  (void)state;
  Decimal decimal;
  char text[DECIMAL_TEXT_SIZE];
  check_that("12|3", decimal_parse("123", 2, &decimal), "a part is read");
  decimal_format(&decimal, text);
  check_text("12|3", text, "12");
  check_that("1E|5", !decimal_parse("1E5", 2, &decimal), "the exponent is cut off");
  check_that("NUL", !decimal_parse("1\0002", 3, &decimal), "a NUL is no end");
}

static const struct {
  const char *a, *b, *sum;
} add_cases[] = {
    {"0", "0", "0"},
    {"0", "-0", "0"},
    {"0", "5", "5"},
    {"0", "-5", "-5"},
    {"1", "2", "3"},
    {"-1", "-2", "-3"},
    {"1", "-2", "-1"},
    {"2", "-1", "1"},
    {"5", "-5", "0"},
    {"-5", "5", "0"},
    {"0.5", "-0.5", "0"},
    {"9", "1", "10"},
    {"99", "1", "100"},
    {"999999999", "1", "1000000000"},
    {"9.99", "0.01", "10"},
    {"99.99", "0.01", "100"},
    {"-9.99", "-0.01", "-10"},
    {"10", "-0.01", "9.99"},
    {"-10", "0.01", "-9.99"},
    {"100", "-1", "99"},
    {"1000000000", "-1", "999999999"},
    {"0.1", "0.2", "0.3"},
    {"0.001", "1000", "1000.001"},
    {"12.5", "-12.25", "0.25"},
    {"0.25", "0.75", "1"},
    {"1E+20", "1E-20", "100000000000000000000.00000000000000000001"},
    {"9223372036854775807", "1", "9223372036854775808"},
    {"-9223372036854775808", "-1", "-9223372036854775809"},
    {"18446744073709551615", "1", "18446744073709551616"},
    {NINES_65, "1", "1" ZEROS_65},
    {"1" ZEROS_65, "-1", NINES_65},
    {NINES_65, "-" NINES_65, "0"},
    {"1E+158", "1E+158", "2E+158"},
    {"1E+80", "1E-80", "refused"},
    {"1E+159", "1E-159", "refused"},
};

static char *added(const char *a, const char *b) {
  Decimal x, y;
  char text[DECIMAL_TEXT_SIZE];
  check_that(a, parse(a, &x), "it is a number");
  check_that(b, parse(b, &y), "it is a number");
  if (!decimal_add(&x, &y, &x)) /* the sum in place of an operand */
    return g_strdup("refused");
  decimal_format(&x, text);
  return g_strdup(text);
}

static void test_add(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(add_cases); i++) {
    g_autofree char *sum = added(add_cases[i].a, add_cases[i].b);
    g_autofree char *swapped = added(add_cases[i].b, add_cases[i].a);
    g_autofree char *expected = parsed(add_cases[i].sum);
    g_autofree char *name = g_strdup_printf("%s + %s", add_cases[i].a, add_cases[i].b);
    check_text(name, sum, expected);
    check_text(name, swapped, expected);
  }
}

/* Compared with integer arithmetic on hundredths, for all pairs of a grid around the carries. */
static void test_add_as_integers_do(void **state) {
  (void)state;
  static const int64_t grid[] = {0,     1,     5,     9,      10,     11,     49,     50,   99,
                                 100,   101,   199,   900,    990,    999,    1000,   1001, 9999,
                                 10000, 10001, 99999, 100000, 123456, 999999, 1000000};
  for (size_t i = 0; i < 4 * COUNT_OF(grid) * COUNT_OF(grid); i++) {
    int64_t a = grid[i / 4 / COUNT_OF(grid)] * (i & 1 ? -1 : 1);
    int64_t b = grid[i / 4 % COUNT_OF(grid)] * (i & 2 ? -1 : 1);
    g_autofree char *x = g_strdup_printf("%lldE-2", (long long)a);
    g_autofree char *y = g_strdup_printf("%lldE-2", (long long)b);
    g_autofree char *sum_text = g_strdup_printf("%lldE-2", (long long)(a + b));
    g_autofree char *expected = parsed(sum_text);
    g_autofree char *found = added(x, y);
    g_autofree char *name = g_strdup_printf("%s + %s", x, y);
    check_text(name, found, expected);
  }
}

static const struct {
  const char *text;
  unsigned precision, scale;
  bool fits;
} fit_cases[] = {
    {"0", 1, 0, true},
    {"0", 1, 1, true},
    {"-0", 18, 2, true},
    {"9", 1, 0, true},
    {"10", 1, 0, false},
    {"1", 1, 1, false},
    {"0.9", 1, 1, true},
    {"0.99", 1, 1, false},
    {"999.99", 5, 2, true},
    {"-999.99", 5, 2, true},
    {"1000", 5, 2, false},
    {"999.990", 5, 2, true},
    {"999.999", 5, 2, false},
    {"0.001", 5, 2, false},
    {"1E+3", 5, 2, false},
    {"1E+2", 5, 2, true},
    {"0.10000000000000000555", 18, 2, false},
    {NINES_65, 65, 0, true},
    {NINES_65, 65, 1, false},
    {"1" ZEROS_65, 65, 0, false},
    {"1E-30", 65, 30, true},
    {"1E-31", 65, 30, false},
    {"99999999999999999999999999999999999.999999999999999999999999999999", 65, 30, true},
};

static void test_fits(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(fit_cases); i++) {
    Decimal decimal;
    check_that(fit_cases[i].text, parse(fit_cases[i].text, &decimal), "it is a number");
    g_autofree char *name = g_strdup_printf("%s in decimal(%u,%u)", fit_cases[i].text,
                                            fit_cases[i].precision, fit_cases[i].scale);
    check_number(name, decimal_fits(&decimal, fit_cases[i].precision, fit_cases[i].scale),
                 fit_cases[i].fits);
  }
}

static const struct {
  const char *text, *as_int64, *as_uint64;
} integer_cases[] = {
    {"0", "0", "0"},
    {"-0", "0", "0"},
    {"1E+2", "100", "100"},
    {"5.00", "5", "5"},
    {"-5", "-5", "no"},
    {"0.5", "no", "no"},
    {"-0.5", "no", "no"},
    {"9223372036854775807", "9223372036854775807", "9223372036854775807"},
    {"9223372036854775808", "no", "9223372036854775808"},
    {"-9223372036854775808", "-9223372036854775808", "no"},
    {"-9223372036854775809", "no", "no"},
    {"18446744073709551615", "no", "18446744073709551615"},
    {"18446744073709551616", "no", "no"},
    {"18446744073709551619", "no", "no"},
    {"-18446744073709551615", "no", "no"},
    {"99999999999999999999", "no", "no"},
    {NINES_65, "no", "no"},
};

static void test_integers(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(integer_cases); i++) {
    Decimal decimal;
    check_that(integer_cases[i].text, parse(integer_cases[i].text, &decimal), "it is a number");
    int64_t number;
    uint64_t natural;
    g_autofree char *as_int64 = decimal_to_int64(&decimal, &number)
                                    ? g_strdup_printf("%lld", (long long)number)
                                    : g_strdup("no");
    g_autofree char *as_uint64 = decimal_to_uint64(&decimal, &natural)
                                     ? g_strdup_printf("%llu", (unsigned long long)natural)
                                     : g_strdup("no");
    check_text(integer_cases[i].text, as_int64, integer_cases[i].as_int64);
    check_text(integer_cases[i].text, as_uint64, integer_cases[i].as_uint64);
  }
}

static void test_from_integers(void **state) {
  (void)state;
  Decimal decimal;
  char text[DECIMAL_TEXT_SIZE];
  decimal_from_int64(INT64_MIN, &decimal);
  decimal_format(&decimal, text);
  check_text("INT64_MIN", text, "-9223372036854775808");
  decimal_from_int64(INT64_MAX, &decimal);
  decimal_format(&decimal, text);
  check_text("INT64_MAX", text, "9223372036854775807");
  decimal_from_uint64(UINT64_MAX, &decimal);
  decimal_format(&decimal, text);
  check_text("UINT64_MAX", text, "18446744073709551615");
  decimal_from_int64(0, &decimal);
  decimal_format(&decimal, text);
  check_text("0", text, "0");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_parse),         cmocka_unit_test(test_parse_respects_the_length),
      cmocka_unit_test(test_add),           cmocka_unit_test(test_add_as_integers_do),
      cmocka_unit_test(test_fits),          cmocka_unit_test(test_integers),
      cmocka_unit_test(test_from_integers),
  };
  return RUN_TESTS(tests);
}

/* json_number.c - which numbers survive in a JSON column. */
#include "projector/domain/json_number.h"

#include "projector/domain/real.h"

#include <math.h>
#include <string.h>

enum { DECIMAL_DIGITS = 65, DECIMAL_SCALE = 30 };

static bool same(const Decimal *a, const Decimal *b) {
  return a->negative == b->negative && a->count == b->count && a->scale == b->scale &&
         !memcmp(a->digits, b->digits, a->count);
}

/* Without the zeros at both ends. */
static unsigned significant_digits(const Decimal *number) {
  unsigned first = 0, end = number->count;
  while (first < end && number->digits[first] == 0)
    first++;
  while (end > first && number->digits[end - 1] == 0)
    end--;
  return end - first;
}

static double nearest_double(const Decimal *number) {
  char digits[DECIMAL_TEXT_SIZE];
  decimal_format(number, digits);
  return g_ascii_strtod(digits, NULL);
}

/* The shortest text of the nearest double. */
static bool shortest(const Decimal *number, Decimal *ret_shortest) {
  char text[REAL_TEXT_SIZE];
  double real = nearest_double(number);
  if (!isfinite(real))
    return false;
  real_format(real, text);
  return decimal_parse(text, strlen(text), ret_shortest);
}

static bool is_double(const Decimal *number) {
  Decimal again;
  return shortest(number, &again) && same(&again, number);
}

/* Whether the nearest double, written with as many digits, is the number: 0.1, and
 * 0.10000000000000001, but not 12345678901234567.89. */
static bool is_double_at_length(const Decimal *number) {
  char format[16], text[DECIMAL_TEXT_SIZE + 16];
  Decimal again;
  unsigned digits = significant_digits(number);
  g_snprintf(format, sizeof format, "%%.%ue", MAX(digits, 1) - 1);
  g_ascii_formatd(text, sizeof text, format, nearest_double(number));
  return decimal_parse(text, strlen(text), &again) && same(&again, number);
}

JsonWidth json_width(const Decimal *number) {
  int64_t integer;
  uint64_t natural;
  if (decimal_to_int64(number, &integer) || decimal_to_uint64(number, &natural) ||
      is_double(number))
    return JSON_PLAIN;
  return decimal_fits(number, DECIMAL_DIGITS, DECIMAL_SCALE) ? JSON_WIDE : JSON_NEVER;
}

bool json_number_at(const char *text, const char *end, Decimal *ret_number, const char **ret_end) {
  const char *at = text;
  while (at < end && (g_ascii_isdigit(*at) || strchr("+-.eE", *at)))
    at++;
  if (at == text || !(g_ascii_isdigit(*text) || *text == '-'))
    return false;
  *ret_end = at;
  return decimal_parse(text, (size_t)(at - text), ret_number);
}

const char *json_skip_string(const char *text, const char *end) {
  for (text++; text < end && *text != '"'; text++)
    text += *text == '\\';
  return MIN(text + 1, end);
}

/* jansson has no integers beyond int64 */
static bool jansson_holds(const char *text, const char *end, const Decimal *number) {
  (void)text;
  (void)end;
  int64_t integer;
  return decimal_to_int64(number, &integer) || (number->scale > 0 && is_double(number));
}

enum {
  DECIMAL128_DIGITS = 34,
  DOUBLE_DIGITS = 15, /* every number of so few digits is the shortest text of a double */
};

/* libbson reads a number as a double unless it is written as an integer. 0.10000000000000001 is how
 * many programs write the double 0.1; what has more digits than that in its shortest text is left
 * to a decimal, which keeps those that were written. */
static bool libbson_holds(const char *text, const char *end, const Decimal *number) {
  int64_t integer;
  Decimal again;
  bool whole = true;
  for (const char *at = text; at < end; at++)
    whole = whole && !strchr(".eE", *at);
  if (whole)
    return decimal_to_int64(number, &integer);
  return is_double_at_length(number) && shortest(number, &again) &&
         (significant_digits(&again) <= DOUBLE_DIGITS || same(&again, number) ||
          significant_digits(number) > DECIMAL128_DIGITS);
}

static bool append_as_text(const Decimal *number, GString *to) {
  char digits[DECIMAL_TEXT_SIZE];
  decimal_format(number, digits);
  g_string_append_printf(to, "\"#%s\"", digits);
  return true;
}

static bool append_as_decimal(const Decimal *number, GString *to) {
  char digits[DECIMAL_TEXT_SIZE];
  decimal_format(number, digits);
  g_string_append_printf(to, "{\"$numberDecimal\":\"%s\"}", digits);
  return significant_digits(number) <= DECIMAL128_DIGITS;
}

/* False when a number cannot be appended. */
static bool replace_wide(const char *text, size_t length,
                         bool (*holds)(const char *text, const char *end, const Decimal *number),
                         bool (*append)(const Decimal *number, GString *to), GString *to) {
  for (const char *at = text, *end = text + length, *next; at < end; at = next) {
    Decimal number;
    next = at + 1;
    if (*at == '"')
      next = json_skip_string(at, end);
    else if (json_number_at(at, end, &number, &next) && !holds(at, next, &number)) {
      if (!append(&number, to))
        return false;
      continue;
    }
    g_string_append_len(to, at, next - at);
  }
  return true;
}

GString *json_wide_as_texts(const char *text, size_t length) {
  GString *to = g_string_sized_new(length + 16);
  replace_wide(text, length, jansson_holds, append_as_text, to);
  return to;
}

GString *json_wide_as_decimals(const char *text, size_t length) {
  g_autoptr(GString) to = g_string_sized_new(length + 16);
  return replace_wide(text, length, libbson_holds, append_as_decimal, to) ? g_steal_pointer(&to)
                                                                          : NULL;
}

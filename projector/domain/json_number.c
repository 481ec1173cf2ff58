/* json_number.c - which numbers survive in a JSON column. */
#include "projector/domain/json_number.h"

#include "projector/domain/real.h"

#include <math.h>
#include <string.h>

enum { DECIMAL_DIGITS = 65, DECIMAL_SCALE = 30 };

static bool is_double(const Decimal *number) {
  char text[REAL_TEXT_SIZE], digits[DECIMAL_TEXT_SIZE];
  Decimal again;
  decimal_format(number, digits);
  double real = g_ascii_strtod(digits, NULL);
  if (!isfinite(real))
    return false;
  real_format(real, text);
  return decimal_parse(text, strlen(text), &again) && again.negative == number->negative &&
         again.count == number->count && again.scale == number->scale &&
         !memcmp(again.digits, number->digits, number->count);
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
  if (at == text || !(g_ascii_isdigit(*text) || *text == '-') ||
      !decimal_parse(text, (size_t)(at - text), ret_number))
    return false;
  *ret_end = at;
  return true;
}

const char *json_skip_string(const char *text, const char *end) {
  for (text++; text < end && *text != '"'; text++)
    text += *text == '\\';
  return MIN(text + 1, end);
}

/* jansson has no integers beyond int64 */
static bool parsers_hold(const Decimal *number) {
  int64_t integer;
  return decimal_to_int64(number, &integer) || (number->scale > 0 && is_double(number));
}

static void append_as_text(const char *digits, GString *to) {
  g_string_append_printf(to, "\"#%s\"", digits);
}

static void append_as_decimal(const char *digits, GString *to) {
  g_string_append_printf(to, "{\"$numberDecimal\":\"%s\"}", digits);
}

static bool fits_decimal128(const Decimal *number) {
  enum { DECIMAL128_DIGITS = 34 };
  return number->count <= DECIMAL128_DIGITS;
}

/* False when a number does not fit. */
static bool replace_wide(const char *text, size_t length, bool (*fits)(const Decimal *number),
                         void (*append)(const char *digits, GString *to), GString *to) {
  for (const char *at = text, *end = text + length, *next; at < end; at = next) {
    Decimal number;
    char digits[DECIMAL_TEXT_SIZE];
    next = at + 1;
    if (*at == '"')
      next = json_skip_string(at, end);
    else if (json_number_at(at, end, &number, &next) && !parsers_hold(&number)) {
      if (fits && !fits(&number))
        return false;
      decimal_format(&number, digits);
      append(digits, to);
      continue;
    }
    g_string_append_len(to, at, next - at);
  }
  return true;
}

GString *json_wide_as_texts(const char *text, size_t length) {
  GString *to = g_string_sized_new(length + 16);
  replace_wide(text, length, NULL, append_as_text, to);
  return to;
}

GString *json_wide_as_decimals(const char *text, size_t length) {
  g_autoptr(GString) to = g_string_sized_new(length + 16);
  return replace_wide(text, length, fits_decimal128, append_as_decimal, to) ? g_steal_pointer(&to)
                                                                            : NULL;
}

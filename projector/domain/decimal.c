/* decimal.c - schoolbook arithmetic on decimal digits. */
#include "projector/domain/decimal.h"

#include <stdio.h>
#include <string.h>

static unsigned integer_digits(const Decimal *decimal) {
  return decimal->count - decimal->scale;
}

/* The digit with weight 10^power, 0 outside the number. */
static unsigned digit_at(const Decimal *decimal, int power) {
  int index = (int)integer_digits(decimal) - 1 - power;
  return index >= 0 && index < decimal->count ? decimal->digits[index] : 0;
}

static void normalise(Decimal *decimal) {
  unsigned leading = 0;
  while (leading < integer_digits(decimal) && decimal->digits[leading] == 0)
    leading++;
  memmove(decimal->digits, decimal->digits + leading, decimal->count - leading);
  decimal->count = (uint16_t)(decimal->count - leading);
  while (decimal->scale > 0 && decimal->digits[decimal->count - 1] == 0) {
    decimal->count--;
    decimal->scale--;
  }
  if (decimal->count == 0)
    decimal->negative = false;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool parse_exponent(const char **at, const char *end, int *ret_exponent) {
  bool negative = false;
  int exponent = 0;
  if (*at < end && (**at == '+' || **at == '-'))
    negative = *(*at)++ == '-';
  if (*at == end)
    return false;
  for (; *at < end && is_digit(**at); (*at)++)
    if ((exponent = exponent * 10 + (**at - '0')) > 100000)
      return false;
  *ret_exponent = negative ? -exponent : exponent;
  return true;
}

/* Moves the point right by `exponent` (left when negative). */
static bool shift(Decimal *decimal, int exponent) {
  if (decimal->count == 0)
    return true;
  int scale = decimal->scale - exponent;
  if (scale > (int)decimal->count) { /* zeros after the point */
    int zeros = scale - decimal->count;
    if (scale > DECIMAL_DIGITS_MAX)
      return false;
    for (int i = decimal->count;
         i-- > 0;) /* not memmove: valgrind takes its checked form for memcpy's */
      decimal->digits[i + zeros] = decimal->digits[i];
    memset(decimal->digits, 0, (size_t)zeros);
    decimal->count = (uint16_t)scale;
  } else if (scale < 0) { /* zeros before it */
    if (decimal->count - scale > DECIMAL_DIGITS_MAX)
      return false;
    memset(decimal->digits + decimal->count, 0, (size_t)-scale);
    decimal->count = (uint16_t)(decimal->count - scale);
    scale = 0;
  }
  decimal->scale = (uint16_t)scale;
  return true;
}

bool decimal_parse(const char *text, size_t length, Decimal *ret_decimal) {
  Decimal decimal = {0};
  const char *at = text, *end = text + length;
  bool any = false, point = false;
  int exponent = 0;
  if (at < end && (*at == '-' || *at == '+'))
    decimal.negative = *at++ == '-';
  for (; at < end && (is_digit(*at) || (*at == '.' && !point)); at++) {
    if (*at == '.') {
      point = true;
      continue;
    }
    any = true;
    if (*at == '0' && decimal.count == 0 && !point)
      continue; /* leading zeros take no room */
    if (decimal.count == DECIMAL_DIGITS_MAX)
      return false;
    decimal.digits[decimal.count++] = (uint8_t)(*at - '0');
    decimal.scale = (uint16_t)(decimal.scale + point);
  }
  if (any && at < end && (*at == 'e' || *at == 'E')) {
    at++;
    if (!parse_exponent(&at, end, &exponent))
      return false;
  }
  if (!any || at != end)
    return false;
  normalise(&decimal);
  if (!shift(&decimal, exponent))
    return false;
  normalise(&decimal);
  *ret_decimal = decimal;
  return true;
}

void decimal_from_int64(int64_t number, Decimal *ret_decimal) {
  char text[24];
  int length = snprintf(text, sizeof text, "%lld", (long long)number);
  decimal_parse(text, (size_t)length, ret_decimal);
}

void decimal_from_uint64(uint64_t number, Decimal *ret_decimal) {
  char text[24];
  int length = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
  decimal_parse(text, (size_t)length, ret_decimal);
}

static int compare_magnitude(const Decimal *a, const Decimal *b, int high, int low) {
  for (int power = high; power >= low; power--) {
    unsigned x = digit_at(a, power), y = digit_at(b, power);
    if (x != y)
      return x < y ? -1 : 1;
  }
  return 0;
}

bool decimal_add(const Decimal *a, const Decimal *b, Decimal *ret_sum) {
  int high = (int)(integer_digits(a) > integer_digits(b) ? integer_digits(a) : integer_digits(b));
  int low = -(int)(a->scale > b->scale ? a->scale : b->scale);
  int count = high - low + 1; /* one more digit for the carry */
  if (count > DECIMAL_DIGITS_MAX)
    return false;
  const Decimal *larger = a, *smaller = b;
  if (compare_magnitude(a, b, high, low) < 0)
    larger = b, smaller = a;
  int sign = a->negative == b->negative ? 1 : -1;
  Decimal sum = {.negative = larger->negative, .count = (uint16_t)count, .scale = (uint16_t)-low};
  int carry = 0;
  for (int power = low; power <= high; power++) {
    int digit = (int)digit_at(larger, power) + sign * (int)digit_at(smaller, power) + carry;
    carry = digit > 9 ? 1 : digit < 0 ? -1 : 0;
    sum.digits[high - power] = (uint8_t)(digit - 10 * carry);
  }
  normalise(&sum);
  *ret_sum = sum;
  return true;
}

bool decimal_fits(const Decimal *decimal, unsigned precision, unsigned scale) {
  return decimal->scale <= scale && integer_digits(decimal) <= precision - scale;
}

bool decimal_to_uint64(const Decimal *decimal, uint64_t *ret_number) {
  uint64_t number = 0;
  if (decimal->scale > 0 || decimal->negative)
    return false;
  for (unsigned i = 0; i < decimal->count; i++)
    if (__builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, decimal->digits[i], &number))
      return false;
  *ret_number = number;
  return true;
}

bool decimal_to_int64(const Decimal *decimal, int64_t *ret_number) {
  Decimal magnitude = *decimal;
  magnitude.negative = false;
  uint64_t number;
  if (!decimal_to_uint64(&magnitude, &number) ||
      number > (uint64_t)INT64_MAX + (decimal->negative ? 1 : 0))
    return false;
  *ret_number = decimal->negative ? (int64_t)(0 - number) : (int64_t)number;
  return true;
}

size_t decimal_format(const Decimal *decimal, char text[static DECIMAL_TEXT_SIZE]) {
  char *at = text;
  unsigned whole = integer_digits(decimal);
  if (decimal->negative)
    *at++ = '-';
  if (whole == 0)
    *at++ = '0';
  for (unsigned i = 0; i < decimal->count; i++) {
    if (i == whole)
      *at++ = '.';
    *at++ = (char)('0' + decimal->digits[i]);
  }
  *at = '\0';
  return (size_t)(at - text);
}

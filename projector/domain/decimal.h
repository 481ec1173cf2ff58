/* decimal.h - exact decimal numbers, large enough for DECIMAL(65,30) and for Decimal128.
 *
 * Only what a projection needs: read, add, compare with a column's precision, write. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  DECIMAL_DIGITS_MAX = 160, /* a number that needs more is refused */
  DECIMAL_TEXT_SIZE = DECIMAL_DIGITS_MAX + 4,
};

typedef struct Decimal {
  bool negative;
  uint16_t count; /* digits in all, most significant first */
  uint16_t scale; /* how many of them are after the point */
  uint8_t digits[DECIMAL_DIGITS_MAX];
} Decimal;

/* Reads "-12.50", "1.5E+3", ".5"; nothing else may stand in the text. Returns false unless it is a
 * finite number whose digits fit. The result has no needless zeros at either end. */
bool decimal_parse(const char *text, size_t length, Decimal *ret_decimal);
void decimal_from_int64(int64_t number, Decimal *ret_decimal);
void decimal_from_uint64(uint64_t number, Decimal *ret_decimal);

/* False when the sum needs more digits than fit. `ret_sum` may be one of the operands. */
bool decimal_add(const Decimal *a, const Decimal *b, Decimal *ret_sum);

/* Whether DECIMAL(precision, scale) holds it without rounding. */
bool decimal_fits(const Decimal *decimal, unsigned precision, unsigned scale);
/* Whether it is an integer within the bounds; for integer columns. */
bool decimal_to_int64(const Decimal *decimal, int64_t *ret_number);
bool decimal_to_uint64(const Decimal *decimal, uint64_t *ret_number);

size_t decimal_format(const Decimal *decimal, char text[static DECIMAL_TEXT_SIZE]);

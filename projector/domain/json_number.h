/* json_number.h - numbers in JSON that a double does not hold exactly.
 *
 * MySQL stores the numbers of a JSON text as integers of 64 bits, signed or not, and as doubles. It
 * stores a DECIMAL too, with every digit, but only as the result of an expression; MariaDB keeps
 * the text. */
#pragma once

#include "projector/domain/decimal.h"

#include <glib.h>

typedef enum JsonWidth {
  JSON_PLAIN, /* read back as it is */
  JSON_WIDE,  /* as a DECIMAL alone */
  JSON_NEVER, /* more digits than a DECIMAL has */
} JsonWidth;

JsonWidth json_width(const Decimal *number);
/* The number at the beginning of a text, and where it ends; false: none begins there, or it is too
 * long for a Decimal. */
bool json_number_at(const char *text, const char *end, Decimal *ret_number, const char **ret_end);
/* The position after the string that begins at `text`. */
const char *json_skip_string(const char *text, const char *end);
/* The text with each wide number turned into a string: code that compares numbers as doubles then
 * compares them digit by digit. */
GString *json_wide_as_texts(const char *text, size_t length);
/* The text with each number that libbson would not read exactly as extended JSON of a Decimal128;
 * NULL: a number has more digits than that. */
GString *json_wide_as_decimals(const char *text, size_t length);

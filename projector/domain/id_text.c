/* id_text.c - reads the text forms of ids. */
#include "projector/domain/id_text.h"

#include <stdio.h>
#include <string.h>

static bool read_hex(const char *text, size_t digits, uint8_t *bytes) {
  for (size_t i = 0; i < digits; i++) {
    int value = g_ascii_xdigit_value(text[i]);
    if (value < 0)
      return false;
    bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | value : value << 4);
  }
  return true;
}

bool id_read_uuid(const char *text, size_t length, uint8_t bytes[static 16]) {
  return length == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' &&
         read_hex(text, 8, bytes) && read_hex(text + 9, 4, bytes + 4) &&
         read_hex(text + 14, 4, bytes + 6) && read_hex(text + 19, 4, bytes + 8) &&
         read_hex(text + 24, 12, bytes + 10);
}

bool id_read_objectid(const char *text, size_t length, uint8_t bytes[static 12]) {
  return length == 24 && read_hex(text, 24, bytes);
}

bool id_read_int(const char *text, size_t length, int64_t *ret_number) {
  char digits[24], form[24];
  gint64 number;
  g_strlcpy(digits, text, MIN(length + 1, sizeof digits));
  if (length >= sizeof digits ||
      !g_ascii_string_to_signed(digits, 10, G_MININT64, G_MAXINT64, &number, NULL))
    return false;
  snprintf(form, sizeof form, "%lld", (long long)number);
  if (strcmp(form, digits) != 0)
    return false;
  *ret_number = number;
  return true;
}

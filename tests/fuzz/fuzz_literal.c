/* fuzz_literal.c - values of any bytes as SQL literals.
 *
 * The first byte says what the others are. Promise: a literal is one value and nothing else to an
 * independent tokenizer, whatever stands around it and whatever sql_mode says, and it is that
 * value. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/literals.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/infra/mysql/literal.h"

#include <math.h>
#include <string.h>

static void check(const Value *value) {
  g_autoptr(GString) sql = g_string_new(NULL);
  literal_append(sql, value);
  check_literal(sql->str, sql->len, value);
}

static Value value_of(ValueKind kind, const uint8_t *data, size_t size) {
  return (Value){.kind = kind, .length = (uint32_t)size, .bytes = data};
}

static void check_texts(const uint8_t *data, size_t size) {
  Value text = value_of(VALUE_TEXT, data, size), bytes = value_of(VALUE_BINARY, data, size);
  g_autoptr(GString) sql = g_string_new(NULL);
  check(&text);
  check(&bytes);
  literal_append_text(sql, data, size);
  check_literal(sql->str, sql->len, &text);
  g_string_truncate(sql, 0);
  literal_append_binary(sql, data, size);
  check_literal(sql->str, sql->len, &bytes);
  g_string_truncate(sql, 0);
  literal_append_bytes(sql, data, size);
  check_literal(sql->str, sql->len, &bytes);
}

static void check_decimal(const uint8_t *data, size_t size) {
  Decimal decimal, again;
  char text[DECIMAL_TEXT_SIZE];
  if (!decimal_parse((const char *)data, size, &decimal))
    return;
  size_t length = decimal_format(&decimal, text);
  PROMISE(decimal_parse(text, length, &again), "a decimal's text is not read: %s", text);
  PROMISE(again.negative == decimal.negative && again.count == decimal.count &&
              again.scale == decimal.scale && !memcmp(again.digits, decimal.digits, again.count),
          "a decimal's text is another decimal: %s", text);
  check(&(Value){.kind = VALUE_DECIMAL, .length = (uint32_t)length, .text = text});
}

static void check_number(const uint8_t *data, size_t size) {
  int64_t number = 0;
  double real;
  memcpy(&number, data, MIN(size, sizeof number));
  memcpy(&real, &number, sizeof real);
  check(&(Value){.kind = VALUE_INT, .integer = number});
  check(&(Value){.kind = VALUE_UINT, .natural = (uint64_t)number});
  if (isfinite(real)) /* no conversion lets another pass */
    check(&(Value){.kind = VALUE_DOUBLE, .real = real});
  int64_t days = number % (DATETIME_LAST_MS / 86400000);
  check(&(Value){.kind = VALUE_DATE, .us = MAX(days, DATETIME_FIRST_MS / 86400000) * 86400000000});
  int64_t ms = CLAMP(number, DATETIME_FIRST_MS, DATETIME_LAST_MS);
  check(&(Value){.kind = VALUE_DATETIME, .length = 3, .us = ms * 1000});
  check(&(Value){.kind = VALUE_DATETIME, .length = 6, .us = ms * 1000 + (number & 511)});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  switch (*data) {
  case 'd': check_decimal(data + 1, size - 1); break;
  case 'n': check_number(data + 1, size - 1); break;
  default: check_texts(data + 1, size - 1); break;
  }
  return 0;
}

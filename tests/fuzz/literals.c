/* literals.c - a literal is one token, and stands for its value. */
#include "tests/fuzz/literals.h"

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokens.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"

#include <string.h>

static bool is_bytes(const Token *token, const void *bytes, size_t length) {
  return token->bytes && token->bytes->len == length &&
         (length == 0 || !memcmp(token->bytes->data, bytes, length));
}

/* The tokens of a literal: the value, after what may precede it. */
static void check_number(const char *sql, const GArray *tokens, guint from, guint count,
                         const Value *value) {
  bool negative = count == 2 && token_is_sign(token_get(tokens, from), sql, '-');
  const Token *number = token_get(tokens, from + count - 1);
  PROMISE((count == 1 || negative) && number->kind == TOKEN_NUMBER, "not a number: %s", sql);
  g_autofree char *text =
      g_strdup_printf("%s%.*s", negative ? "-" : "", (int)number->length, sql + number->at);
  Decimal decimal;
  char expected[DECIMAL_TEXT_SIZE] = "";
  if (value->kind == VALUE_DOUBLE) {
    PROMISE(strpbrk(text, "eE"), "a DECIMAL instead of a DOUBLE: %s", text);
    PROMISE(g_ascii_strtod(text, NULL) == value->real, "another double: %s", text);
    return;
  }
  PROMISE(!strpbrk(text, "eE"), "a DOUBLE instead of an exact number: %s", text);
  if (value->kind == VALUE_DECIMAL)
    g_strlcpy(expected, value->text, MIN(sizeof expected, value->length + 1));
  else if (value->kind == VALUE_INT)
    decimal_from_int64(value->integer, &decimal), decimal_format(&decimal, expected);
  else
    decimal_from_uint64(value->natural, &decimal), decimal_format(&decimal, expected);
  PROMISE(!strcmp(text, expected), "another number: %s instead of %s", text, expected);
}

static void check_time(const char *sql, const GArray *tokens, guint from, guint count,
                       const Value *value) {
  bool date = value->kind == VALUE_DATE;
  int64_t us = 0;
  PROMISE(count == 2 && token_is_word(token_get(tokens, from), sql, date ? "DATE" : "TIMESTAMP") &&
              token_get(tokens, from + 1)->kind == TOKEN_STRING,
          "not a time: %s", sql);
  const GByteArray *bytes = token_get(tokens, from + 1)->bytes;
  g_autofree char *text =
      g_strdup_printf("%.*s%s", (int)bytes->len, (const char *)bytes->data, date ? "" : "Z");
  PROMISE(datetime_parse(text, strlen(text), !date, &us) && us == value->us, "another time: %s",
          text);
}

static void check_bytes(const char *sql, const GArray *tokens, guint from, guint count,
                        const Value *value) {
  const Token *last = token_get(tokens, from + count - 1);
  bool introduced = count == 2 && token_is_word(token_get(tokens, from), sql, "_utf8mb4");
  bool quoted = count == 1 && last->kind == TOKEN_STRING;
  bool hex = last->kind == TOKEN_HEX && (value->kind == VALUE_BINARY ? count == 1 : introduced);
  PROMISE(hex || quoted, "not one literal: %s", sql);
  PROMISE(is_bytes(last, value->bytes, value->length), "other bytes: %s", sql);
}

static void check_value(const char *sql, const GArray *tokens, guint from, guint count,
                        const Value *value) {
  PROMISE(count == 1 || count == 2, "%u tokens for one value: %s", count, sql);
  for (guint i = from; i < from + count; i++)
    PROMISE(!token_get(tokens, i)->executable, "a literal in a comment: %s", sql);
  switch (value->kind) {
  case VALUE_NULL:
    PROMISE(count == 1 && token_is_word(token_get(tokens, from), sql, "NULL"), "not NULL: %s", sql);
    return;
  case VALUE_INT:
  case VALUE_UINT:
  case VALUE_DOUBLE:
  case VALUE_DECIMAL: check_number(sql, tokens, from, count, value); return;
  case VALUE_DATE:
  case VALUE_DATETIME: check_time(sql, tokens, from, count, value); return;
  case VALUE_TEXT:
  case VALUE_BINARY: check_bytes(sql, tokens, from, count, value); return;
  }
}

/* The literal three times, surrounded by what surrounds literals in the statements of apply.c. */
static void check_in_mode(const char *literal, const Value *value, TokenMode mode) {
  enum { OTHERS = 4 };
  g_autofree char *sql = g_strdup_printf("%s AND (%s,%s)", literal, literal, literal);
  g_autoptr(GArray) tokens = tokens_read(sql, strlen(sql), mode);
  guint each = tokens->len > OTHERS ? (tokens->len - OTHERS) / 3 : 0;
  PROMISE(tokens->len == 3 * each + OTHERS, "not the same tokens everywhere: %s", sql);
  PROMISE(token_is_word(token_get(tokens, each), sql, "AND") &&
              token_is_sign(token_get(tokens, each + 1), sql, '(') &&
              token_is_sign(token_get(tokens, 2 * each + 2), sql, ',') &&
              token_is_sign(token_get(tokens, 3 * each + 3), sql, ')'),
          "the literal swallows what is around it: %s", sql);
  check_value(sql, tokens, 0, each, value);
  check_value(sql, tokens, each + 2, each, value);
  check_value(sql, tokens, 2 * each + 3, each, value);
}

void check_literal(const char *sql, size_t length, const Value *value) {
  PROMISE(strlen(sql) == length, "a literal with a NUL");
  for (unsigned mode = 0; mode < 4; mode++)
    check_in_mode(sql, value,
                  (TokenMode){.ansi_quotes = mode & 1, .no_backslash_escapes = mode & 2});
}

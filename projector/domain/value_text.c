/* value_text.c - values from text, as MySQL sends it or a user enters it. */
#include "projector/domain/value_text.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/domain/value_special.h"

#include <string.h>

static bool read_integer(const char *text, size_t length, Value *ret_value) {
  char digits[24];
  guint64 natural;
  gint64 integer;
  g_strlcpy(digits, text, MIN(length + 1, sizeof digits));
  if (g_ascii_string_to_signed(digits, 10, G_MININT64, G_MAXINT64, &integer, NULL))
    *ret_value = (Value){.kind = VALUE_INT, .integer = integer};
  else if (g_ascii_string_to_unsigned(digits, 10, 0, G_MAXUINT64, &natural, NULL))
    *ret_value = (Value){.kind = VALUE_UINT, .natural = natural};
  else
    return false;
  return true;
}

/* The mapping says whether an integer is signed; a negative number where an unsigned one is
 * expected is kept, and differs. */
static bool integer_from(const char *text, size_t length, const ColumnType *type,
                         Value *ret_value) {
  if (!read_integer(text, length, ret_value))
    return false;
  if (type->is_unsigned && ret_value->kind == VALUE_INT && ret_value->integer >= 0)
    ret_value->kind = VALUE_UINT;
  return true;
}

static bool decimal_from(const char *text, size_t length, Arena *arena, Value *ret_value) {
  Decimal decimal;
  char plain[DECIMAL_TEXT_SIZE];
  if (!decimal_parse(text, length, &decimal))
    return false;
  *ret_value = (Value){.kind = VALUE_DECIMAL, .length = (uint32_t)decimal_format(&decimal, plain)};
  ret_value->text = arena_copy(arena, plain, ret_value->length);
  return true;
}

static bool datetime_from(const char *text, size_t length, const ColumnType *type,
                          Value *ret_value) {
  char zulu[DATETIME_TEXT_SIZE + 1];
  if (length + 2 > sizeof zulu)
    return false;
  memcpy(zulu, text, length);
  zulu[length] = 'Z';
  *ret_value = (Value){.kind = VALUE_DATETIME, .length = type->length};
  if (!datetime_parse(zulu, length + 1, true, &ret_value->us))
    return false;
  /* The column may have more fraction digits than the mapping says. */
  const char *point = memchr(text, '.', length);
  if (point)
    ret_value->length = (uint32_t)(text + length - point - 1);
  return true;
}

static bool binary_from(const char *text, size_t length, Arena *arena, Value *ret_value) {
  *ret_value = (Value){.kind = VALUE_BINARY, .length = (uint32_t)length};
  ret_value->text = arena_copy(arena, text, length);
  return true;
}

static bool uuid_from(const char *text, size_t length, Arena *arena, Value *ret_value) {
  uint8_t *bytes = arena_alloc(arena, 16, 1);
  Id id;
  *ret_value = (Value){.kind = VALUE_BINARY, .length = 16, .bytes = bytes};
  return id_from_text(ID_UUID, text, length, bytes, &id);
}

bool value_from_sql(const char *text, size_t length, const ColumnType *type, Arena *arena,
                    Value *ret_value) {
  if (type_is_special(type))
    return special_from_sql(text, length, type, arena, ret_value);
  switch (type->kind) {
  case TYPE_BOOLEAN:
  case TYPE_TINYINT:
  case TYPE_SMALLINT:
  case TYPE_MEDIUMINT:
  case TYPE_INT:
  case TYPE_BIGINT: return integer_from(text, length, type, ret_value);
  case TYPE_DOUBLE:
    *ret_value = (Value){.kind = VALUE_DOUBLE, .real = g_ascii_strtod(text, NULL)};
    return true;
  case TYPE_DECIMAL: return decimal_from(text, length, arena, ret_value);
  case TYPE_DATE:
    *ret_value = (Value){.kind = VALUE_DATE};
    return datetime_parse(text, length, false, &ret_value->us);
  case TYPE_DATETIME:
  case TYPE_TIMESTAMP: return datetime_from(text, length, type, ret_value);
  case TYPE_BINARY:
  case TYPE_VARBINARY:
  case TYPE_TINYBLOB:
  case TYPE_BLOB:
  case TYPE_MEDIUMBLOB:
  case TYPE_LONGBLOB: return binary_from(text, length, arena, ret_value);
  case TYPE_UUID: /* MariaDB's own uuid comes as text */
    return (length == 36 && uuid_from(text, length, arena, ret_value)) ||
           binary_from(text, length, arena, ret_value);
  default:
    *ret_value = (Value){.kind = VALUE_TEXT, .length = (uint32_t)length};
    ret_value->text = arena_copy(arena, text, length);
    return true;
  }
}

/* "0x00ff", as value_append_text writes it. */
static bool bytes_from(const char *text, size_t length, Arena *arena, Value *ret_value) {
  if (length < 2 || length % 2 != 0 || memcmp(text, "0x", 2) != 0)
    return false;
  uint8_t *bytes = arena_alloc(arena, length / 2, 1);
  for (size_t i = 2; i < length; i += 2) {
    int high = g_ascii_xdigit_value(text[i]), low = g_ascii_xdigit_value(text[i + 1]);
    if (high < 0 || low < 0)
      return false;
    bytes[i / 2 - 1] = (uint8_t)(high << 4 | low);
  }
  *ret_value = (Value){.kind = VALUE_BINARY, .length = (uint32_t)(length / 2 - 1), .bytes = bytes};
  return true;
}

bool value_from_text(const char *text, size_t length, const ColumnType *type, Arena *arena,
                     Value *ret_value) {
  if (type->kind == TYPE_UUID && uuid_from(text, length, arena, ret_value))
    return true;
  if (type->kind == TYPE_UUID || (type->kind >= TYPE_BINARY && type->kind <= TYPE_LONGBLOB))
    return bytes_from(text, length, arena, ret_value);
  return value_from_sql(text, length, type, arena, ret_value);
}

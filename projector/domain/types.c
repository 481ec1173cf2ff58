/* types.c - the column types of the mapping file. */
#include "projector/domain/types.h"

#include <stdlib.h>
#include <string.h>

typedef struct TypeName {
  const char *name;
  TypeKind kind;
  enum { PLAIN, INTEGER, LENGTH, PRECISION, FRACTION, LABELS } arguments;
  unsigned max;
} TypeName;

static const TypeName type_names[] = {
    {"boolean", TYPE_BOOLEAN, PLAIN, 0},
    {"tinyint", TYPE_TINYINT, INTEGER, 0},
    {"smallint", TYPE_SMALLINT, INTEGER, 0},
    {"mediumint", TYPE_MEDIUMINT, INTEGER, 0},
    {"int", TYPE_INT, INTEGER, 0},
    {"bigint", TYPE_BIGINT, INTEGER, 0},
    {"double", TYPE_DOUBLE, PLAIN, 0},
    {"decimal", TYPE_DECIMAL, PRECISION, 65},
    {"char", TYPE_CHAR, LENGTH, 255},
    {"varchar", TYPE_VARCHAR, LENGTH, 16383}, /* 65535 bytes of utf8mb4 */
    {"tinytext", TYPE_TINYTEXT, PLAIN, 255},
    {"text", TYPE_TEXT, PLAIN, 65535},
    {"mediumtext", TYPE_MEDIUMTEXT, PLAIN, 16777215},
    {"longtext", TYPE_LONGTEXT, PLAIN, 4294967295U},
    {"binary", TYPE_BINARY, LENGTH, 255},
    {"varbinary", TYPE_VARBINARY, LENGTH, 65535},
    {"tinyblob", TYPE_TINYBLOB, PLAIN, 255},
    {"blob", TYPE_BLOB, PLAIN, 65535},
    {"mediumblob", TYPE_MEDIUMBLOB, PLAIN, 16777215},
    {"longblob", TYPE_LONGBLOB, PLAIN, 4294967295U},
    {"date", TYPE_DATE, PLAIN, 0},
    {"datetime", TYPE_DATETIME, FRACTION, 6},
    {"timestamp", TYPE_TIMESTAMP, FRACTION, 6},
    {"json", TYPE_JSON, PLAIN, 0},
    {"uuid", TYPE_UUID, PLAIN, 16},
    {"enum", TYPE_ENUM, LABELS, 0},
    {"year", TYPE_YEAR, PLAIN, 0},
    {"time", TYPE_TIME, FRACTION, 6},
    {"bit", TYPE_BIT, LENGTH, 1},
    {"float", TYPE_FLOAT, PLAIN, 0},
};

static bool take_number(const char **at, unsigned *ret_number) {
  if (**at < '0' || **at > '9')
    return false;
  char *end;
  unsigned long number = strtoul(*at, &end, 10);
  if (number > 4294967295UL)
    return false;
  *ret_number = (unsigned)number;
  *at = end;
  return true;
}

static bool take_char(const char **at, char wanted) {
  if (**at != wanted)
    return false;
  (*at)++;
  return true;
}

/* Whether the label already appears in the list before it, with its quotes. */
static bool is_repeated(const char *list, const char *label, size_t length) {
  for (const char *at = list; at < label; at = strchr(at + 1, '\'') + 2)
    if (!strncmp(at, label, length))
      return true;
  return false;
}

/* "('a','b')", labels without quotes or backslashes. MySQL removes blanks at their ends. */
static bool take_labels(const char *at) {
  const char *list = at + 1;
  if (!take_char(&at, '('))
    return false;
  do {
    size_t length;
    if (!take_char(&at, '\''))
      return false;
    length = strcspn(at, "'\\");
    if (length < 1 || length > 255 || at[length - 1] == ' ' || at[length] != '\'' ||
        is_repeated(list, at - 1, length + 2))
      return false;
    at += length + 1;
  } while (take_char(&at, ','));
  return take_char(&at, ')') && !*at;
}

static bool parse_arguments(const TypeName *name, const char *at, ColumnType *type) {
  switch (name->arguments) {
  case PLAIN: type->length = name->max; return *at == '\0';
  case INTEGER: type->is_unsigned = !strcmp(at, " unsigned"); return type->is_unsigned || !*at;
  case LENGTH:
    return take_char(&at, '(') && take_number(&at, &type->length) && take_char(&at, ')') && !*at &&
           type->length >= 1 && type->length <= name->max;
  case PRECISION:
    return take_char(&at, '(') && take_number(&at, &type->length) && take_char(&at, ',') &&
           take_number(&at, &type->scale) && take_char(&at, ')') && !*at && type->length >= 1 &&
           type->length <= name->max && type->scale <= 30 && type->scale <= type->length;
  case LABELS: return take_labels(at);
  case FRACTION:
    return *at == '\0' || (take_char(&at, '(') && take_number(&at, &type->length) &&
                           take_char(&at, ')') && !*at && type->length <= name->max);
  }
  return false;
}

bool column_type_parse(const char *text, ColumnType *ret_type) {
  size_t length = strcspn(text, "( ");
  for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
    const TypeName *name = &type_names[i];
    if (strlen(name->name) != length || strncmp(name->name, text, length) != 0)
      continue;
    ColumnType type = {.kind = name->kind, .text = text};
    if (!parse_arguments(name, text + length, &type))
      return false;
    *ret_type = type;
    return true;
  }
  return false;
}

bool type_is_integer(TypeKind kind) {
  return kind >= TYPE_TINYINT && kind <= TYPE_BIGINT;
}

bool type_is_numeric(TypeKind kind) {
  return kind >= TYPE_TINYINT && kind <= TYPE_DECIMAL;
}

bool type_is_text(TypeKind kind) {
  return kind >= TYPE_CHAR && kind <= TYPE_LONGTEXT;
}

/* bind.c - binds each kind of value. */
#include "projector/infra/mysql/bind.h"

#include <string.h>

void value_bind(MYSQL_BIND *bind, Value *value, BoundText *text) {
  text->length = value->length;
  bind->length = &text->length;
  switch (value->kind) {
  case VALUE_NULL: bind->buffer_type = MYSQL_TYPE_NULL; return;
  case VALUE_INT:
  case VALUE_UINT:
    bind->buffer_type = MYSQL_TYPE_LONGLONG;
    bind->buffer = &value->integer;
    bind->is_unsigned = value->kind == VALUE_UINT;
    return;
  case VALUE_DOUBLE:
    bind->buffer_type = MYSQL_TYPE_DOUBLE;
    bind->buffer = &value->real;
    return;
  case VALUE_DECIMAL:
    bind->buffer_type = MYSQL_TYPE_NEWDECIMAL;
    bind->buffer = (void *)value->text;
    return;
  case VALUE_TEXT:
    bind->buffer_type = MYSQL_TYPE_STRING;
    bind->buffer = (void *)value->text;
    return;
  case VALUE_BINARY:
    bind->buffer_type = MYSQL_TYPE_BLOB;
    bind->buffer = (void *)value->bytes;
    return;
  case VALUE_DATE:
  case VALUE_DATETIME:
    text->length =
        datetime_format(value->us, value->kind == VALUE_DATE ? 0 : value->length, text->date);
    if (value->kind == VALUE_DATE)
      text->length -= strlen(" 00:00:00");
    bind->buffer_type = MYSQL_TYPE_STRING;
    bind->buffer = text->date;
    return;
  }
}

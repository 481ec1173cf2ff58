/* bind.h - values as parameters of a prepared statement. */
#pragma once

#include "projector/domain/datetime.h"
#include "projector/domain/value.h"

#include <mysql.h>

/* What a parameter points to besides the value. */
typedef struct BoundText {
  char date[DATETIME_TEXT_SIZE];
  unsigned long length;
} BoundText;

/* The value and the text have to live until the statement has run. */
void value_bind(MYSQL_BIND *bind, Value *value, BoundText *text);

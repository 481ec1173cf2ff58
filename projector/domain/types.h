/* types.h - the column types of the mapping file. */
#pragma once

#include <stdbool.h>

typedef enum TypeKind {
  TYPE_BOOLEAN,
  TYPE_TINYINT,
  TYPE_SMALLINT,
  TYPE_MEDIUMINT,
  TYPE_INT,
  TYPE_BIGINT,
  TYPE_DOUBLE,
  TYPE_DECIMAL,
  TYPE_CHAR,
  TYPE_VARCHAR,
  TYPE_TINYTEXT,
  TYPE_TEXT,
  TYPE_MEDIUMTEXT,
  TYPE_LONGTEXT,
  TYPE_BINARY,
  TYPE_VARBINARY,
  TYPE_TINYBLOB,
  TYPE_BLOB,
  TYPE_MEDIUMBLOB,
  TYPE_LONGBLOB,
  TYPE_DATE,
  TYPE_DATETIME,
  TYPE_TIMESTAMP,
  TYPE_JSON,
  TYPE_UUID,
  TYPE_ENUM, /* from here on: value_special.h */
  TYPE_YEAR,
  TYPE_TIME,
  TYPE_BIT,
  TYPE_FLOAT,
} TypeKind;

typedef struct ColumnType {
  TypeKind kind;
  bool is_unsigned;
  unsigned length;  /* characters or bytes; precision of a decimal; fraction digits of a time */
  unsigned scale;   /* of a decimal */
  bool plain;       /* json: numbers, times and ids as JSON has them, not as extended JSON */
  const char *text; /* as written in the file, for messages and DDL */
} ColumnType;

/* Reads "decimal(18,2)", "bigint unsigned" …; the text is borrowed. */
bool column_type_parse(const char *text, ColumnType *ret_type);
bool type_is_integer(TypeKind kind);
bool type_is_numeric(TypeKind kind);
bool type_is_text(TypeKind kind);

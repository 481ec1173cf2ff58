/* ddl.c - tables and columns of a mapping as SQL. */
#include "projector/infra/mysql/ddl.h"

#include "projector/domain/value.h"
#include "projector/infra/mysql/literal.h"

void ddl_append_column(GString *sql, const Projection *projection, unsigned index, bool mariadb) {
  const Column *column = &projection->columns[index];
  bool is_key = index < projection->key_count;
  literal_append_name(sql, column->name);
  g_string_append_printf(sql, " %s",
                         column->type.kind == TYPE_UUID ? "binary(16)" : column->type.text);
  /* Keeps blanks at the end, and upper and lower case apart. */
  if (is_key && type_is_text(column->type.kind))
    g_string_append_printf(sql, " CHARACTER SET utf8mb4 COLLATE %s",
                           mariadb ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin");
  /* NULL is spelled out: without it, a TIMESTAMP may get a default. */
  g_string_append(sql, column->nullable ? " NULL" : " NOT NULL");
}

char *ddl_create_table(const Projection *projection, bool mariadb) {
  GString *sql = g_string_new("CREATE TABLE IF NOT EXISTS ");
  literal_append_name(sql, projection->table);
  for (unsigned i = 0; i < projection->column_count; i++) {
    g_string_append(sql, i ? ",\n  " : " (\n  ");
    ddl_append_column(sql, projection, i, mariadb);
  }
  g_string_append(sql, ",\n  PRIMARY KEY (");
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, i ? ", " : "");
    literal_append_name(sql, projection->columns[i].name);
  }
  g_string_append(sql, ")\n) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4");
  return g_string_free(sql, FALSE);
}

/* Other types take a literal: then adding a column is instant, however many rows there are. */
static bool needs_expression(TypeKind kind) {
  switch (kind) {
  case TYPE_TINYTEXT:
  case TYPE_TEXT:
  case TYPE_MEDIUMTEXT:
  case TYPE_LONGTEXT:
  case TYPE_TINYBLOB:
  case TYPE_BLOB:
  case TYPE_MEDIUMBLOB:
  case TYPE_LONGBLOB:
  case TYPE_JSON:
  case TYPE_DATE:
  case TYPE_DATETIME:
  case TYPE_TIMESTAMP: return true;
  default: return false;
  }
}

void ddl_append_default(GString *sql, const Column *column) {
  g_autoptr(Arena) arena = arena_new();
  Value value;
  if (!value_of_default(column, arena, &value))
    return;
  bool expression = needs_expression(column->type.kind);
  if (expression && value.kind == VALUE_TEXT) { /* MariaDB does not accept _utf8mb4 X'…' here */
    g_string_append(sql, " DEFAULT (CONVERT(");
    literal_append_binary(sql, value.text, value.length);
    g_string_append(sql, " USING utf8mb4))");
    return;
  }
  g_string_append(sql, expression ? " DEFAULT (" : " DEFAULT ");
  literal_append(sql, &value);
  g_string_append(sql, expression ? ")" : "");
}

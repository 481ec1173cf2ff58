/* table.c - reads a table's columns and unique keys from information_schema. */
#include "projector/infra/mysql/table.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

static void column_free(gpointer data) {
  TableColumn *column = data;
  g_free(column->name);
  g_free(column->type);
  g_free(column->full_type);
  g_free(column->charset);
  g_free(column->collation);
  g_free(column);
}

static void index_free(gpointer data) {
  TableIndex *index = data;
  g_free(index->name);
  g_ptr_array_unref(index->columns);
  g_free(index);
}

void table_free(Table *table) {
  g_ptr_array_unref(table->columns);
  g_ptr_array_unref(table->unique);
  g_free(table);
}

static uint64_t number(const char *text) {
  return text ? g_ascii_strtoull(text, NULL, 10) : 0;
}

MYSQL_RES *table_ask(Session *session, const char *query, const char *table, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(query);
  literal_append_text(sql, table, strlen(table));
  g_string_append(sql, " ORDER BY 1, 2");
  return session_query(session, sql->str, sql->len, ret_failure);
}

static bool read_columns(Session *session, const char *name, Table *table, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = table_ask(
      session,
      "SELECT ORDINAL_POSITION, COLUMN_NAME, LOWER(DATA_TYPE), IF(DATA_TYPE = 'enum', "
      "COLUMN_TYPE, LOWER(COLUMN_TYPE)),"
      " CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE = 'YES',"
      " COLUMN_DEFAULT IS NOT NULL OR EXTRA LIKE '%auto_increment%',"
      " COALESCE(GENERATION_EXPRESSION, '') <> '', CHARACTER_OCTET_LENGTH,"
      " CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION,"
      " EXTRA LIKE '%on update%'"
      " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ",
      name, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result))) {
    TableColumn *column = g_new0(TableColumn, 1);
    *column = (TableColumn){
        g_strdup(row[1]),         g_strdup(row[2]),          g_strdup(row[3]),
        g_strdup(row[4]),         g_strdup(row[5]),          number(row[6]) != 0,
        number(row[7]) != 0,      number(row[8]) != 0,       number(row[9]),
        number(row[10]),          (unsigned)number(row[11]), (unsigned)number(row[12]),
        (unsigned)number(row[13])};
    column->touches_itself = number(row[14]) != 0;
    g_ptr_array_add(table->columns, column);
  }
  return true;
}

bool table_read_unique(Session *session, const char *name, Table *table, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result =
      table_ask(session,
                "SELECT INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART IS NOT NULL"
                " FROM information_schema.STATISTICS"
                " WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ",
                name, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row;
  TableIndex *index = NULL;
  while ((row = mysql_fetch_row(result))) {
    if (!index || strcmp(index->name, row[0]) != 0) {
      index = g_new0(TableIndex, 1);
      index->name = g_strdup(row[0]);
      index->columns = g_ptr_array_new_with_free_func(g_free);
      g_ptr_array_add(table->unique, index);
    }
    g_ptr_array_add(index->columns, g_strdup(row[2] ? row[2] : "(expression)"));
    index->prefix |= number(row[3]) != 0;
  }
  return true;
}

Table *table_new(const Session *session) {
  Table *table = g_new0(Table, 1);
  table->columns = g_ptr_array_new_with_free_func(column_free);
  table->unique = g_ptr_array_new_with_free_func(index_free);
  table->mariadb = session_is_mariadb(session);
  return table;
}

Table *table_read(Session *session, const char *name, Failure *ret_failure) {
  g_autoptr(Table) table = table_new(session);
  if (!read_columns(session, name, table, ret_failure) ||
      !table_read_unique(session, name, table, ret_failure))
    return NULL;
  return g_steal_pointer(&table);
}

const TableColumn *table_find_column(const Table *table, const char *name) {
  for (unsigned i = 0; i < table->columns->len; i++) {
    const TableColumn *column = table->columns->pdata[i];
    if (!g_ascii_strcasecmp(column->name, name))
      return column;
  }
  return NULL;
}

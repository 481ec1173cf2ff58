/* unnamed.c - asks information_schema for the columns that the mapping does not name. */
#include "projector/infra/mysql/unnamed.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

static bool is_named(const Projection *projection, const char *column) {
  for (unsigned i = 0; i < projection->column_count; i++)
    if (!g_ascii_strcasecmp(projection->columns[i].name, column))
      return true;
  return false;
}

/* Rows of name and whether each row of the table has a value of its own. */
static MYSQL_RES *ask(Session *session, const Projection *projection, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(
      "SELECT c.COLUMN_NAME, c.EXTRA LIKE '%auto_increment%' OR EXISTS (SELECT 1"
      " FROM information_schema.STATISTICS AS s WHERE s.TABLE_SCHEMA = c.TABLE_SCHEMA"
      " AND s.TABLE_NAME = c.TABLE_NAME AND s.COLUMN_NAME = c.COLUMN_NAME AND s.NON_UNIQUE = 0)"
      " FROM information_schema.COLUMNS AS c WHERE c.TABLE_SCHEMA = DATABASE()"
      " AND COALESCE(c.GENERATION_EXPRESSION, '') = '' AND c.TABLE_NAME = ");
  literal_append_text(sql, projection->table, strlen(projection->table));
  g_string_append(sql, " ORDER BY c.ORDINAL_POSITION");
  return session_query(session, sql->str, sql->len, ret_failure);
}

GPtrArray *unnamed_columns(Session *session, const Projection *projection, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = ask(session, projection, ret_failure);
  if (!result)
    return NULL;
  GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result)))
    if (!is_named(projection, row[0]))
      g_ptr_array_add(names, g_strdup(row[0]));
  return names;
}

static bool has_rows(Session *session, const char *table, bool *ret_any, Failure *ret_failure) {
  g_autofree char *found = session_ask(session, ret_failure, "SELECT 1 FROM `%s` LIMIT 1", table);
  *ret_any = found != NULL;
  return found || ret_failure->class == FAILURE_NONE;
}

static bool check_table(Session *session, const Projection *table, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = ask(session, table, ret_failure);
  g_autofree char *own = NULL;
  bool any;
  MYSQL_ROW row;
  while (result && !own && (row = mysql_fetch_row(result)))
    if (!is_named(table, row[0]) && *row[1] == '1')
      own = g_strdup(row[0]);
  if (!result || (own && !has_rows(session, table->table, &any, ret_failure)))
    return false;
  return !own || !any ||
         failure_refuse(ret_failure,
                        "%s.%s is not in the mapping, and each row has a value of its own there "
                        "that a new table would lose; rebuild it in place, without --shadow",
                        table->table, own);
}

bool unnamed_check(Session *session, const Projection *projection, Failure *ret_failure) {
  for (unsigned i = 0; i < projection->child_count; i++)
    if (!check_table(session, projection->children[i], ret_failure))
      return false;
  return check_table(session, projection, ret_failure);
}

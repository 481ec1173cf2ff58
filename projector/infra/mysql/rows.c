/* rows.c - rows by key and keys in order, converted to values exactly. */
#include "projector/infra/mysql/rows.h"

#include "projector/infra/mysql/literal.h"

/* --- rows ----------------------------------------------------------------------------------- */

/* What no entity could have written, a date of zeros say, stays text: it differs from anything. */
static Value value_from(const char *text, size_t length, const ColumnType *type, Arena *arena) {
  Value value = {.kind = VALUE_NULL};
  if (text && !value_from_sql(text, length, type, arena, &value))
    value = (Value){
        .kind = VALUE_TEXT, .length = (uint32_t)length, .text = arena_copy(arena, text, length)};
  return value;
}

/* --- statements ----------------------------------------------------------------------------- */

static void begin_select(GString *sql, const Layout *layout, unsigned columns) {
  g_string_append(sql, "SELECT ");
  for (unsigned i = 0; i < columns; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append_name(sql, layout->columns[i]->name);
  }
  g_string_append(sql, " FROM ");
  literal_append_name(sql, layout->projection->table);
}

static bool fetch(Session *session, const GString *sql, const Layout *layout, unsigned columns,
                  Arena *arena, GPtrArray *rows, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return failure_prefix(ret_failure, "%s", layout->projection->table);
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result))) {
    const unsigned long *lengths = mysql_fetch_lengths(result);
    Value *values = arena_alloc(arena, columns, sizeof *values);
    for (unsigned i = 0; i < columns; i++)
      values[i] = value_from(row[i], lengths[i], &layout->columns[i]->type, arena);
    g_ptr_array_add(rows, values);
  }
  return true;
}

static void append_key(GString *sql, const Layout *layout, const Value *key) {
  for (unsigned i = 0; i < layout->key_count; i++) {
    g_string_append(sql, i ? " AND " : "");
    literal_append_name(sql, layout->columns[i]->name);
    g_string_append(sql, " = ");
    literal_append(sql, &key[i]);
  }
}

bool rows_find(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               Arena *arena, GPtrArray *rows, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_sized_new(64 * 1024);
  size_t limit = session_packet_limit(session) / 2;
  bool list = layout->key_count == 1; /* a list is a key look-up; so is an OR of equalities */
  for (size_t i = 0; i < count;) {
    g_string_truncate(sql, 0);
    begin_select(sql, layout, layout->count);
    g_string_append(sql, " WHERE ");
    if (list) {
      literal_append_name(sql, layout->columns[0]->name);
      g_string_append(sql, " IN (");
    }
    for (bool first = true; i < count && (first || sql->len < limit); i++, first = false) {
      g_string_append(sql, first ? (list ? "" : "(") : (list ? "," : ") OR ("));
      if (list)
        literal_append(sql, keys[i]);
      else
        append_key(sql, layout, keys[i]);
    }
    g_string_append_c(sql, ')');
    if (!fetch(session, sql, layout, layout->count, arena, rows, ret_failure))
      return false;
  }
  return true;
}

/* " WHERE a >= x AND (a > x OR (a = x AND b > y))": the first part is what an index is read by. */
static void append_after(GString *sql, const Layout *layout, const Value *after) {
  g_string_append(sql, " WHERE ");
  literal_append_name(sql, layout->columns[0]->name);
  g_string_append(sql, " >= ");
  literal_append(sql, &after[0]);
  g_string_append(sql, " AND (");
  for (unsigned depth = 0; depth < layout->key_count; depth++) {
    g_string_append(sql, depth ? " OR (" : "(");
    for (unsigned i = 0; i <= depth; i++) {
      g_string_append(sql, i ? " AND " : "");
      literal_append_name(sql, layout->columns[i]->name);
      g_string_append(sql, i < depth ? " = " : " > ");
      literal_append(sql, &after[i]);
    }
    g_string_append_c(sql, ')');
  }
  g_string_append_c(sql, ')');
}

bool rows_list_keys(Session *session, const Layout *layout, const Value *after, unsigned limit,
                    Arena *arena, GPtrArray *keys, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(NULL);
  begin_select(sql, layout, layout->key_count);
  if (after)
    append_after(sql, layout, after);
  g_string_append(sql, " ORDER BY ");
  for (unsigned i = 0; i < layout->key_count; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append_name(sql, layout->columns[i]->name);
  }
  g_string_append_printf(sql, " LIMIT %u", limit);
  return fetch(session, sql, layout, layout->key_count, arena, keys, ret_failure);
}

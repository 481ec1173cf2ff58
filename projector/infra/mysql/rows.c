/* rows.c - rows by key and keys in order, converted to values exactly. */
#include "projector/infra/mysql/rows.h"

#include "projector/domain/value_text.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

/* --- rows ----------------------------------------------------------------------------------- */

/* A value that no entity could have written, such as a zero date, stays a text: it differs from
 * everything. */
static Value value_from(const char *text, size_t length, const ColumnType *type, Arena *arena) {
  Value value = {.kind = VALUE_NULL};
  if (text && !value_from_sql(text, length, type, arena, &value))
    value = (Value){
        .kind = VALUE_TEXT, .length = (uint32_t)length, .text = arena_copy(arena, text, length)};
  return value;
}

/* --- sets ----------------------------------------------------------------------------------- */

RowSet *row_set_new(Arena *arena) {
  RowSet *set = g_new0(RowSet, 1);
  *set = (RowSet){.arena = arena,
                  .rows = g_ptr_array_new(),
                  .by_key = g_hash_table_new(value_key_hash, value_key_equal),
                  .refused = g_hash_table_new(value_key_hash, value_key_equal)};
  return set;
}

void row_set_free(RowSet *set) {
  if (!set)
    return;
  g_ptr_array_unref(set->rows);
  g_hash_table_unref(set->by_key);
  g_hash_table_unref(set->refused);
  g_free(set);
}

const Value *row_set_find(const RowSet *set, const Value *key) {
  const ValueKey wanted = {key, set->key_count};
  return g_hash_table_lookup(set->by_key, &wanted);
}

const char *row_set_refusal(const RowSet *set, const Value *key) {
  const ValueKey wanted = {key, set->key_count};
  return g_hash_table_lookup(set->refused, &wanted);
}

static ValueKey *key_in_arena(const RowSet *set, const Value *values) {
  ValueKey *key = arena_alloc(set->arena, 1, sizeof *key);
  *key = (ValueKey){values, set->key_count};
  return key;
}

/* --- statements ----------------------------------------------------------------------------- */

static void begin_select(GString *sql, const Layout *layout, unsigned columns) {
  g_string_append(sql, "SELECT ");
  for (unsigned i = 0; i < columns; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append_name(sql, layout->columns[i]->name);
    if (layout->columns[i]->type.kind == TYPE_FLOAT)
      g_string_append(sql,
                      " + 0e0"); /* as text a float has six digits, a double all that it needs */
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

/* Finds the rows of as many of the keys as fit into one statement. */
static bool find_some(Session *session, const Layout *layout, const Value *const *keys,
                      size_t count, size_t *ret_read, RowSet *set, Failure *ret_failure) {
  size_t limit = session_packet_limit(session) / 2, i = 0;
  bool list = layout->key_count == 1; /* a list is a key look-up, and so is an OR of equalities */
  g_autoptr(GString) sql = g_string_sized_new(64 * 1024);
  begin_select(sql, layout, layout->count);
  g_string_append(sql, " WHERE ");
  if (list) {
    literal_append_name(sql, layout->columns[0]->name);
    g_string_append(sql, " IN (");
  }
  for (; i < count && (i == 0 || sql->len < limit); i++) {
    g_string_append(sql, i == 0 ? (list ? "" : "(") : (list ? "," : ") OR ("));
    if (list)
      literal_append(sql, keys[i]);
    else
      append_key(sql, layout, keys[i]);
  }
  g_string_append_c(sql, ')');
  *ret_read = i;
  return fetch(session, sql, layout, layout->count, set->arena, set->rows, ret_failure);
}

bool rows_list(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               Arena *arena, GPtrArray *rows, Failure *ret_failure) {
  RowSet set = {.arena = arena, .rows = rows};
  for (size_t at = 0, read; at < count; at += read)
    if (!find_some(session, layout, keys + at, count - at, &read, &set, ret_failure))
      return false;
  return true;
}

/* Whether the failure is about a value in the statement, and not about the server or the table. */
static bool is_of_a_key(const Failure *failure) {
  enum { ILLEGAL_MIX_2 = 1267, ILLEGAL_MIX_3 = 1270, ILLEGAL_MIX = 1271, WRONG_VALUE = 1525 };
  return failure->class == FAILURE_DATA || failure->code == ILLEGAL_MIX_2 ||
         failure->code == ILLEGAL_MIX_3 || failure->code == ILLEGAL_MIX ||
         failure->code == WRONG_VALUE;
}

/* A key that the server refuses is found by halving. */
static bool find_or_refuse(Session *session, const Layout *layout, const Value *const *keys,
                           size_t count, RowSet *set, Failure *ret_failure) {
  for (size_t at = 0, read; at < count; at += read) {
    Failure failure = {0};
    if (find_some(session, layout, keys + at, count - at, &read, set, &failure))
      continue;
    if (!is_of_a_key(&failure)) {
      *ret_failure = failure;
      return false;
    }
    if (read == 1)
      g_hash_table_insert(set->refused, key_in_arena(set, keys[at]),
                          arena_copy(set->arena, failure.message, strlen(failure.message)));
    else if (!find_or_refuse(session, layout, keys + at, read / 2, set, ret_failure) ||
             !find_or_refuse(session, layout, keys + at + read / 2, read - read / 2, set,
                             ret_failure))
      return false;
  }
  return true;
}

bool rows_find(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               RowSet *set, Failure *ret_failure) {
  guint before = set->rows->len;
  set->key_count = layout->key_count;
  if (!find_or_refuse(session, layout, keys, count, set, ret_failure))
    return false;
  for (guint i = before; i < set->rows->len; i++)
    g_hash_table_insert(set->by_key, key_in_arena(set, set->rows->pdata[i]), set->rows->pdata[i]);
  return true;
}

static void append_unmarked(GString *sql, const Projection *projection) {
  if (projection->mark < 0) {
    g_string_append(sql, "TRUE");
    return;
  }
  literal_append_name(sql, projection->columns[projection->mark].name);
  g_string_append(sql, " IS NULL");
}

static void append_has_key(GString *sql, const Projection *projection, const Value *key) {
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, " AND ");
    literal_append_name(sql, projection->columns[i].name);
    g_string_append(sql, " = ");
    literal_append(sql, &key[i]);
  }
}

bool rows_look(Session *session, const Projection *projection, const Value *key,
               RowState *ret_state, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT ");
  append_unmarked(sql, projection);
  g_string_append(sql, " FROM ");
  literal_append_name(sql, projection->table);
  g_string_append(sql, " WHERE TRUE");
  append_has_key(sql, projection, key);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return failure_prefix(ret_failure, "%s", projection->table);
  MYSQL_ROW row = mysql_fetch_row(result);
  *ret_state = !row ? ROW_MISSING : *row[0] == '1' ? ROW_THERE : ROW_MARKED;
  return true;
}

bool rows_find_unmarked(Session *session, const Projection *projection, const Value *key,
                        bool *ret_unmarked, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT 1 FROM ");
  literal_append_name(sql, projection->table);
  g_string_append(sql, " WHERE ");
  append_unmarked(sql, projection);
  if (key)
    append_has_key(sql, projection, key);
  g_string_append(sql, " LIMIT 1");
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return failure_prefix(ret_failure, "%s", projection->table);
  *ret_unmarked = mysql_fetch_row(result) != NULL;
  return true;
}

/* " WHERE a >= x AND (a > x OR (a = x AND b > y))": the first part makes it a range of an index. */
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
  if (layout->by_parent)
    g_string_insert(sql, (gssize)strlen("SELECT"), " DISTINCT");
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

KeyCursor *key_cursor_new(void) {
  KeyCursor *cursor = g_new0(KeyCursor, 1);
  *cursor = (KeyCursor){NULL, g_ptr_array_new(), arena_new(), arena_new()};
  return cursor;
}

void key_cursor_free(KeyCursor *cursor) {
  if (!cursor)
    return;
  arena_free(cursor->page);
  arena_free(cursor->before);
  g_ptr_array_unref(cursor->keys);
  g_free(cursor);
}

bool key_cursor_next(KeyCursor *cursor, Session *session, const Layout *layout, unsigned limit,
                     Failure *ret_failure) {
  Arena *page = cursor->before; /* the last key is in the other arena */
  cursor->before = cursor->page;
  cursor->page = page;
  arena_reset(page);
  g_ptr_array_set_size(cursor->keys, 0);
  if (!rows_list_keys(session, layout, cursor->after, limit, page, cursor->keys, ret_failure))
    return false;
  if (cursor->keys->len > 0)
    cursor->after = cursor->keys->pdata[cursor->keys->len - 1];
  return true;
}

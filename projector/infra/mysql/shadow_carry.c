/* shadow_carry.c - DELETE and INSERT … SELECT between a live table and its replacement. */
#include "projector/infra/mysql/shadow_carry.h"

#include "projector/domain/mark.h"
#include "projector/infra/mysql/literal.h"

enum { KEYS_AT_ONCE = 100 };

/* " ON f.a = l.a AND …", over the key of `live`. */
static void append_join(GString *sql, const Projection *live) {
  for (unsigned i = 0; i < live->key_count; i++) {
    g_string_append(sql, i ? " AND f." : " ON f.");
    literal_append_name(sql, live->columns[i].name);
    g_string_append(sql, " = l.");
    literal_append_name(sql, live->columns[i].name);
  }
}

static void append_keys(GString *sql, const Projection *live, const char *of,
                        const Value *const *keys, size_t count) {
  g_string_append(sql, " AND (");
  for (size_t i = 0; i < count; i++) {
    g_string_append(sql, i ? " OR (" : "(");
    for (unsigned k = 0; k < live->key_count; k++) {
      g_string_append_printf(sql, "%s%s", k ? " AND " : "", of);
      literal_append_name(sql, live->columns[k].name);
      g_string_append(sql, " = ");
      literal_append(sql, &keys[i][k]);
    }
    g_string_append_c(sql, ')');
  }
  g_string_append_c(sql, ')');
}

static void append_where_marked(GString *sql, const Projection *live) {
  g_string_append(sql, " WHERE l.");
  literal_append_name(sql, live->columns[live->mark].name);
  g_string_append(sql, " IS NOT NULL");
}

/* "l.a > x OR (l.a = x AND l.b > y)" */
static void append_behind(GString *sql, const Projection *live, const Value *key) {
  for (unsigned depth = 0; depth < live->key_count; depth++) {
    g_string_append(sql, depth ? " OR (" : "(");
    for (unsigned i = 0; i <= depth; i++) {
      g_string_append(sql, i ? " AND l." : "l.");
      literal_append_name(sql, live->columns[i].name);
      g_string_append(sql, i < depth ? " = " : " > ");
      literal_append(sql, &key[i]);
    }
    g_string_append_c(sql, ')');
  }
}

/* The rows behind `after`, to `last`; the first column's bounds make it a range of an index. */
static void append_range(GString *sql, const Projection *live, const Value *after,
                         const Value *last) {
  if (after) {
    g_string_append(sql, " AND l.");
    literal_append_name(sql, live->columns[0].name);
    g_string_append(sql, " >= ");
    literal_append(sql, &after[0]);
    g_string_append(sql, " AND (");
    append_behind(sql, live, after);
    g_string_append_c(sql, ')');
  }
  g_string_append(sql, " AND l.");
  literal_append_name(sql, live->columns[0].name);
  g_string_append(sql, " <= ");
  literal_append(sql, &last[0]);
  g_string_append(sql, " AND NOT (");
  append_behind(sql, live, last);
  g_string_append_c(sql, ')');
}

static void append_columns(GString *sql, const Projection *table, const char *of) {
  for (unsigned i = 0; i < table->column_count; i++) {
    g_string_append_printf(sql, "%s%s", i ? ", " : "", of);
    literal_append_name(sql, table->columns[i].name);
  }
}

static void append_table(GString *sql, const Projection *table, const char *alias) {
  literal_append_name(sql, table->table);
  g_string_append_printf(sql, " AS %s", alias);
}

/* "INSERT INTO to (…) SELECT f.… FROM from AS f JOIN live AS l ON …" */
static void begin_insert(GString *sql, const Projection *from, const Projection *to) {
  const Projection *live = from->parent ? from->parent : from;
  g_string_assign(sql, "INSERT INTO ");
  literal_append_name(sql, to->table);
  g_string_append(sql, " (");
  append_columns(sql, to, "");
  g_string_append(sql, ") SELECT ");
  append_columns(sql, to, "f.");
  g_string_append(sql, " FROM ");
  append_table(sql, from, "f JOIN ");
  append_table(sql, live, "l");
  append_join(sql, live);
}

/* `from` is the live table or one of its children, `to` its replacement. */
static bool carry_rows(Session *session, const Projection *from, const Projection *to,
                       const Value *const *keys, size_t count, Failure *ret_failure) {
  const Projection *live = from->parent ? from->parent : from;
  g_autoptr(GString) sql = g_string_new("DELETE f FROM ");
  append_table(sql, to, "f LEFT JOIN ");
  append_table(sql, live, "l");
  append_join(sql, live);
  g_string_append(sql, " WHERE (l.");
  literal_append_name(sql, live->columns[live->mark].name);
  g_string_append(sql, " IS NOT NULL OR l.");
  literal_append_name(sql, live->columns[0].name);
  g_string_append(sql, " IS NULL)");
  append_keys(sql, live, "f.", keys, count);
  if (!session_execute(session, sql->str, sql->len, NULL, ret_failure))
    return false;
  begin_insert(sql, from, to);
  append_where_marked(sql, live);
  append_keys(sql, live, "l.", keys, count);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

static bool carry_range(Session *session, const Projection *from, const Projection *to,
                        const Value *after, const Value *last, Failure *ret_failure) {
  const Projection *live = from->parent ? from->parent : from;
  g_autoptr(GString) sql = g_string_new(NULL);
  begin_insert(sql, from, to);
  append_where_marked(sql, live);
  append_range(sql, live, after, last);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

static bool carry_all(Session *session, const Projection *live, const Projection *fresh,
                      const Value *const *keys, size_t count, Failure *ret_failure) {
  for (unsigned i = 0; i < live->child_count; i++)
    if (!carry_rows(session, live->children[i], fresh->children[i], keys, count, ret_failure))
      return false;
  return carry_rows(session, live, fresh, keys, count, ret_failure);
}

bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i += KEYS_AT_ONCE)
    if (!carry_all(session, live, fresh, keys + i, MIN(count - i, KEYS_AT_ONCE), ret_failure))
      return false;
  return true;
}

bool shadow_carry_marked(Session *session, const Projection *live, const Projection *fresh,
                         const Value *after, const Value *last, Failure *ret_failure) {
  for (unsigned i = 0; i < live->child_count; i++)
    if (!carry_range(session, live->children[i], fresh->children[i], after, last, ret_failure))
      return false;
  return carry_range(session, live, fresh, after, last, ret_failure);
}

static bool keep_marks(Session *session, const Projection *live, const Projection *fresh,
                       const Value *const *keys, size_t count, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("UPDATE ");
  bool any = false;
  append_table(sql, fresh, "f JOIN ");
  append_table(sql, live, "l");
  append_join(sql, live);
  for (unsigned i = live->key_count; i < live->column_count; i++) {
    if (!mark_sets(live, &live->columns[i]))
      continue;
    g_string_append(sql, any ? ", f." : " SET f.");
    literal_append_name(sql, live->columns[i].name);
    g_string_append(sql, " = l.");
    literal_append_name(sql, live->columns[i].name);
    any = true;
  }
  append_where_marked(sql, live);
  append_keys(sql, live, "l.", keys, count);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

bool shadow_keep_marks(Session *session, const Projection *live, const Projection *fresh,
                       const Value *const *keys, size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i += KEYS_AT_ONCE)
    if (!keep_marks(session, live, fresh, keys + i, MIN(count - i, KEYS_AT_ONCE), ret_failure))
      return false;
  return true;
}

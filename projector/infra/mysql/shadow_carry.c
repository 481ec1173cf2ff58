/* shadow_carry.c - DELETE, INSERT … SELECT and UPDATE … JOIN between a live table and its
 * replacement. */
#include "projector/infra/mysql/shadow_carry.h"

#include "projector/domain/mark.h"
#include "projector/domain/statement.h"
#include "projector/infra/mysql/literal.h"
#include "projector/infra/mysql/rows.h"
#include "projector/infra/mysql/unnamed.h"

enum {
  KEYS_AT_ONCE = 100,
  UNNAMED_PAGE = 1000, /* rows of which the unnamed columns are copied at a time */
};

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

static void append_column(GString *sql, const char *before, const char *of, const char *name) {
  g_string_append(sql, before);
  g_string_append(sql, of);
  literal_append_name(sql, name);
}

/* "l.a > x OR (l.a = x AND l.b > y)", with `of` "l." */
static void append_behind(GString *sql, const Projection *table, const char *of, const Value *key) {
  for (unsigned depth = 0; depth < table->key_count; depth++) {
    g_string_append(sql, depth ? " OR (" : "(");
    for (unsigned i = 0; i <= depth; i++) {
      append_column(sql, i ? " AND " : "", of, table->columns[i].name);
      g_string_append(sql, i < depth ? " = " : " > ");
      literal_append(sql, &key[i]);
    }
    g_string_append_c(sql, ')');
  }
}

/* The rows behind `after`, to `last`; the first column's bounds make it a range of an index. */
static void append_range(GString *sql, const Projection *table, const char *of, const Value *after,
                         const Value *last) {
  if (after) {
    append_column(sql, " AND ", of, table->columns[0].name);
    g_string_append(sql, " >= ");
    literal_append(sql, &after[0]);
    g_string_append(sql, " AND (");
    append_behind(sql, table, of, after);
    g_string_append_c(sql, ')');
  }
  append_column(sql, " AND ", of, table->columns[0].name);
  g_string_append(sql, " <= ");
  literal_append(sql, &last[0]);
  g_string_append(sql, " AND NOT (");
  append_behind(sql, table, of, last);
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
                       const Value *const *keys, size_t count, CarriedRows rows,
                       Failure *ret_failure) {
  const Projection *live = from->parent ? from->parent : from;
  g_autoptr(GString) sql = g_string_new("DELETE f FROM ");
  append_table(sql, to, "f LEFT JOIN ");
  append_table(sql, live, "l");
  append_join(sql, live);
  if (rows == CARRY_ALL_ROWS) {
    g_string_append(sql, " WHERE TRUE");
  } else {
    g_string_append(sql, " WHERE (l.");
    literal_append_name(sql, live->columns[live->mark].name);
    g_string_append(sql, " IS NOT NULL OR l.");
    literal_append_name(sql, live->columns[0].name);
    g_string_append(sql, " IS NULL)");
  }
  append_keys(sql, live, "f.", keys, count);
  if (!session_execute(session, sql->str, sql->len, NULL, ret_failure))
    return false;
  begin_insert(sql, from, to);
  if (rows == CARRY_ALL_ROWS)
    g_string_append(sql, " WHERE TRUE");
  else
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
  append_range(sql, live, "l.", after, last);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

static bool carry_all(Session *session, const Projection *live, const Projection *fresh,
                      const Value *const *keys, size_t count, CarriedRows rows,
                      Failure *ret_failure) {
  for (unsigned i = 0; i < live->child_count; i++)
    if (!carry_rows(session, live->children[i], fresh->children[i], keys, count, rows, ret_failure))
      return false;
  return carry_rows(session, live, fresh, keys, count, rows, ret_failure);
}

bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, CarriedRows rows, Failure *ret_failure) {
  for (size_t i = 0; i < count; i += KEYS_AT_ONCE)
    if (!carry_all(session, live, fresh, keys + i, MIN(count - i, KEYS_AT_ONCE), rows, ret_failure))
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

/* --- columns that the mapping does not name -------------------------------------------------- */

static bool statements_name(const Projection *projection, const char *column) {
  for (unsigned i = 0; i < projection->rule_count; i++)
    if (projection->rules[i].operation == OP_SQL &&
        statement_names(projection->rules[i].statement, column))
      return true;
  return false;
}

/* "FROM live AS l WHERE l.a = f.a AND …" */
static void append_partner(GString *sql, const Projection *live) {
  g_string_append(sql, " FROM ");
  append_table(sql, live, "l");
  for (unsigned i = 0; i < live->key_count; i++) {
    append_column(sql, i ? " AND " : " WHERE ", "l.", live->columns[i].name);
    append_column(sql, " = ", "f.", live->columns[i].name);
  }
}

/* Subqueries, because a join would lock the rows of the live table, and wait for those who do. The
 * columns that the mapping names are set to what they are: ON UPDATE CURRENT_TIMESTAMP then leaves
 * them alone. */
static bool carry_unnamed_page(Session *session, const UnnamedCarry *carry, const GPtrArray *names,
                               const Value *after, const Value *last, Failure *ret_failure) {
  const Projection *live = carry->live;
  g_autoptr(GString) sql = g_string_new("UPDATE ");
  append_table(sql, carry->fresh, "f");
  for (guint i = 0; i < names->len; i++) {
    append_column(sql, i ? ", " : " SET ", "f.", names->pdata[i]);
    append_column(sql, " = (SELECT ", "l.", names->pdata[i]);
    append_partner(sql, live);
    g_string_append_c(sql, ')');
  }
  for (unsigned i = live->key_count; i < live->column_count; i++) {
    append_column(sql, ", ", "f.", live->columns[i].name);
    append_column(sql, " = ", "f.", live->columns[i].name);
  }
  g_string_append(sql, " WHERE EXISTS (SELECT 1");
  append_partner(sql, live);
  g_string_append_c(sql, ')');
  append_range(sql, live, "f.", after, last);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

static Layout keys_of(const Projection *projection, Arena *arena) {
  Layout layout = {.projection = projection,
                   .key_count = projection->key_count,
                   .count = projection->key_count,
                   .columns = arena_alloc(arena, projection->key_count, sizeof *layout.columns),
                   .mark = -1};
  for (unsigned i = 0; i < projection->key_count; i++)
    layout.columns[i] = &projection->columns[i];
  return layout;
}

static bool carry_unnamed_pages(Session *session, const UnnamedCarry *carry, const GPtrArray *names,
                                Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(KeyCursor) cursor = key_cursor_new();
  const Layout layout = keys_of(carry->live, arena);
  for (;;) {
    const Value *after = cursor->after;
    if ((carry->gate && !session_run(carry->gate, ret_failure, "DO 0")) ||
        !key_cursor_next(cursor, session, &layout, UNNAMED_PAGE, ret_failure))
      return false;
    if (cursor->keys->len == 0)
      return true;
    if (!carry_unnamed_page(session, carry, names, after, cursor->after, ret_failure))
      return false;
  }
}

static bool carry_unnamed_of(Session *session, const UnnamedCarry *carry, Failure *ret_failure) {
  g_autoptr(GPtrArray) names = unnamed_columns(session, carry->live, ret_failure);
  if (!names)
    return false;
  for (guint i = names->len; carry->replayed && i-- > 0;)
    if (statements_name(carry->live, names->pdata[i]))
      g_ptr_array_remove_index(names, i);
  return names->len == 0 || carry_unnamed_pages(session, carry, names, ret_failure);
}

bool shadow_carry_unnamed(Session *session, const UnnamedCarry *carry, Failure *ret_failure) {
  UnnamedCarry one = *carry;
  for (unsigned i = 0; i < carry->live->child_count; i++) {
    one.live = carry->live->children[i];
    one.fresh = carry->fresh->children[i];
    if (!carry_unnamed_of(session, &one, ret_failure))
      return false;
  }
  return carry_unnamed_of(session, carry, ret_failure);
}

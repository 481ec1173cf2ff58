/* apply.c - few multi-row statements for many rows.
 *
 * The phases of a step (fold.h) become, for each projection: one UPDATE joined to a list of rows
 * for each set of columns, one DELETE joined to a list of keys, one INSERT … ON DUPLICATE KEY
 * UPDATE. A join finds its rows by the key, so that no others are locked. */
#include "projector/infra/mysql/apply.h"

#include "projector/domain/mark.h"
#include "projector/infra/mysql/bind.h"
#include "projector/infra/mysql/catalog.h"
#include "projector/infra/mysql/child_rows.h"
#include "projector/infra/mysql/json_literal.h"
#include "projector/infra/mysql/key_collation.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

/* Longer statements are split to save memory. A single row may need more. */
enum { STATEMENT_BYTES = 1024 * 1024 };

typedef struct Writer {
  Session *session; /* NULL: the statements are only kept, in `script` */
  GPtrArray *script;
  bool mariadb;
  Failure *failure;
  const Projection *projection; /* of the statement being written */
  GString *sql;
  size_t limit; /* beyond it no further row is added */
  size_t most;  /* the server's limit, less some room for the end of a statement */
} Writer;

typedef enum ListOf { LIST_KEYS, LIST_UPDATES } ListOf;

static unsigned value_count(const Projection *projection) {
  return projection->column_count - projection->key_count;
}

static const char *value_name(const Projection *projection, unsigned index) {
  return projection->columns[projection->key_count + index].name;
}

static bool full(const Writer *writer) {
  return writer->sql->len >= writer->limit;
}

/* A row that is too long to share a statement gets one of its own. */
static bool too_full(const Writer *writer) {
  return writer->sql->len > writer->most;
}

static bool send(Writer *writer, uint64_t *ret_affected) {
  if (!writer->session) {
    g_ptr_array_add(writer->script, g_strdup(writer->sql->str));
    return true;
  }
  if (session_execute(writer->session, writer->sql->str, writer->sql->len, ret_affected,
                      writer->failure))
    return true;
  session_forget_hints(writer->session); /* the table may have been altered */
  return false;
}

/* MySQL rounds the numbers in a JSON text to doubles. In a list it would treat a text and JSON as
 * two types, and make both a text. */
static void append_value(Writer *writer, const Column *column, const Value *value, bool listed) {
  bool json = column->type.plain && value->kind == VALUE_TEXT && !writer->mariadb;
  if (json && (value->wide || listed))
    json_literal_append(writer->sql, value);
  else
    literal_append(writer->sql, value);
}

/* --- keys that a collation considers equal -------------------------------------------------- */

static bool find_loose_keys(Writer *writer, const char **ret_loose) {
  *ret_loose = writer->session
                   ? key_collation_loose(writer->session, writer->projection, writer->failure)
                   : "";
  return *ret_loose != NULL;
}

static void append_bytes_of(GString *sql, const char *of, const char *column) {
  g_string_append_printf(sql, "CAST(CONVERT(%s.", of);
  if (*column == '`')
    g_string_append(sql, column);
  else
    literal_append_name(sql, column);
  g_string_append(sql, " USING utf8mb4) AS BINARY)");
}

/* The row of "Ann" is not the row of "ann", whatever the table's collation says. */
static bool join_exactly(Writer *writer) {
  const char *loose;
  if (!find_loose_keys(writer, &loose))
    return false;
  for (unsigned i = 0; loose[i]; i++) {
    char listed[16];
    g_snprintf(listed, sizeof listed, "k%u", i);
    if (loose[i] == '0')
      continue;
    g_string_append(writer->sql, " AND ");
    append_bytes_of(writer->sql, "t", writer->projection->columns[i].name);
    g_string_append(writer->sql, " = ");
    append_bytes_of(writer->sql, "v", listed);
  }
  return true;
}

/* --- lists of rows -------------------------------------------------------------------------- */

static bool is_listed(const FoldedRow *row, unsigned value, ListOf what) {
  return what == LIST_UPDATES && row->modes[value] != COLUMN_KEEP;
}

/* The list starts with an empty selection from the table itself, which gives its columns the
 * table's types and collations, so that the join is an exact key look-up. */
static void begin_list(Writer *writer, const char *verb, const FoldedRow *like, ListOf what) {
  const Projection *projection = writer->projection = like->projection;
  GString *sql = writer->sql;
  g_string_printf(sql, "%s (SELECT ", verb);
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append_name(sql, projection->columns[i].name);
    g_string_append_printf(sql, " AS k%u", i);
  }
  for (unsigned i = 0; i < value_count(projection); i++)
    if (is_listed(like, i, what)) {
      g_string_append_c(sql, ',');
      literal_append_name(sql, value_name(projection, i));
      g_string_append_printf(sql, " AS v%u", i);
    }
  g_string_append(sql, " FROM ");
  literal_append_name(sql, projection->table);
  g_string_append(sql, " WHERE FALSE UNION ALL VALUES ");
}

static void append_listed(Writer *writer, const FoldedRow *row, bool first, ListOf what) {
  const Projection *projection = row->projection;
  GString *sql = writer->sql;
  g_string_append(sql, first ? "" : ",");
  g_string_append(sql, writer->mariadb ? "(" : "ROW(");
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append(sql, &row->key[i]);
  }
  for (unsigned i = 0; i < value_count(projection); i++)
    if (is_listed(row, i, what)) {
      g_string_append_c(sql, ',');
      append_value(writer, &projection->columns[projection->key_count + i], &row->updates[i], true);
    }
  g_string_append_c(sql, ')');
}

/* The index is named because the optimizer prefers to scan a small table, and a statement that
 * changes rows locks all rows it reads: it would wait for everybody's. */
static bool join_list(Writer *writer) {
  const Projection *projection = writer->projection;
  GString *sql = writer->sql;
  const char *hint =
      writer->session ? catalog_key_hint(writer->session, projection, writer->failure) : "";
  if (!hint)
    return false;
  g_string_append(sql, ") AS v STRAIGHT_JOIN ");
  literal_append_name(sql, projection->table);
  g_string_append_printf(sql, " AS t%s ON ", hint);
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, i ? " AND t." : "t.");
    literal_append_name(sql, projection->columns[i].name);
    g_string_append_printf(sql, " = v.k%u", i);
  }
  return join_exactly(writer);
}

/* --- update --------------------------------------------------------------------------------- */

static void append_assignments(Writer *writer, const FoldedRow *like) {
  const Projection *projection = like->projection;
  GString *sql = writer->sql;
  /* NULL plus something would quietly stay NULL; such a row counts as missing instead. */
  for (unsigned i = 0; i < value_count(projection); i++)
    if (like->modes[i] == COLUMN_ADD) {
      g_string_append(sql, " AND t.");
      literal_append_name(sql, value_name(projection, i));
      g_string_append(sql, " IS NOT NULL");
    }
  if (like->unmarked) {
    g_string_append(sql, " AND t.");
    literal_append_name(sql, projection->columns[projection->mark].name);
    g_string_append(sql, " IS NULL");
  }
  g_string_append(sql, " SET ");
  bool first = true;
  for (unsigned i = 0; i < value_count(projection); i++) {
    if (like->modes[i] == COLUMN_KEEP)
      continue;
    g_string_append(sql, first ? "t." : ", t.");
    first = false;
    literal_append_name(sql, value_name(projection, i));
    g_string_append(sql, " = ");
    if (like->modes[i] == COLUMN_ADD) {
      g_string_append(sql, "t.");
      literal_append_name(sql, value_name(projection, i));
      g_string_append(sql, " + ");
    }
    g_string_append_printf(sql, "v.v%u", i);
    if (projection->columns[projection->key_count + i].type.kind == TYPE_BIT)
      g_string_append(sql, " + 0"); /* MariaDB makes a list of a bit and a number one of texts */
  }
  if (first) { /* only child tables are updated, but the parent's row must exist */
    g_string_append(sql, "t.");
    literal_append_name(sql, projection->columns[0].name);
    g_string_append(sql, " = v.k0");
  }
}

static bool finish_update(Writer *writer, const FoldedRow *like, unsigned rows) {
  uint64_t matched = rows;
  if (!join_list(writer))
    return false;
  append_assignments(writer, like);
  return send(writer, &matched) &&
         (matched == rows || like->lenient || row_missing(like->projection, writer->failure));
}

static bool same_shape(const FoldedRow *a, const FoldedRow *b) {
  return a->projection == b->projection && a->lenient == b->lenient && a->unmarked == b->unmarked &&
         (value_count(a->projection) == 0 ||
          !memcmp(a->modes, b->modes, value_count(a->projection)));
}

static bool update_like(Writer *writer, const GPtrArray *rows, unsigned from, bool *done) {
  const FoldedRow *like = rows->pdata[from];
  unsigned open = 0;
  for (unsigned i = from; i < rows->len; i++) {
    const FoldedRow *row = rows->pdata[i];
    if (!row->update || done[i] || !same_shape(like, row))
      continue;
    done[i] = true;
    if (open == 0)
      begin_list(writer, "UPDATE", like, LIST_UPDATES);
    size_t before = writer->sql->len;
    append_listed(writer, row, open == 0, LIST_UPDATES);
    if (open > 0 && too_full(writer)) {
      g_string_truncate(writer->sql, before);
      if (!finish_update(writer, like, open))
        return false;
      open = 0;
      begin_list(writer, "UPDATE", like, LIST_UPDATES);
      append_listed(writer, row, true, LIST_UPDATES);
    }
    open++;
    if (full(writer)) {
      if (!finish_update(writer, like, open))
        return false;
      open = 0;
    }
  }
  return open == 0 || finish_update(writer, like, open);
}

static bool update_rows(Writer *writer, const GPtrArray *rows) {
  g_autofree bool *done = g_new0(bool, rows->len);
  for (unsigned i = 0; i < rows->len; i++) {
    const FoldedRow *row = rows->pdata[i];
    if (row->update && !done[i] && !update_like(writer, rows, i, done))
      return false;
  }
  return true;
}

/* --- delete --------------------------------------------------------------------------------- */

static bool finish_delete(Writer *writer) {
  return join_list(writer) && send(writer, NULL);
}

static bool delete_rows(Writer *writer, const GPtrArray *rows, const Projection *projection) {
  bool open = false;
  for (unsigned i = 0; i < rows->len; i++) {
    const FoldedRow *row = rows->pdata[i];
    if (!row->remove || row->projection != projection)
      continue;
    if (!open)
      begin_list(writer, "DELETE t FROM", row, LIST_KEYS);
    append_listed(writer, row, !open, LIST_KEYS);
    open = true;
    if (full(writer)) {
      if (!finish_delete(writer))
        return false;
      open = false;
    }
  }
  return !open || finish_delete(writer);
}

/* --- write ---------------------------------------------------------------------------------- */

/* What happens to an existing row: it is overwritten, except for its mark; or the event fails,
 * because two rows of one event would become one. */
typedef enum WriteMode { WRITE_OVER, WRITE_KEEPING_MARK, WRITE_NEW, WRITE_MODES } WriteMode;

static WriteMode mode_of(const FoldedRow *row) {
  return row->fresh ? WRITE_NEW : row->keep_mark ? WRITE_KEEPING_MARK : WRITE_OVER;
}

static void begin_write(Writer *writer, const Projection *projection) {
  writer->projection = projection;
  g_string_assign(writer->sql, "INSERT INTO ");
  literal_append_name(writer->sql, projection->table);
  for (unsigned i = 0; i < projection->column_count; i++) {
    g_string_append(writer->sql, i ? "," : " (");
    literal_append_name(writer->sql, projection->columns[i].name);
  }
  g_string_append(writer->sql, ") VALUES ");
}

static void append_write_row(Writer *writer, const FoldedRow *row, bool first) {
  const Projection *projection = row->projection;
  GString *sql = writer->sql;
  g_string_append(sql, first ? "(" : ",(");
  for (unsigned i = 0; i < projection->key_count; i++) {
    g_string_append(sql, i ? "," : "");
    literal_append(sql, &row->key[i]);
  }
  for (unsigned i = 0; i < value_count(projection); i++) {
    g_string_append_c(sql, ',');
    append_value(writer, &projection->columns[projection->key_count + i], &row->row[i], false);
  }
  g_string_append_c(sql, ')');
}

/* No table in a mapping can have this alias, because names contain no blanks (domain/mapping.c). */
#define NEW_ROW "`new row`"

static void append_new(GString *sql, const char *column, bool mariadb) {
  g_string_append(sql, mariadb ? "VALUES(" : NEW_ROW ".");
  literal_append_name(sql, column);
  g_string_append(sql, mariadb ? ")" : "");
}

static void append_qualified(GString *sql, const Projection *projection, const char *column) {
  literal_append_name(sql, projection->table);
  g_string_append_c(sql, '.');
  literal_append_name(sql, column);
}

/* "IF(`t`.`mark` IS NOT NULL AND new.mark IS NOT NULL, `t`.`column`, new.column)" */
static void append_kept(GString *sql, const Projection *projection, const char *column,
                        bool mariadb) {
  const char *mark = projection->columns[projection->mark].name;
  g_string_append(sql, "IF(");
  append_qualified(sql, projection, mark);
  g_string_append(sql, " IS NOT NULL AND ");
  append_new(sql, mark, mariadb);
  g_string_append(sql, " IS NOT NULL, ");
  append_qualified(sql, projection, column);
  g_string_append_c(sql, ',');
  append_new(sql, column, mariadb);
  g_string_append_c(sql, ')');
}

static void append_overwrite(Writer *writer, unsigned column, bool keep) {
  const Projection *projection = writer->projection;
  const char *name = projection->columns[column].name;
  bool mariadb = writer->mariadb;
  literal_append_name(writer->sql, name);
  g_string_append(writer->sql, " = ");
  if (keep)
    append_kept(writer->sql, projection, name, mariadb);
  else
    append_new(writer->sql, name, mariadb);
}

/* "`key` = IF(its bytes = new.key's, `key`, NULL)": a NULL key raises an error. */
static bool append_exact_keys(Writer *writer, const char *loose) {
  const Projection *projection = writer->projection;
  GString *sql = writer->sql;
  bool any = false;
  for (unsigned i = 0; loose[i]; i++) {
    const char *name = projection->columns[i].name;
    if (loose[i] == '0')
      continue;
    g_string_append(sql, any ? ", " : "");
    any = true;
    literal_append_name(sql, name);
    g_string_append(sql, " = IF(CAST(CONVERT(");
    append_qualified(sql, projection, name);
    g_string_append(sql, " USING utf8mb4) AS BINARY) = CAST(CONVERT(");
    append_new(sql, name, writer->mariadb);
    g_string_append(sql, " USING utf8mb4) AS BINARY), ");
    append_qualified(sql, projection, name);
    g_string_append(sql, ", NULL)");
  }
  return any;
}

static bool send_write(Writer *writer, bool guarded) {
  enum { NULL_FOR_NOT_NULL = 1048 };
  if (send(writer, NULL))
    return true;
  const Projection *projection = writer->projection;
  for (unsigned i = 0; guarded && i < projection->key_count; i++) {
    g_autofree char *quoted = g_strdup_printf("'%s'", projection->columns[i].name);
    if (writer->failure->code == NULL_FOR_NOT_NULL && strstr(writer->failure->message, quoted))
      return failure_set(writer->failure, FAILURE_DATA, SOURCE_MYSQL, NULL_FOR_NOT_NULL,
                         "%s: expected an id of its own for the key %s, found the row of an id "
                         "that differs in case, accents or blanks at the end, which the column's "
                         "collation considers equal; give it %s",
                         projection->table, projection->columns[i].name,
                         writer->mariadb ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin");
  }
  return false;
}

/* Assignments take effect one after another: whatever depends on the mark comes before it. */
static bool finish_write(Writer *writer, const Projection *projection, WriteMode mode) {
  bool keep_mark = mode == WRITE_KEEPING_MARK;
  GString *sql = writer->sql;
  if (mode == WRITE_NEW)
    return send(writer, NULL);
  bool mariadb = writer->mariadb;
  /* A table with only key columns has nothing to overwrite; one key column is set to itself. */
  unsigned first = value_count(projection) > 0 ? projection->key_count : 0;
  unsigned end = value_count(projection) > 0 ? projection->column_count : 1;
  const char *loose;
  if (!find_loose_keys(writer, &loose))
    return false;
  g_string_append(sql, mariadb ? " ON DUPLICATE KEY UPDATE "
                               : " AS " NEW_ROW " ON DUPLICATE KEY UPDATE ");
  bool guarded = append_exact_keys(writer, loose), any = guarded;
  for (unsigned i = first; i < end; i++) {
    if (keep_mark && (int)i == projection->mark)
      continue;
    g_string_append(sql, any ? ", " : "");
    append_overwrite(writer, i, keep_mark && mark_sets(projection, &projection->columns[i]));
    any = true;
  }
  if (keep_mark) {
    g_string_append(sql, any ? ", " : "");
    append_overwrite(writer, (unsigned)projection->mark, true);
  }
  return send_write(writer, guarded);
}

static bool write_rows(Writer *writer, const GPtrArray *rows, const Projection *projection,
                       WriteMode mode) {
  bool open = false;
  for (unsigned i = 0; i < rows->len; i++) {
    const FoldedRow *row = rows->pdata[i];
    if (!row->write || mode_of(row) != mode || row->projection != projection)
      continue;
    if (!open)
      begin_write(writer, projection);
    size_t before = writer->sql->len;
    append_write_row(writer, row, !open);
    if (open && too_full(writer)) {
      g_string_truncate(writer->sql, before);
      if (!finish_write(writer, projection, mode))
        return false;
      begin_write(writer, projection);
      append_write_row(writer, row, true);
    }
    open = true;
    if (full(writer)) {
      if (!finish_write(writer, projection, mode))
        return false;
      open = false;
    }
  }
  return !open || finish_write(writer, projection, mode);
}

/* --- sql ------------------------------------------------------------------------------------ */

static void print_statement(Writer *writer, const Change *change) {
  g_string_assign(writer->sql, change->rule->statement);
  for (unsigned i = 0; i < change->rule->parameter_count; i++) {
    g_string_append_printf(writer->sql, "%s:%s = ", i ? ", " : " -- ",
                           change->rule->parameters[i].from.text);
    literal_append(writer->sql, &change->values[i]);
  }
  send(writer, NULL);
}

static bool run_statement(Writer *writer, const Change *change) {
  unsigned count = change->rule->parameter_count;
  g_autofree MYSQL_BIND *parameters = g_new0(MYSQL_BIND, count + 1);
  g_autofree BoundText *texts = g_new0(BoundText, count + 1);
  for (unsigned i = 0; i < count; i++)
    value_bind(&parameters[i], &change->values[i], &texts[i]);
  uint64_t affected;
  writer->projection = change->rule->projection;
  for (unsigned i = 0; i < count; i++)
    if (change->values[i].wide && !writer->mariadb)
      return failure_set(writer->failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "%s: :%s has a number with more digits than MySQL's JSON takes from a "
                         "parameter; write the column with an upsert or an update",
                         writer->projection->table, change->rule->parameters[i].from.text);
  return session_execute_bound(writer->session, change->rule->statement, parameters, count,
                               &affected, writer->failure) &&
         (affected > 0 || row_missing(change->rule->projection, writer->failure));
}

/* --- steps ---------------------------------------------------------------------------------- */

/* The tables of the rows in the file's order: if rows refer to each other, parents come before
 * children; deletes go the other way. */
static GPtrArray *projections_of(const GPtrArray *rows) {
  g_autoptr(GPtrArray) projections = g_ptr_array_new();
  for (unsigned i = 0; i < rows->len; i++) {
    const FoldedRow *row = rows->pdata[i];
    unsigned at = 0;
    while (at < projections->len &&
           ((const Projection *)projections->pdata[at])->rank < row->projection->rank)
      at++;
    if (at == projections->len || projections->pdata[at] != row->projection)
      g_ptr_array_insert(projections, (gint)at, (gpointer)row->projection);
  }
  return g_steal_pointer(&projections);
}

static bool has_children(const GPtrArray *rows) {
  for (guint i = 0; i < rows->len; i++)
    if (((const FoldedRow *)rows->pdata[i])->projection->child_count > 0)
      return true;
  return false;
}

static bool write_all(Writer *writer, const GPtrArray *rows) {
  g_autoptr(GPtrArray) projections = projections_of(rows);
  if (!update_rows(writer, rows))
    return false;
  for (unsigned i = projections->len; i-- > 0;)
    if (!delete_rows(writer, rows, projections->pdata[i]))
      return false;
  for (unsigned i = 0; i < projections->len; i++)
    for (WriteMode mode = WRITE_OVER; mode < WRITE_MODES; mode++)
      if (!write_rows(writer, rows, projections->pdata[i], mode))
        return false;
  return true;
}

static bool apply_rows(Writer *writer, const GPtrArray *rows) {
  if (!has_children(rows))
    return write_all(writer, rows);
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GPtrArray) all = g_ptr_array_new();
  g_ptr_array_extend(all, (GPtrArray *)rows, NULL, NULL);
  writer->projection = ((const FoldedRow *)rows->pdata[0])->projection;
  return child_rows_expand(writer->session, all, arena, writer->failure) && write_all(writer, all);
}

bool apply_fold(Session *session, const Fold *fold, Culprit *ret_culprit, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_sized_new(64 * 1024);
  size_t packet = session_packet_limit(session);
  Writer writer = {.session = session,
                   .mariadb = session_is_mariadb(session),
                   .failure = ret_failure,
                   .sql = sql,
                   .limit = MIN(packet / 2, (size_t)STATEMENT_BYTES),
                   .most = packet / 8 * 7};
  session_forget_old_hints(session);
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    if (!(step->statement ? run_statement(&writer, step->statement)
                          : apply_rows(&writer, step->rows))) {
      const Projection *table = writer.projection;
      *ret_culprit = (Culprit){table && table->parent ? table->parent : table, step->statement};
      return false;
    }
  }
  return true;
}

void apply_print(const Fold *fold, bool mariadb, GPtrArray *statements) {
  g_autoptr(GString) sql = g_string_new(NULL);
  Failure never = {0};
  Writer writer = {.mariadb = mariadb,
                   .script = statements,
                   .failure = &never,
                   .sql = sql,
                   .limit = STATEMENT_BYTES,
                   .most = SIZE_MAX};
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    if (step->statement)
      print_statement(&writer, step->statement);
    else
      apply_rows(&writer, step->rows);
  }
}

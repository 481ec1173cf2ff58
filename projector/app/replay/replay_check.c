/* replay_check.c - reads back the rows that a replay has written, before they count. */
#include "projector/app/replay/replay.h"

#include "projector/domain/mark.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

/* A row as it was written. */
typedef struct Written {
  const Projection *projection;
  const Value *key, *values; /* the columns after the key */
  bool keeps_mark;           /* marked columns of a soft delete may stay as they were */
} Written;

/* The key and the columns that are compared. */
static Layout layout_of(const Projection *projection, Arena *arena) {
  Layout layout = {.projection = projection,
                   .key_count = projection->key_count,
                   .columns = arena_alloc(arena, projection->column_count, sizeof *layout.columns)};
  for (unsigned i = 0; i < projection->column_count; i++)
    if (i < projection->key_count || projection->columns[i].compare)
      layout.columns[layout.count++] = &projection->columns[i];
  return layout;
}

static void add_row(const FoldedRow *row, GArray *written) {
  const Projection *projection = row->projection;
  if (!row->write)
    return;
  Written parent = {projection, row->key, row->row, row->keep_mark};
  g_array_append_val(written, parent);
  for (unsigned i = 0; row->children && i < projection->child_count; i++)
    for (unsigned k = 0; row->children[i] && k < row->children[i]->count; k++) {
      const ChildRow *of = &row->children[i]->rows[k];
      Written child = {projection->children[i], of->key, of->values, false};
      g_array_append_val(written, child);
    }
}

/* What a later sql statement made of a row is unknown. */
static GArray *rows_to_look_at(const Fold *fold) {
  GArray *written = g_array_new(FALSE, FALSE, sizeof(Written));
  unsigned count = fold_step_count(fold);
  const GPtrArray *rows = count > 0 ? fold_step(fold, count - 1)->rows : NULL;
  for (guint i = 0; rows && i < rows->len; i++)
    add_row(rows->pdata[i], written);
  return written;
}

static bool mismatch(const Projection *projection, const char *what, Failure *ret_failure) {
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_MYSQL, 0,
                     "its row in %s is not what was written: %s; a trigger, a generated column, "
                     "another unique key, or a key whose collation considers two ids equal?",
                     projection->table, what);
}

static bool compare(const Layout *layout, const Written *written, const Value *row,
                    Failure *ret_failure) {
  if (!row)
    return mismatch(layout->projection, "it is not there", ret_failure);
  for (unsigned i = layout->key_count; i < layout->count; i++) {
    const Column *column = layout->columns[i];
    ptrdiff_t at = column - layout->projection->columns - (ptrdiff_t)layout->key_count;
    if ((written->keeps_mark && mark_sets(layout->projection, column)) ||
        column_equal(column, &written->values[at], &row[i], layout->json_slack))
      continue;
    g_autoptr(GString) what = g_string_new(column->name);
    g_string_append(what, ": written ");
    value_append_text(what, &written->values[at]);
    g_string_append(what, ", found ");
    value_append_text(what, &row[i]);
    return mismatch(layout->projection, what->str, ret_failure);
  }
  return true;
}

/* Reads back those of one table. */
static bool look(Session *session, const Layout *layout, const GArray *written, Arena *arena,
                 Failure *ret_failure) {
  g_autoptr(RowSet) found = row_set_new(arena);
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  for (guint i = 0; i < written->len; i++) {
    const Written *row = &g_array_index(written, Written, i);
    if (row->projection == layout->projection)
      g_ptr_array_add(keys, (gpointer)row->key);
  }
  if (keys->len > 0 &&
      !rows_find(session, layout, (const Value *const *)keys->pdata, keys->len, found, ret_failure))
    return false;
  for (guint i = 0; keys->len > 0 && i < written->len; i++) {
    const Written *row = &g_array_index(written, Written, i);
    if (row->projection == layout->projection &&
        !compare(layout, row, row_set_find(found, row->key), ret_failure))
      return false;
  }
  return true;
}

bool replay_look_again(const Replay *replay, const Fold *fold, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GArray) written = rows_to_look_at(fold);
  const Projection *target = replay->target;
  for (unsigned i = 0; i <= target->child_count; i++) {
    Layout layout = layout_of(i == 0 ? target : target->children[i - 1], arena);
    layout.json_slack = replay->json_slack;
    if (!look(replay->session, &layout, written, arena, ret_failure))
      return false;
  }
  return true;
}

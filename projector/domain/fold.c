/* fold.c - folds changes into final row states. */
#include "projector/domain/fold.h"

#include "projector/domain/mark.h"

#include <string.h>

struct Fold {
  Arena *arena;
  GPtrArray *steps;       /* of Step */
  guint open;             /* the first of those that can still grow */
  GPtrArray *levels;      /* of Step: the rows of each open level, or NULL */
  GHashTable *rows;       /* of all open levels, each key's last: FoldedRow as its own key */
  GHashTable *aggregates; /* Aggregate → its level, where that is not 0 */
  unsigned level;         /* of the aggregate whose changes are added: none goes below */
  bool ordered;           /* across all aggregates */
};

/* --- rows by key -------------------------------------------------------------------------- */

static guint row_hash(gconstpointer data) {
  const FoldedRow *row = data;
  return (guint)values_hash(row->key, row->projection->key_count) ^ row->projection->index;
}

static gboolean row_equal(gconstpointer a, gconstpointer b) {
  const FoldedRow *x = a, *y = b;
  return x->projection == y->projection && values_equal(x->key, y->key, x->projection->key_count);
}

/* --- steps -------------------------------------------------------------------------------- */

static void step_free(gpointer data) {
  Step *step = data;
  if (step->rows)
    g_ptr_array_unref(step->rows);
  g_free(step);
}

Fold *fold_new(Arena *arena) {
  Fold *fold = g_new0(Fold, 1);
  fold->arena = arena;
  fold->steps = g_ptr_array_new_with_free_func(step_free);
  fold->levels = g_ptr_array_new();
  fold->rows = g_hash_table_new(row_hash, row_equal);
  fold->aggregates = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  return fold;
}

void fold_free(Fold *fold) {
  if (!fold)
    return;
  g_hash_table_unref(fold->aggregates);
  g_hash_table_unref(fold->rows);
  g_ptr_array_unref(fold->levels);
  g_ptr_array_unref(fold->steps);
  g_free(fold);
}

Arena *fold_arena(const Fold *fold) {
  return fold->arena;
}

unsigned fold_step_count(const Fold *fold) {
  return fold->steps->len;
}

const Step *fold_step(const Fold *fold, unsigned index) {
  return fold->steps->pdata[index];
}

/* What comes later comes behind all that there is. */
static void end_steps(Fold *fold) {
  g_hash_table_remove_all(fold->rows);
  g_hash_table_remove_all(fold->aggregates);
  g_ptr_array_set_size(fold->levels, 0);
  fold->open = fold->steps->len;
  fold->level = 0;
}

/* Within a level the rows come before the statements. */
static Step *add_step(Fold *fold, unsigned level, const Change *statement) {
  Step *step = g_new0(Step, 1);
  guint at = fold->steps->len;
  for (; at > fold->open; at--) {
    const Step *before = fold->steps->pdata[at - 1];
    if (before->level < level || (before->level == level && statement))
      break;
  }
  step->level = level;
  step->statement = statement;
  g_ptr_array_insert(fold->steps, (gint)at, step);
  return step;
}

static Step *rows_of_level(Fold *fold, unsigned level) {
  if (level >= fold->levels->len)
    g_ptr_array_set_size(fold->levels, (gint)level + 1);
  Step *step = fold->levels->pdata[level];
  if (!step) {
    step = fold->levels->pdata[level] = add_step(fold, level, NULL);
    step->rows = g_ptr_array_new();
  }
  return step;
}

/* The row's last state, in a level that the aggregate's changes may go to; NULL: none. The
 * aggregate is then in that level itself. */
static FoldedRow *find_row(Fold *fold, const Change *change) {
  const FoldedRow probe = {.projection = change->rule->projection, .key = change->key};
  FoldedRow *row = g_hash_table_lookup(fold->rows, &probe);
  if (row)
    fold->level = MAX(fold->level, row->level + row->ended);
  return row && !row->ended && row->level == fold->level ? row : NULL;
}

static FoldedRow *begin_row(Fold *fold, const Change *change) {
  FoldedRow *row = arena_alloc(fold->arena, 1, sizeof *row);
  *row =
      (FoldedRow){.projection = change->rule->projection, .key = change->key, .level = fold->level};
  g_hash_table_replace(fold->rows, row, row);
  return row;
}

static FoldedRow *open_row(Fold *fold, const Change *change) {
  const Projection *projection = change->rule->projection;
  FoldedRow *row = find_row(fold, change);
  if (row)
    return row;
  row = begin_row(fold, change);
  unsigned count = projection->column_count - projection->key_count;
  row->modes = arena_alloc(fold->arena, count, sizeof *row->modes);
  row->children = arena_alloc(fold->arena, projection->child_count, sizeof *row->children);
  row->updates = arena_alloc(fold->arena, count, sizeof *row->updates);
  row->row = arena_alloc(fold->arena, count, sizeof *row->row);
  g_ptr_array_add(rows_of_level(fold, row->level)->rows, row);
  return row;
}

/* The row as it is after all its changes so far. */
static FoldedRow *open_row_behind(Fold *fold, FoldedRow *row, const Change *change) {
  if (fold->ordered)
    end_steps(fold);
  else
    row->ended = true;
  return open_row(fold, change);
}

/* --- changes ------------------------------------------------------------------------------ */

static bool add_to(const Projection *projection, unsigned column, Value *sum, const Value *delta,
                   Arena *arena, Failure *ret_failure) {
  const Column *target = &projection->columns[column];
  if (sum->kind == VALUE_NULL)
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                       "%s: expected a number in column %s, found NULL", projection->table,
                       target->name);
  return value_add(sum, delta, target, arena, sum) ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                     "%s: expected a sum that fits %s %s, found one that does not",
                     projection->table, target->name, target->type.text);
}

static bool is_marked(const FoldedRow *row) {
  const Projection *projection = row->projection;
  return projection->mark >= 0 &&
         mark_is_set(&row->row[(unsigned)projection->mark - projection->key_count]);
}

static bool is_delta(const Change *change) {
  return operation_is_delta(change->rule->operation);
}

/* Whether the assignment adds to its column; otherwise it sets the column. */
static bool adds(const Change *change, unsigned assignment) {
  return is_delta(change) && !change->rule->assignments[assignment].set;
}

static bool is_left_out(const Change *change, unsigned assignment) {
  return change->deltas_only && !adds(change, assignment);
}

bool row_missing(const Projection *projection, Failure *ret_failure) {
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_MYSQL, 0, "row missing in %s",
                     projection->table);
}

/* A later list of children replaces an earlier one. */
static void take_children(FoldedRow *row, const Change *change) {
  for (unsigned i = 0; i < row->projection->child_count && change->children; i++)
    if (change->children[i])
      row->children[i] = change->children[i];
}

static void remove_children(FoldedRow *row) {
  for (unsigned i = 0; i < row->projection->child_count; i++)
    row->children[i] = &no_child_rows;
}

static bool fold_into_known(FoldedRow *row, const Change *change, Arena *arena,
                            Failure *ret_failure) {
  const Rule *rule = change->rule;
  take_children(row, change);
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    unsigned column = rule->assignments[i].column;
    Value *value = &row->row[column - rule->projection->key_count];
    if (is_left_out(change, i))
      continue;
    if (!adds(change, i))
      *value = change->values[i];
    else if (!add_to(rule->projection, column, value, &change->values[i], arena, ret_failure))
      return false;
  }
  return true;
}

/* A delta of an unknown row stays a statement of its own before a value that replaces the sum (the
 * sum must fit nevertheless), and before a second delta of a double, where addition is not
 * associative. */
static bool needs_new_step(const FoldedRow *row, const Change *change) {
  const Rule *rule = change->rule;
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    unsigned index = rule->assignments[i].column - rule->projection->key_count;
    if (row->modes[index] == COLUMN_ADD && !is_left_out(change, i) &&
        (!adds(change, i) || row->updates[index].kind == VALUE_DOUBLE))
      return true;
  }
  return false;
}

static bool fold_into_unknown(FoldedRow *row, const Change *change, Arena *arena,
                              Failure *ret_failure) {
  const Rule *rule = change->rule;
  bool first = !row->update;
  row->lenient = rule->soft && (first || row->lenient);
  take_children(row, change);
  row->update = true;
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    unsigned column = rule->assignments[i].column, index = column - rule->projection->key_count;
    Value *value = &row->updates[index];
    if (is_left_out(change, i)) {
      continue;
    } else if (!adds(change, i)) {
      row->modes[index] = COLUMN_SET;
      *value = change->values[i];
    } else if (row->modes[index] == COLUMN_KEEP) {
      row->modes[index] = COLUMN_ADD;
      *value = change->values[i];
    } else if (row->modes[index] == COLUMN_ADD) {
      if (!value_add(value, &change->values[i], NULL, arena, value))
        return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                           "%s: sum of deltas is too large", rule->projection->table);
    } else if (!add_to(rule->projection, column, value, &change->values[i], arena, ret_failure)) {
      return false;
    }
  }
  return true;
}

/* A delta finds no row if the row is marked as deleted; by now the mark may be known. */
static bool expect_no_mark(FoldedRow *row, Failure *ret_failure) {
  const Projection *projection = row->projection;
  if (projection->mark < 0)
    return true;
  unsigned index = (unsigned)projection->mark - projection->key_count;
  if (row->modes[index] == COLUMN_KEEP)
    row->unmarked = true;
  return row->modes[index] == COLUMN_KEEP || row->updates[index].kind == VALUE_NULL ||
         row_missing(row->projection, ret_failure);
}

static bool fold_assignments(Fold *fold, const Change *change, Failure *ret_failure) {
  FoldedRow *row = open_row(fold, change);
  if (row->write && is_delta(change) && is_marked(row))
    return row_missing(row->projection, ret_failure);
  if (row->write)
    return fold_into_known(row, change, fold->arena, ret_failure);
  if (row->remove)
    return row_missing(row->projection, ret_failure);
  if (needs_new_step(row, change))
    row = open_row_behind(fold, row, change);
  if (is_delta(change) && !expect_no_mark(row, ret_failure))
    return false;
  return fold_into_unknown(row, change, fold->arena, ret_failure);
}

/* A row that does not exist needs no mark. A write that may keep the row's mark is followed by a
 * newer one, which is not kept out. */
static bool fold_mark(Fold *fold, const Change *change, Failure *ret_failure) {
  FoldedRow *row = open_row(fold, change);
  if (row->write && row->keep_mark && !change->keep_mark)
    row = open_row_behind(fold, row, change);
  if (row->write)
    return (change->keep_mark && is_marked(row)) ||
           fold_into_known(row, change, fold->arena, ret_failure);
  if (row->remove)
    return true;
  if ((change->keep_mark && row->update) || needs_new_step(row, change))
    row = open_row_behind(fold, row, change);
  row->unmarked |= change->keep_mark;
  return fold_into_unknown(row, change, fold->arena, ret_failure);
}

static void fold_statement(Fold *fold, const Change *change) {
  if (fold->ordered || !change->key) {
    end_steps(fold);
    add_step(fold, 0, change);
    end_steps(fold);
    return;
  }
  const FoldedRow probe = {.projection = change->rule->projection, .key = change->key};
  FoldedRow *row = g_hash_table_lookup(fold->rows, &probe);
  if (row)
    fold->level = MAX(fold->level, row->level);
  if (!row || row->level < fold->level)
    row = begin_row(fold, change);
  row->ended = true;
  add_step(fold, fold->level, change);
  fold->level++;
}

static bool fold_change(Fold *fold, const Change *change, Failure *ret_failure) {
  FoldedRow *row;
  switch (change->rule->operation) {
  case OP_UPSERT:
    row = open_row(fold, change);
    row->write = true;
    row->keep_mark = change->keep_mark && !row->remove;
    take_children(row, change);
    memcpy(row->row, change->values,
           (row->projection->column_count - row->projection->key_count) * sizeof(Value));
    return true;
  case OP_DELETE:
    if (change->rule->soft)
      return fold_mark(fold, change, ret_failure);
    row = open_row(fold, change);
    row->write = false;
    row->remove = true;
    remove_children(row);
    return true;
  case OP_UPDATE:
  case OP_ADD:
  case OP_SUBTRACT: return fold_assignments(fold, change, ret_failure);
  case OP_SQL: fold_statement(fold, change); return true;
  case OP_IGNORE: return true;
  }
  return false;
}

bool fold_add(Fold *fold, const ChangeList *changes, const Aggregate *aggregate,
              Failure *ret_failure) {
  fold->ordered = !aggregate;
  if (fold->ordered && g_hash_table_size(fold->aggregates) > 0)
    end_steps(fold);
  fold->level = aggregate ? GPOINTER_TO_UINT(g_hash_table_lookup(fold->aggregates, aggregate)) : 0;
  for (unsigned i = 0; i < changes->count; i++)
    if (!fold_change(fold, &changes->changes[i], ret_failure))
      return false;
  if (fold->level > 0)
    g_hash_table_insert(fold->aggregates, (gpointer)aggregate, GUINT_TO_POINTER(fold->level));
  return true;
}

/* children_compare.c - compares the rows of a child table with those it should have. */
#include "projector/domain/children_compare.h"

#include "projector/domain/row_compare.h"

static bool is_equal(const Projection *child, const ChildRow *wanted, const Value *row,
                     const ChildrenThere *there) {
  for (unsigned i = child->key_count; i < child->column_count; i++) {
    const Column *column = &child->columns[i];
    if ((column->compare || !there->compared_only) &&
        !column_equal(column, &wanted->values[i - child->key_count], &row[i], there->json_slack))
      return false;
  }
  return true;
}

static void add_step(GArray *steps, ChildTask task, const Value *row, const ChildRow *now) {
  ChildStep step = {task, row, now};
  g_array_append_val(steps, step);
}

GArray *child_rows_compare(const Projection *child, const ChildRows *wanted,
                           const ChildrenThere *there) {
  GArray *steps = g_array_new(FALSE, TRUE, sizeof(ChildStep));
  g_autofree ValueKey *keys = g_new(ValueKey, there->count + 1);
  g_autoptr(GHashTable) left = g_hash_table_new(value_key_hash, value_key_equal);
  for (unsigned i = 0; i < there->count; i++) {
    keys[i] = (ValueKey){there->rows[i], child->key_count};
    g_hash_table_add(left, &keys[i]);
  }
  for (unsigned i = 0; i < wanted->count; i++) {
    const ChildRow *now = &wanted->rows[i];
    const ValueKey key = {now->key, child->key_count};
    const ValueKey *found = there->replaced ? NULL : g_hash_table_lookup(left, &key);
    if (!found)
      add_step(steps, CHILD_ADD, NULL, now);
    else if (!is_equal(child, now, found->values, there))
      add_step(steps, CHILD_OVERWRITE, found->values, now);
    if (found)
      g_hash_table_remove(left, &key);
  }
  for (unsigned i = 0; i < there->count; i++)
    if (g_hash_table_contains(left, &keys[i]))
      add_step(steps, CHILD_REMOVE, there->rows[i], NULL);
  return steps;
}

static unsigned number_of(const Projection *child) {
  unsigned at = 0;
  while (child->parent->children[at] != child)
    at++;
  return at;
}

void child_rows_fold(const Projection *child, const FoldedRow *parent, const ChildrenThere *there,
                     Arena *arena, GPtrArray *rows) {
  g_autoptr(GArray) steps = child_rows_compare(child, parent->children[number_of(child)], there);
  for (guint i = 0; i < steps->len; i++) {
    const ChildStep *step = &g_array_index(steps, ChildStep, i);
    FoldedRow *row = arena_alloc(arena, 1, sizeof *row);
    row->projection = child;
    row->remove = step->task == CHILD_REMOVE;
    row->write = !row->remove;
    row->fresh = step->task == CHILD_ADD;
    row->key = step->now ? step->now->key : (Value *)step->row;
    row->row = step->now ? step->now->values : NULL;
    g_ptr_array_add(rows, row);
  }
}

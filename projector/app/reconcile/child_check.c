/* child_check.c - compares the rows of child tables with the arrays of entities. */
#include "projector/app/reconcile/child_check.h"

#include "projector/domain/children_compare.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

static void set_free(gpointer set) {
  child_set_free(set);
}

void child_tables_free(ChildTables *tables) {
  if (!tables)
    return;
  g_ptr_array_unref(tables->sets);
  g_free(tables);
}

ChildTables *child_tables_read(Stores *stores, const Layout *layout, const Value *const *keys,
                               size_t count, Arena *arena, Failure *ret_failure) {
  const Projection *projection = layout->projection;
  g_autoptr(ChildTables) tables = g_new0(ChildTables, 1);
  tables->sets = g_ptr_array_new_with_free_func(set_free);
  for (unsigned i = 0; i < projection->child_count; i++) {
    ChildSet *set =
        child_set_read(stores->session, projection->children[i], keys, count, arena, ret_failure);
    if (!set)
      return NULL;
    g_ptr_array_add(tables->sets, set);
  }
  return g_steal_pointer(&tables);
}

static GArray *compare_child(const ChildTables *tables, const Layout *layout,
                             const Expected *expected, unsigned at) {
  const GPtrArray *rows = child_set_find(tables->sets->pdata[at], expected->values);
  const ChildrenThere there = {.rows = rows ? (const Value *const *)rows->pdata : NULL,
                               .count = rows ? rows->len : 0,
                               .compared_only = true,
                               .json_slack = layout->json_slack};
  return child_rows_compare(layout->projection->children[at], expected->children[at], &there);
}

static bool are_equal(const ChildTables *tables, const Layout *layout, const Expected *expected) {
  for (unsigned i = 0; expected->children && i < layout->projection->child_count; i++) {
    g_autoptr(GArray) steps = compare_child(tables, layout, expected, i);
    if (steps->len > 0)
      return false;
  }
  return true;
}

void child_tables_judge(const ChildTables *tables, const Layout *layout, const Expected *expected,
                        Sight *sight) {
  if (sight->equal)
    sight->equal = are_equal(tables, layout, expected);
  else if (expected->absent && !sight->row)
    sight->strays = !are_equal(tables, layout, expected);
}

/* The row's values in the order of the projection's columns, as the layout reads them. */
static Value *in_layout(const Layout *child, const Value *key, const Value *values, Arena *arena) {
  Value *row = arena_alloc(arena, child->count, sizeof *row);
  for (unsigned i = 0; i < child->count; i++) {
    ptrdiff_t at = child->columns[i] - child->projection->columns;
    row[i] = at < (ptrdiff_t)child->key_count ? key[at] : values[at - (ptrdiff_t)child->key_count];
  }
  return row;
}

static Difference difference_of(const Layout *child, const ChildStep *step, const Difference *like,
                                Arena *arena) {
  static const DifferenceKind kinds[] = {[CHILD_REMOVE] = DIFFERENCE_EXTRA_ROW,
                                         [CHILD_ADD] = DIFFERENCE_MISSING_ROW,
                                         [CHILD_OVERWRITE] = DIFFERENCE_COLUMNS};
  Difference difference = *like;
  difference.kind = kinds[step->task];
  difference.layout = child;
  difference.key = step->now ? step->now->key : step->row;
  difference.reason = NULL;
  difference.expected = NULL;
  difference.row = NULL;
  if (step->task == CHILD_OVERWRITE) {
    g_assert(step->now);
    Expected *expected = arena_alloc(arena, 1, sizeof *expected);
    expected->values = in_layout(child, step->now->key, step->now->values, arena);
    expected->known = arena_alloc(arena, child->count, sizeof(bool));
    memset(expected->known, true, child->count * sizeof(bool));
    difference.expected = expected;
    difference.row = in_layout(child, step->row, step->row + child->key_count, arena);
  }
  return difference;
}

void child_tables_differ(const ChildTables *tables, const Layout *layout, const Expected *expected,
                         const Difference *like, Arena *arena, GArray *differences) {
  for (unsigned i = 0; expected->children && i < layout->projection->child_count; i++) {
    g_autoptr(GArray) steps = compare_child(tables, layout, expected, i);
    for (guint k = 0; k < steps->len; k++) {
      Difference difference =
          difference_of(&layout->children[i], &g_array_index(steps, ChildStep, k), like, arena);
      g_array_append_val(differences, difference);
    }
  }
}

/* --- the pass over the rows ------------------------------------------------------------------- */

Layout child_layout_by_parent(const Projection *child, Arena *arena) {
  unsigned count = child->parent->key_count;
  Layout layout = {.projection = child,
                   .key_count = count,
                   .count = count,
                   .columns = arena_alloc(arena, count, sizeof *layout.columns),
                   .mark = -1,
                   .of_mark = arena_alloc(arena, count, sizeof(bool)),
                   .by_parent = true};
  for (unsigned i = 0; i < count; i++)
    layout.columns[i] = &child->columns[i];
  return layout;
}

/* Sets `ret_there[i]` where the parent of the child table has a row with that key. */
static bool find_parents(Stores *stores, const Projection *child, const Value *const *keys,
                         size_t count, bool *ret_there, Arena *arena, Failure *ret_failure) {
  Layout layout = child_layout_by_parent(child, arena);
  g_autoptr(RowSet) set = row_set_new(arena);
  layout.projection = child->parent;
  if (!rows_find(stores->session, &layout, keys, count, set, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    ret_there[i] = row_set_find(set, keys[i]) != NULL;
  return true;
}

bool child_rows_of_each(Stores *stores, const Layout *child, GArray *differences, Arena *arena,
                        Failure *ret_failure) {
  g_autoptr(GArray) each = g_array_new(FALSE, TRUE, sizeof(Difference));
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  g_autoptr(GHashTable) seen = g_hash_table_new_full(value_key_hash, value_key_equal, g_free, NULL);
  for (guint i = 0; i < differences->len; i++)
    g_ptr_array_add(keys, (gpointer)g_array_index(differences, Difference, i).key);
  g_autoptr(ChildSet) set =
      child_set_read(stores->session, child->projection, (const Value *const *)keys->pdata,
                     keys->len, arena, ret_failure);
  g_autofree bool *there = g_new0(bool, keys->len + 1);
  /* A marked row of a deleted entity keeps its children. */
  if (set && child->projection->parent->soft_rule &&
      !find_parents(stores, child->projection, (const Value *const *)keys->pdata, keys->len, there,
                    arena, ret_failure))
    return false;
  for (guint i = 0; set && i < differences->len; i++) {
    Difference difference = g_array_index(differences, Difference, i);
    if (there[i])
      continue;
    ValueKey *key = g_new(ValueKey, 1);
    *key = (ValueKey){difference.key, child->projection->parent->key_count};
    const GPtrArray *rows =
        g_hash_table_add(seen, key) ? child_set_find(set, difference.key) : NULL;
    for (guint k = 0; rows && k < rows->len; k++) {
      difference.layout = child;
      difference.key = rows->pdata[k];
      difference.orphan = true;
      g_array_append_val(each, difference);
    }
  }
  g_array_set_size(differences, 0);
  g_array_append_vals(differences, each->data, each->len);
  return set != NULL;
}

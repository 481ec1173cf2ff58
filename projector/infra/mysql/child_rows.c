/* child_rows.c - reads children by their parent's key, and finds the deletes and inserts that
 * replace them. */
#include "projector/infra/mysql/child_rows.h"

#include "projector/domain/children_compare.h"
#include "projector/infra/mysql/literal.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

struct ChildSet {
  GHashTable *by_parent; /* ValueKey → GPtrArray of Value * */
};

static ChildSet *child_set_new(void) {
  ChildSet *set = g_new0(ChildSet, 1);
  set->by_parent = g_hash_table_new_full(value_key_hash, value_key_equal, NULL,
                                         (GDestroyNotify)g_ptr_array_unref);
  return set;
}

void child_set_free(ChildSet *set) {
  if (!set)
    return;
  g_hash_table_unref(set->by_parent);
  g_free(set);
}

const GPtrArray *child_set_find(const ChildSet *set, const Value *parent_key) {
  GHashTableIter iter;
  gpointer first;
  g_hash_table_iter_init(&iter, set->by_parent);
  if (!g_hash_table_iter_next(&iter, &first, NULL))
    return NULL;
  const ValueKey key = {parent_key, ((const ValueKey *)first)->count};
  return g_hash_table_lookup(set->by_parent, &key);
}

static void add_to_set(ChildSet *set, const Projection *child, const GPtrArray *rows,
                       Arena *arena) {
  for (guint i = 0; i < rows->len; i++) {
    const ValueKey probe = {rows->pdata[i], child->parent->key_count};
    GPtrArray *of_parent = g_hash_table_lookup(set->by_parent, &probe);
    if (!of_parent) {
      ValueKey *key = arena_alloc(arena, 1, sizeof *key);
      *key = probe;
      of_parent = g_ptr_array_new();
      g_hash_table_insert(set->by_parent, key, of_parent);
    }
    g_ptr_array_add(of_parent, rows->pdata[i]);
  }
}

/* All columns, whether they are compared or not. */
static Layout layout_of_all(const Projection *child, Arena *arena) {
  Layout layout = {.projection = child,
                   .key_count = child->parent->key_count,
                   .count = child->column_count,
                   .columns = arena_alloc(arena, child->column_count, sizeof *layout.columns),
                   .mark = -1};
  for (unsigned i = 0; i < child->column_count; i++)
    layout.columns[i] = &child->columns[i];
  return layout;
}

ChildSet *child_set_read(Session *session, const Projection *child, const Value *const *parent_keys,
                         size_t count, Arena *arena, Failure *ret_failure) {
  const Layout layout = layout_of_all(child, arena);
  g_autoptr(GPtrArray) rows = g_ptr_array_new();
  g_autoptr(ChildSet) set = child_set_new();
  if (!rows_list(session, &layout, parent_keys, count, arena, rows, ret_failure))
    return NULL;
  add_to_set(set, child, rows, arena);
  return g_steal_pointer(&set);
}

/* --- replacing ------------------------------------------------------------------------------ */

static bool expand_child(Session *session, const Projection *child, const GPtrArray *parents,
                         Arena *arena, GPtrArray *rows, Failure *ret_failure) {
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  for (guint i = 0; i < parents->len; i++)
    g_ptr_array_add(keys, ((const FoldedRow *)parents->pdata[i])->key);
  g_autoptr(ChildSet) set = session
                                ? child_set_read(session, child, (const Value *const *)keys->pdata,
                                                 keys->len, arena, ret_failure)
                                : child_set_new();
  for (guint i = 0; set && i < parents->len; i++) {
    const FoldedRow *parent = parents->pdata[i];
    const GPtrArray *found = child_set_find(set, parent->key);
    const ChildrenThere there = {.rows = found ? (const Value *const *)found->pdata : NULL,
                                 .count = found ? found->len : 0,
                                 .replaced = parent->remove};
    child_rows_fold(child, parent, &there, arena, rows);
  }
  return set != NULL;
}

/* The child tables of the rows, each one once. */
static GPtrArray *children_of(const GPtrArray *rows) {
  GPtrArray *children = g_ptr_array_new();
  const Projection *last = NULL;
  for (guint i = 0; i < rows->len; i++) {
    const Projection *projection = ((const FoldedRow *)rows->pdata[i])->projection;
    for (unsigned k = 0; projection != last && k < projection->child_count; k++)
      if (!g_ptr_array_find(children, projection->children[k], NULL))
        g_ptr_array_add(children, projection->children[k]);
    last = projection;
  }
  return children;
}

static unsigned number_of(const Projection *child) {
  unsigned at = 0;
  while (child->parent->children[at] != child)
    at++;
  return at;
}

bool child_rows_expand(Session *session, GPtrArray *rows, Arena *arena, Failure *ret_failure) {
  g_autoptr(GPtrArray) children = children_of(rows);
  guint count = rows->len;
  for (guint i = 0; i < children->len; i++) {
    const Projection *child = children->pdata[i];
    g_autoptr(GPtrArray) parents = g_ptr_array_new();
    unsigned at = number_of(child);
    for (guint k = 0; k < count; k++) {
      FoldedRow *row = rows->pdata[k];
      if (row->projection == child->parent && row->children[at])
        g_ptr_array_add(parents, row);
    }
    if (parents->len > 0 && !expand_child(session, child, parents, arena, rows, ret_failure))
      return false;
  }
  return true;
}

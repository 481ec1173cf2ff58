/* children.c - arrays become rows. */
#include "projector/domain/children.h"

#include "projector/domain/describe.h"

#include <string.h>

const ChildRows no_child_rows = {0, NULL};

/* --- mapping -------------------------------------------------------------------------------- */

static bool find_items(const Projection *child, const ChildItems *from, bson_iter_t *ret_items,
                       bool *ret_none, Failure *ret_failure) {
  char found[DESCRIPTION_SIZE] = "nothing";
  bson_iter_t iter;
  bool there = source_find(from->items, from->event, &iter);
  *ret_none = from->of_entity && (!there || BSON_ITER_HOLDS_NULL(&iter));
  if (*ret_none)
    return true;
  if (there && BSON_ITER_HOLDS_ARRAY(&iter))
    return bson_iter_recurse(&iter, ret_items);
  if (there)
    bson_describe(&iter, found, sizeof found);
  g_autofree char *names = source_names(from->items);
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                     "%s: expected an array for child table %s, found %s", names, child->table,
                     found);
}

/* `$index` as a document with one value, which lives as long as the arena. */
static void set_index(Event *view, int32_t index, Arena *arena) {
  bson_t document = BSON_INITIALIZER;
  BSON_APPEND_INT32(&document, "index", index);
  view->item_index = (const uint8_t *)arena_copy(arena, bson_get_data(&document), document.len);
  view->item_index_length = document.len;
  bson_destroy(&document);
}

static bool map_item(const Projection *child, const Event *view, const Value *parent_key,
                     Arena *arena, ChildRow *row, Failure *ret_failure) {
  unsigned shared = child->parent->key_count;
  row->key = arena_alloc(arena, child->key_count, sizeof(Value));
  row->values = arena_alloc(arena, child->column_count - child->key_count, sizeof(Value));
  memcpy(row->key, parent_key, shared * sizeof(Value));
  for (unsigned i = shared; i < child->column_count; i++) {
    const Column *column = &child->columns[i];
    Value *value = i < child->key_count ? &row->key[i] : &row->values[i - child->key_count];
    if (!value_for_column(view, &column->from, column, arena, value, ret_failure))
      return false;
  }
  return true;
}

static void append_key(GString *text, const Projection *child, const Value *key) {
  for (unsigned i = child->parent->key_count; i < child->key_count; i++) {
    g_string_append_printf(text, "%s%s ", text->len ? ", " : "", child->columns[i].name);
    value_append_text(text, &key[i]);
  }
}

/* Two items with the same key would become one row, and one of them would be lost. */
static bool check_keys(const Projection *child, const Source *items, const ChildRows *rows,
                       Failure *ret_failure) {
  g_autoptr(GHashTable) seen = g_hash_table_new_full(value_key_hash, value_key_equal, g_free, NULL);
  for (unsigned i = 0; i < rows->count; i++) {
    ValueKey *key = g_new(ValueKey, 1);
    *key = (ValueKey){rows->rows[i].key, child->key_count};
    gpointer before;
    if (g_hash_table_lookup_extended(seen, key, NULL, &before)) {
      g_autoptr(GString) text = g_string_new(NULL);
      append_key(text, child, key->values);
      g_free(key);
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "%s: expected items with keys of their own in child table %s, found items "
                         "%u and %u with one key: \"%.100s\"",
                         items->text, child->table, GPOINTER_TO_UINT(before), i, text->str);
    }
    g_hash_table_insert(seen, key, GUINT_TO_POINTER(i));
  }
  return true;
}

bool child_rows_map(const Projection *child, const ChildItems *from, Arena *arena,
                    const ChildRows **ret_rows, Failure *ret_failure) {
  Event view = *from->event;
  bson_iter_t item, counting;
  bool none;
  *ret_rows = &no_child_rows;
  if (!find_items(child, from, &item, &none, ret_failure))
    return false;
  if (none)
    return true;
  ChildRows *rows = arena_alloc(arena, 1, sizeof *rows);
  for (counting = item; bson_iter_next(&counting);)
    rows->count++;
  rows->rows = arena_alloc(arena, rows->count, sizeof *rows->rows);
  view.item = &item;
  for (unsigned i = 0; bson_iter_next(&item); i++) {
    set_index(&view, (int32_t)i, arena);
    if (!map_item(child, &view, from->parent_key, arena, &rows->rows[i], ret_failure))
      return failure_prefix(ret_failure, "%s, item %u of %s", child->table, i, from->items->text);
  }
  *ret_rows = rows;
  return check_keys(child, from->items, rows, ret_failure);
}

/* rows_text.c - an aggregate's rows in words. */
#include "projector/app/reconcile/rows_text.h"

#include "projector/domain/entity.h"
#include "projector/infra/mysql/rows.h"

static void append_row(GString *text, const Layout *layout, const Value *row) {
  g_string_append_printf(text, "%s%s:", text->len ? "; " : "", layout->projection->table);
  for (unsigned i = 0; i < layout->count; i++) {
    g_string_append_printf(text, "%s %s ", i ? "," : "", layout->columns[i]->name);
    value_append_text(text, &row[i]);
  }
}

static bool append_rows(Stores *stores, const Projection *projection, const Event *absent,
                        Arena *arena, GString *text, Failure *ret_failure) {
  g_autoptr(RowSet) set = row_set_new(arena);
  Layout layout;
  Failure unknown;
  Value *key = arena_alloc(arena, projection->key_count, sizeof *key);
  if (!layout_init(projection, arena, &layout, &unknown) ||
      !layout_map_key(&layout, absent, arena, key, &unknown))
    return true;
  if (!rows_find(stores->session, &layout, (const Value *const *)&key, 1, set, ret_failure))
    return false;
  for (guint i = 0; i < set->rows->len; i++)
    append_row(text, &layout, set->rows->pdata[i]);
  return true;
}

bool rows_text(Stores *stores, const Aggregate *aggregate, char **ret_text, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GString) text = g_string_new(NULL);
  const bson_t nothing = BSON_INITIALIZER;
  g_autoptr(Event) absent = entity_as_event(&nothing, aggregate, 0, INT64_MIN);
  for (unsigned i = 0; i < mapping_projection_count(stores->config->mapping); i++) {
    const Projection *projection = mapping_projection(stores->config->mapping, i);
    if (projection_is_of(projection, aggregate->type, aggregate->type_length) &&
        !append_rows(stores, projection, absent, arena, text, ret_failure))
      return false;
  }
  *ret_text = g_utf8_make_valid(text->str, (gssize)text->len);
  return true;
}

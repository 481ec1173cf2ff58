/* row_compare.c - compares a row with its entity. */
#include "projector/domain/row_compare.h"

#include "projector/domain/json_number.h"
#include "projector/domain/key.h"
#include "projector/domain/mark.h"
#include "projector/domain/real.h"

#include <string.h>

const char *difference_name(DifferenceKind kind) {
  static const char *const names[] = {
      [DIFFERENCE_NONE] = "none",
      [DIFFERENCE_MISSING_ROW] = "missing row",
      [DIFFERENCE_EXTRA_ROW] = "extra row",
      [DIFFERENCE_COLUMNS] = "different columns",
      [DIFFERENCE_UNMAPPABLE] = "unmappable entity",
      [DIFFERENCE_POSITION_AHEAD] = "position ahead of entity",
      [DIFFERENCE_POSITION_BEHIND] = "position behind entity",
      [DIFFERENCE_APPLIED_EVENT] = "applied event in outbox",
      [DIFFERENCE_DEAD_EVENT] = "dead event",
  };
  return names[kind];
}

/* --- layout --------------------------------------------------------------------------------- */

bool layout_init(const Projection *projection, Arena *arena, Layout *ret_layout,
                 Failure *ret_failure) {
  Layout layout = {.projection = projection,
                   .key_count = projection->key_count,
                   .columns = arena_alloc(arena, projection->column_count, sizeof *layout.columns),
                   .mark = -1,
                   .of_mark = arena_alloc(arena, projection->column_count, sizeof(bool))};
  for (unsigned i = 0; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    if (i < projection->key_count && !source_is_of_entity(&column->from))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: its key %s comes from %s, which belongs to an event; rows can only "
                         "be compared with entities if these contain their key",
                         projection->table, column->name, column->from.text);
    bool is_mark = (int)i == projection->mark;
    if (i >= projection->key_count && !column->compare && !is_mark)
      continue;
    if (is_mark)
      layout.mark = (int)layout.count;
    layout.of_mark[layout.count] = mark_sets(projection, column);
    layout.columns[layout.count++] = column;
  }
  Layout *children = arena_alloc(arena, projection->child_count, sizeof *children);
  for (unsigned i = 0; i < projection->child_count; i++)
    if (!layout_init(projection->children[i], arena, &children[i], ret_failure))
      return false;
  layout.children = children;
  *ret_layout = layout;
  return true;
}

bool layout_map_key(const Layout *layout, const Event *entity, Arena *arena, Value *ret_key,
                    Failure *ret_failure) {
  for (unsigned i = 0; i < layout->key_count; i++)
    if (!key_map(entity, layout->columns[i], arena, &ret_key[i], ret_failure))
      return false;
  return true;
}

static bool map_children(const Projection *projection, const Event *entity, Arena *arena,
                         Expected *expected, Failure *ret_failure) {
  expected->children = arena_alloc(arena, projection->child_count, sizeof *expected->children);
  for (unsigned i = 0; i < projection->child_count; i++) {
    const Projection *child = projection->children[i];
    expected->children[i] = &no_child_rows;
    const ChildItems from = {
        .items = &child->items, .event = entity, .parent_key = expected->values, .of_entity = true};
    if (!expected->absent &&
        !child_rows_map(child, &from, arena, &expected->children[i], ret_failure))
      return false;
  }
  return true;
}

bool layout_map(const Layout *layout, const Event *entity, Arena *arena, Expected *ret_expected,
                Failure *ret_failure) {
  const Condition *when = layout->projection->when;
  Expected expected = {.values = arena_alloc(arena, layout->count, sizeof(Value)),
                       .known = arena_alloc(arena, layout->count, sizeof(bool))};
  bool wanted = true;
  if (when && !condition_holds(when, entity, &wanted, ret_failure))
    return false;
  expected.absent = !wanted;
  for (unsigned i = 0; i < (wanted ? layout->count : layout->key_count); i++) {
    const Column *column = layout->columns[i];
    Value *value = &expected.values[i];
    expected.known[i] = source_known(&column->from, entity);
    if (expected.known[i] &&
        !(i < layout->key_count
              ? key_map(entity, column, arena, value, ret_failure)
              : value_for_column(entity, &column->from, column, arena, value, ret_failure)))
      return false;
  }
  if (layout->projection->child_count > 0 &&
      !map_children(layout->projection, entity, arena, &expected, ret_failure))
    return false;
  *ret_expected = expected;
  return true;
}

bson_t *layout_key_fields(const Layout *layout) {
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  bool all = false;
  for (unsigned i = 0; i < layout->key_count; i++)
    all |= !source_add_fields(&layout->columns[i]->from, names);
  if (all)
    return NULL;
  bson_t *fields = bson_new();
  BSON_APPEND_INT32(fields, "_id", 1);
  for (guint i = 0; i < names->len; i++)
    if (!bson_has_field(fields, names->pdata[i]))
      BSON_APPEND_INT32(fields, names->pdata[i], 1);
  return fields;
}

/* --- comparing ------------------------------------------------------------------------------ */

static bool json_same(const Column *column, const Value *a, const Value *b, unsigned slack) {
  if (a->kind != VALUE_TEXT || b->kind != VALUE_TEXT)
    return false;
  if (!column->type.plain)
    return json_text_same(a->text, a->length, b->text, b->length, slack);
  g_autoptr(GString) x = json_wide_as_texts(a->text, a->length);
  g_autoptr(GString) y = json_wide_as_texts(b->text, b->length);
  return json_text_same(x->str, x->len, y->str, y->len, slack);
}

bool column_equal(const Column *column, const Value *expected, const Value *found,
                  unsigned json_slack) {
  return value_equal(expected, found) ||
         (column->type.kind == TYPE_JSON && json_same(column, expected, found, json_slack));
}

bool layout_is_marked(const Layout *layout, const Value *row) {
  return layout->mark >= 0 && mark_is_set(&row[layout->mark]);
}

bool layout_differs(const Layout *layout, const Expected *expected, const Value *row,
                    unsigned index) {
  const Column *column = layout->columns[index];
  if (!expected->known[index])
    return false;
  if (layout->of_mark[index]) {
    bool entity = layout_is_marked(layout, expected->values);
    bool both = entity && layout_is_marked(layout, row);
    if (both || (int)index == layout->mark)
      return !both && entity != layout_is_marked(layout, row);
  }
  return (index < layout->key_count || column->compare) &&
         !column_equal(column, &expected->values[index], &row[index], layout->json_slack);
}

bool layout_equal(const Layout *layout, const Expected *expected, const Value *row) {
  if (expected->absent)
    return false;
  for (unsigned i = 0; i < layout->count; i++)
    if (layout_differs(layout, expected, row, i))
      return false;
  return true;
}

/* --- deciding ------------------------------------------------------------------------------- */

/* Pending events explain any difference except one: no event can be applied before its entity
 * change exists, so a position ahead of the entity is always wrong. */
Decision difference_decide(const Sight *sight) {
  const Position *position = &sight->position;
  int64_t applied = position->known ? position->max_version : 0;
  int64_t highest = MAX(applied, MAX(position->last.version, position->refreshed_version));
  bool versions = sight->entity && sight->version > 0 && applied > 0;
  Decision decision = {0};
  if (versions && highest > sight->version)
    decision.position = DIFFERENCE_POSITION_AHEAD;
  else if (versions && applied < sight->version)
    decision.position = DIFFERENCE_POSITION_BEHIND;
  bool shown = sight->entity && !sight->absent;
  if (shown && !sight->row)
    decision.row = DIFFERENCE_MISSING_ROW;
  else if (!shown && (sight->row || sight->strays))
    decision.row = DIFFERENCE_EXTRA_ROW;
  else if (shown && !sight->equal)
    decision.row = DIFFERENCE_COLUMNS;
  if (sight->pending) {
    bool behind = decision.position == DIFFERENCE_POSITION_BEHIND;
    decision.lagging = decision.row != DIFFERENCE_NONE || behind;
    decision.row = DIFFERENCE_NONE;
    if (behind)
      decision.position = DIFFERENCE_NONE;
  } else if (decision.row != DIFFERENCE_NONE && decision.position == DIFFERENCE_POSITION_BEHIND) {
    decision.position = DIFFERENCE_NONE; /* the row's difference says it already */
  }
  return decision;
}

/* --- from a row back to its aggregate ------------------------------------------------------- */

static unsigned ids_of_uuid(const Value *value, Arena *arena, Id ids[static AGGREGATE_IDS]) {
  Id uuid = {.kind = ID_UUID, .length = 16, .bytes = value->bytes};
  char text[ID_TEXT_SIZE];
  size_t length = id_text(&uuid, text);
  char *lower = arena_copy(arena, text, length), *upper = arena_copy(arena, text, length);
  for (size_t i = 0; i < length; i++)
    upper[i] = g_ascii_toupper(upper[i]);
  ids[0] = uuid;
  ids[1] = (Id){.kind = ID_STRING, .length = (uint32_t)length, .bytes = (const uint8_t *)lower};
  ids[2] = (Id){.kind = ID_STRING, .length = (uint32_t)length, .bytes = (const uint8_t *)upper};
  return 3;
}

static unsigned ids_of_value(TypeKind kind, const Value *value, Arena *arena,
                             Id ids[static AGGREGATE_IDS]) {
  if (value->kind == VALUE_TEXT && type_is_text(kind))
    return ids_from_text(value->text, value->length, arena_alloc(arena, 16, 1), ids);
  if (value->kind == VALUE_INT || (value->kind == VALUE_UINT && value->natural <= INT64_MAX)) {
    ids[0] = (Id){.kind = ID_INT, .number = value->integer};
    return 1;
  }
  if (kind == TYPE_UUID && value->kind == VALUE_BINARY && value->length == 16)
    return ids_of_uuid(value, arena, ids);
  if (value->kind == VALUE_BINARY && (value->length == 16 || value->length == 12)) {
    ids[0] = (Id){.kind = value->length == 16 ? ID_UUID : ID_OBJECTID,
                  .length = value->length,
                  .bytes = value->bytes};
    return 1;
  }
  return 0;
}

unsigned aggregate_ids_of(const Layout *layout, const Value *key, Arena *arena,
                          Id ret_ids[static AGGREGATE_IDS]) {
  for (unsigned i = 0; i < layout->key_count; i++)
    if (source_is_aggregate_id(&layout->columns[i]->from))
      return ids_of_value(layout->columns[i]->type.kind, &key[i], arena, ret_ids);
  return 0;
}

/* property_reference.c - a naive interpreter of the world's mapping: one event, one row at a
 * time. */
#include "tests/unit/property_reference.h"

#include <string.h>

/* --- conversion ------------------------------------------------------------------------------ */

static bool text_cell(const Model *model, const WorldType *type, Cell *ret_cell) {
  char text[32];
  if (model->kind == MODEL_TEXT && model->characters <= type->characters) {
    *ret_cell = (Cell){.kind = CELL_TEXT};
    g_strlcpy(ret_cell->text, model->text, sizeof ret_cell->text);
    return true;
  }
  if (model->kind != MODEL_NUMBER || (model->encoding != AS_INT32 && model->encoding != AS_INT64))
    return false;
  g_snprintf(text, sizeof text, "%lld", (long long)(model->cents / 100));
  *ret_cell = (Cell){.kind = CELL_TEXT};
  g_strlcpy(ret_cell->text, text, sizeof ret_cell->text);
  return strlen(text) <= type->characters;
}

static bool real_cell(const Model *model, Cell *ret_cell) {
  *ret_cell = (Cell){.kind = CELL_REAL, .real = (double)model->cents / 100};
  return model->kind == MODEL_NUMBER && model->encoding != AS_DECIMAL;
}

static bool number_cell(const Model *model, const WorldType *type, Cell *ret_cell) {
  *ret_cell = (Cell){.kind = CELL_NUMBER, .cents = model->cents};
  bool is_number = model->kind == MODEL_NUMBER || (model->numeric_text && type->reads_text);
  return is_number && model->cents % type->step == 0 && model->cents >= type->low &&
         model->cents <= type->high;
}

static bool convert(const WorldEvent *event, Field field, const WorldType *type, bool nullable,
                    Cell *ret_cell) {
  if (field == FIELD_AGGREGATE_ID) {
    *ret_cell = (Cell){.kind = CELL_TEXT};
    g_strlcpy(ret_cell->text, world_aggregate_id(event->aggregate), sizeof ret_cell->text);
    return true;
  }
  const Model *model = &event->fields[field];
  if (model->kind == MODEL_NULL || model->kind == MODEL_MISSING) {
    *ret_cell = (Cell){.kind = CELL_NULL};
    return nullable;
  }
  switch (type->family) {
  case FAMILY_TEXT: return text_cell(model, type, ret_cell);
  case FAMILY_REAL: return real_cell(model, ret_cell);
  case FAMILY_NUMBER: return number_cell(model, type, ret_cell);
  }
  return false;
}

/* --- one rule -------------------------------------------------------------------------------- */

static bool key_of(const WorldProjection *projection, const WorldEvent *event,
                   char key[static 96]) {
  key[0] = '\0';
  for (unsigned i = 0; i < projection->key_count; i++) {
    Cell cell;
    if (!convert(event, projection->keys[i].field, projection->keys[i].type, false, &cell))
      return false;
    key_append(key, &cell);
  }
  return true;
}

static bool upsert(const WorldProjection *projection, unsigned index, const char *key,
                   const WorldEvent *event, Table *table) {
  Row *row = table_open(table, index, key);
  for (unsigned i = 0; i < projection->column_count; i++) {
    const WorldColumn *column = &projection->columns[i];
    if (!convert(event, column->field, column->type, column->nullable, &row->cells[i]))
      return false;
  }
  return true;
}

static bool change(const WorldProjection *projection, const WorldRule *rule, Row *row,
                   const WorldEvent *event) {
  for (unsigned i = 0; i < rule->count; i++) {
    const WorldColumn *column = &projection->columns[rule->columns[i]];
    bool nullable = rule->operation == OP_UPDATE && column->nullable;
    Cell cell;
    if (!convert(event, rule->fields[i], column->type, nullable, &cell))
      return false;
    if (rule->operation == OP_SUBTRACT) {
      cell.cents = -cell.cents;
      cell.real = -cell.real;
    }
    if (rule->operation == OP_UPDATE)
      row->cells[rule->columns[i]] = cell;
    else if (!cell_add(&row->cells[rule->columns[i]], &cell, column->type))
      return false;
  }
  return true;
}

static bool apply_rule(const World *world, unsigned index, const WorldEvent *event, Table *table) {
  const WorldProjection *projection = &world->projections[index];
  const WorldRule *rule = &projection->rules[event->event_type];
  char key[96];
  if (rule->operation == OP_SQL && !rule->own_row)
    return table_empty(table, index);
  if (!key_of(projection, event, key))
    return false;
  Row *row = table_find(table, index, key);
  switch (rule->operation) {
  case OP_UPSERT: return upsert(projection, index, key, event, table);
  case OP_SQL: return row && cell_turn_sign(&row->cells[0], projection->columns[0].type);
  case OP_DELETE: table_remove(table, index, key); return true;
  default: return row && change(projection, rule, row, event);
  }
}

/* --- one event, all events ------------------------------------------------------------------- */

Outcome reference_apply(const World *world, const WorldEvent *event, Table *table) {
  bool named = false, changed = false, good = true;
  g_autofree Table *before = g_new(Table, 1);
  table_copy(before, table);
  for (unsigned i = 0; i < world->projection_count && good; i++) {
    const WorldProjection *projection = &world->projections[i];
    const WorldRule *rule = &projection->rules[event->event_type];
    if (projection->aggregate_type != world_aggregate_type(event->aggregate) || !rule->present)
      continue;
    named = true;
    if (rule->operation == OP_IGNORE)
      continue;
    changed = true;
    good = apply_rule(world, i, event, table);
  }
  if (good && (named || world->ignores_unknown))
    return changed ? OUTCOME_APPLIED : OUTCOME_IGNORED;
  table_copy(table, before);
  return OUTCOME_FAILED;
}

void reference_run(const World *world, Story *story) {
  unsigned order[WORLD_EVENTS];
  bool blocked[WORLD_AGGREGATES] = {false};
  world_order(world, order);
  for (unsigned i = 0; i < WORLD_AGGREGATES; i++)
    story->last[i] = -1;
  for (unsigned i = 0; i < world->event_count; i++) {
    const WorldEvent *event = &world->events[order[i]];
    if (blocked[event->aggregate])
      continue;
    Outcome outcome = reference_apply(world, event, &story->table);
    story->outcomes[order[i]] = outcome;
    blocked[event->aggregate] = outcome == OUTCOME_FAILED;
    if (outcome == OUTCOME_FAILED)
      continue;
    story->seen[event->aggregate] = true;
    if (outcome == OUTCOME_APPLIED)
      story->last[event->aggregate] = (int)order[i];
    if (event->version > story->max_version[event->aggregate])
      story->max_version[event->aggregate] = event->version;
  }
}

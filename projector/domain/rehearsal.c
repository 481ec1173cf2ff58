/* rehearsal.c - carries out folds on rows in memory. */
#include "projector/domain/rehearsal.h"

#include "projector/domain/children_compare.h"
#include "projector/domain/entity.h"
#include "projector/domain/mark.h"

#include <string.h>

typedef struct StoredEntity {
  const char *collection;
  bson_t *document;
} StoredEntity;

struct Rehearsal {
  const Mapping *mapping;
  Arena *arena;
  AggregateSet *aggregates;
  GPtrArray *events;   /* of Event */
  GPtrArray *folds;    /* of Fold */
  GPtrArray *rows;     /* of RehearsedRow in the arena; replaced, never changed */
  GPtrArray *entities; /* of StoredEntity */
  GHashTable *ids;     /* of events that took effect */
  bool statements;     /* one was met: there may be rows that are not known here */
};

static void entity_free(gpointer data) {
  StoredEntity *entity = data;
  bson_destroy(entity->document);
  g_free(entity);
}

Rehearsal *rehearsal_new(const Mapping *mapping) {
  Rehearsal *rehearsal = g_new0(Rehearsal, 1);
  rehearsal->mapping = mapping;
  rehearsal->arena = arena_new();
  rehearsal->aggregates = aggregate_set_new(rehearsal->arena);
  rehearsal->events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  rehearsal->folds = g_ptr_array_new_with_free_func((GDestroyNotify)fold_free);
  rehearsal->rows = g_ptr_array_new();
  rehearsal->entities = g_ptr_array_new_with_free_func(entity_free);
  rehearsal->ids = g_hash_table_new(id_hash_key, id_equal_key);
  return rehearsal;
}

void rehearsal_free(Rehearsal *rehearsal) {
  if (!rehearsal)
    return;
  g_hash_table_unref(rehearsal->ids);
  g_ptr_array_unref(rehearsal->entities);
  g_ptr_array_unref(rehearsal->rows);
  g_ptr_array_unref(rehearsal->folds);
  aggregate_set_free(rehearsal->aggregates);
  g_ptr_array_unref(rehearsal->events);
  arena_free(rehearsal->arena);
  g_free(rehearsal);
}

/* --- rows ----------------------------------------------------------------------------------- */

static int find_row(const GPtrArray *rows, const Projection *projection, const Value *key) {
  for (guint i = 0; i < rows->len; i++) {
    const RehearsedRow *row = rows->pdata[i];
    if (row->projection == projection && values_equal(row->values, key, projection->key_count))
      return (int)i;
  }
  return -1;
}

static const Value *values_at(const GPtrArray *rows, int index) {
  return ((const RehearsedRow *)rows->pdata[index])->values;
}

static void set_row(GPtrArray *rows, const Projection *projection, const Value *values,
                    Arena *arena) {
  int index = find_row(rows, projection, values);
  RehearsedRow *row = arena_alloc(arena, 1, sizeof *row);
  *row = (RehearsedRow){projection, values};
  if (index >= 0)
    rows->pdata[index] = row;
  else
    g_ptr_array_add(rows, row);
}

void rehearsal_put_row(Rehearsal *rehearsal, const Projection *projection, const Value *values) {
  Value *copy = arena_alloc(rehearsal->arena, projection->column_count, sizeof *copy);
  for (unsigned i = 0; i < projection->column_count; i++)
    copy[i] = value_copy(&values[i], rehearsal->arena);
  set_row(rehearsal->rows, projection, copy, rehearsal->arena);
}

void rehearsal_put_entity(Rehearsal *rehearsal, const char *collection, const bson_t *entity) {
  StoredEntity *stored = g_new(StoredEntity, 1);
  *stored = (StoredEntity){arena_copy(rehearsal->arena, collection, strlen(collection)),
                           bson_copy(entity)};
  g_ptr_array_add(rehearsal->entities, stored);
}

unsigned rehearsal_row_count(const Rehearsal *rehearsal) {
  return rehearsal->rows->len;
}

RehearsedRow rehearsal_row(const Rehearsal *rehearsal, unsigned index) {
  return *(const RehearsedRow *)rehearsal->rows->pdata[index];
}

const Value *rehearsal_find(const Rehearsal *rehearsal, const Projection *projection,
                            const Value *key) {
  int index = find_row(rehearsal->rows, projection, key);
  return index >= 0 ? values_at(rehearsal->rows, index) : NULL;
}

/* --- what a fold does ----------------------------------------------------------------------- */

static bool is_marked(const Projection *projection, const Value *values) {
  return projection->mark >= 0 && mark_is_set(&values[projection->mark]);
}

/* NULL plus something is not a number: such a row counts as missing. */
static bool add_delta(const FoldedRow *row, unsigned column, Value *value, Arena *arena,
                      Failure *ret_failure) {
  const Projection *projection = row->projection;
  const Column *target = &projection->columns[column];
  if (value->kind == VALUE_NULL)
    return row_missing(projection, ret_failure);
  return value_add(value, &row->updates[column - projection->key_count], target, arena, value) ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_MYSQL, 0,
                     "%s: expected a sum that fits %s %s, found one that does not",
                     projection->table, target->name, target->type.text);
}

static bool update_row(GPtrArray *rows, FoldedRow *row, Arena *arena, Failure *ret_failure) {
  const Projection *projection = row->projection;
  int index = find_row(rows, projection, row->key);
  row->missed = index < 0 || (row->unmarked && is_marked(projection, values_at(rows, index)));
  if (row->missed)
    return row->lenient || row_missing(projection, ret_failure);
  Value *values = arena_alloc(arena, projection->column_count, sizeof *values);
  memcpy(values, values_at(rows, index), projection->column_count * sizeof *values);
  for (unsigned i = projection->key_count; i < projection->column_count; i++) {
    unsigned at = i - projection->key_count;
    if (row->modes[at] == COLUMN_SET)
      values[i] = row->updates[at];
    else if (row->modes[at] == COLUMN_ADD && !add_delta(row, i, &values[i], arena, ret_failure))
      return false;
  }
  set_row(rows, projection, values, arena);
  return true;
}

static void write_row(GPtrArray *rows, const FoldedRow *row, Arena *arena) {
  const Projection *projection = row->projection;
  int index = find_row(rows, projection, row->key);
  Value *values = arena_alloc(arena, projection->column_count, sizeof *values);
  memcpy(values, row->key, projection->key_count * sizeof *values);
  if (projection->column_count > projection->key_count)
    memcpy(values + projection->key_count, row->row,
           (projection->column_count - projection->key_count) * sizeof *values);
  bool keep = row->keep_mark && index >= 0 && is_marked(projection, values_at(rows, index)) &&
              is_marked(projection, values);
  for (unsigned i = projection->key_count; keep && i < projection->column_count; i++)
    if (mark_sets(projection, &projection->columns[i]))
      values[i] = values_at(rows, index)[i];
  set_row(rows, projection, values, arena);
}

/* Adds the deletes and inserts that replace children to the rows of the step, as
 * infra/mysql/child_rows.c does with those in MySQL. */
static void expand_children(const GPtrArray *rows, const Step *step, Arena *arena) {
  guint count = step->rows->len;
  for (guint n = 0; n < count; n++) {
    FoldedRow *row = step->rows->pdata[n];
    for (unsigned k = 0; row->children && k < row->projection->child_count; k++) {
      const Projection *child = row->projection->children[k];
      g_autoptr(GPtrArray) found = g_ptr_array_new();
      for (guint i = 0; i < rows->len; i++) {
        const RehearsedRow *other = rows->pdata[i];
        if (other->projection == child &&
            values_equal(other->values, row->key, row->projection->key_count))
          g_ptr_array_add(found, (gpointer)other->values);
      }
      const ChildrenThere there = {
          .rows = (const Value *const *)found->pdata, .count = found->len, .replaced = row->remove};
      if (row->children[k])
        child_rows_fold(child, row, &there, arena, step->rows);
      row->children[k] = NULL;
    }
  }
}

/* The order is that of fold.h. */
static bool execute_step(GPtrArray *rows, const Step *step, Arena *arena, Failure *ret_failure) {
  expand_children(rows, step, arena);
  for (guint i = 0; i < step->rows->len; i++) {
    FoldedRow *row = step->rows->pdata[i];
    if (row->update && !update_row(rows, row, arena, ret_failure))
      return false;
  }
  for (guint i = 0; i < step->rows->len; i++) {
    FoldedRow *row = step->rows->pdata[i];
    int index = row->remove ? find_row(rows, row->projection, row->key) : -1;
    row->missed = row->remove ? index < 0 : row->missed;
    if (index >= 0)
      g_ptr_array_remove_index(rows, (guint)index);
  }
  for (guint i = 0; i < step->rows->len; i++) {
    const FoldedRow *row = step->rows->pdata[i];
    if (row->write)
      write_row(rows, row, arena);
  }
  return true;
}

static void doubt_missed(const Step *step) {
  for (guint i = 0; i < step->rows->len; i++)
    ((FoldedRow *)step->rows->pdata[i])->missed = false;
}

/* All or nothing, like a transaction. */
static bool execute(Rehearsal *rehearsal, const Fold *fold, bool *ret_statement,
                    Failure *ret_failure) {
  g_autoptr(GPtrArray) rows = g_ptr_array_new();
  g_ptr_array_extend(rows, rehearsal->rows, NULL, NULL);
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    if (step->statement)
      *ret_statement = rehearsal->statements = true;
    else if (!execute_step(rows, step, rehearsal->arena, ret_failure))
      return false;
    else if (rehearsal->statements)
      doubt_missed(step);
  }
  g_ptr_array_set_size(rehearsal->rows, 0);
  g_ptr_array_extend(rehearsal->rows, rows, NULL, NULL);
  return true;
}

/* --- late events ---------------------------------------------------------------------------- */

static const bson_t *find_entity(const Rehearsal *rehearsal, const char *collection,
                                 const Id *aggregate) {
  for (guint i = 0; i < rehearsal->entities->len; i++) {
    const StoredEntity *stored = rehearsal->entities->pdata[i];
    Id id;
    if (!strcmp(stored->collection, collection) && entity_id(stored->document, &id) &&
        id_equal(&id, aggregate))
      return stored->document;
  }
  return NULL;
}

/* The event's row as its entity shows it now, and the entity's version. */
static bool map_entity(Rehearsal *rehearsal, const Projection *projection, const Event *late,
                       Change *change, int64_t *version, Failure *ret_failure) {
  const bson_t *entity = find_entity(rehearsal, projection->entities, &late->aggregate.id);
  if (!entity)
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                       "late: `run` would take the row of %s from the entity in %s, and no such "
                       "entity is given here",
                       projection->table, projection->entities);
  int64_t shown = entity_version(entity);
  *version = MAX(*version, shown);
  Event *view =
      entity_as_event(entity, &late->aggregate, shown, entity_time(entity, late->key.occurred_at));
  g_ptr_array_add(rehearsal->events, view);
  return change_from_entity(projection, view, rehearsal->arena, change, ret_failure);
}

static bool refresh(Rehearsal *rehearsal, const Event *late, Fold *fold, int64_t *version,
                    Failure *ret_failure) {
  const Mapping *mapping = rehearsal->mapping;
  ChangeList list = {
      .changes = arena_alloc(rehearsal->arena, mapping_projection_count(mapping), sizeof(Change))};
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    if (projection_is_of(projection, late->aggregate.type, late->aggregate.type_length) &&
        !map_entity(rehearsal, projection, late, &list.changes[list.count++], version, ret_failure))
      return false;
  }
  return fold_add(fold, &list, NULL, ret_failure);
}

/* --- events --------------------------------------------------------------------------------- */

static Rehearsed fail(Rehearsal *rehearsal, const Failure *failure) {
  Failure *kept = arena_alloc(rehearsal->arena, 1, sizeof *kept);
  *kept = *failure;
  return (Rehearsed){.verdict = VERDICT_FAILED, .failure = kept};
}

static bool has_entity(const Rehearsal *rehearsal, const Event *event) {
  for (unsigned i = 0; i < mapping_projection_count(rehearsal->mapping); i++) {
    const Projection *projection = mapping_projection(rehearsal->mapping, i);
    if (projection->entities &&
        projection_is_of(projection, event->aggregate.type, event->aggregate.type_length) &&
        find_entity(rehearsal, projection->entities, &event->aggregate.id))
      return true;
  }
  return false;
}

static Fold *plan(Rehearsal *rehearsal, Item *item) {
  Fold *fold = plan_decide(rehearsal->mapping, item, 1, rehearsal->aggregates, rehearsal->arena);
  g_ptr_array_add(rehearsal->folds, fold);
  return fold;
}

static Fold *decide(Rehearsal *rehearsal, Item *item, AggregateState *state) {
  AggregateState before = *state;
  Fold *fold = plan(rehearsal, item);
  if (item->verdict != VERDICT_REFRESH || !item->else_superseded ||
      has_entity(rehearsal, item->event))
    return fold;
  *state = before;
  item->verdict = VERDICT_NONE;
  item->no_entity = true;
  return plan(rehearsal, item);
}

/* A newer event may have removed the row to which a late one would add. */
static bool learn_gone_rows(const Rehearsal *rehearsal, Item *item) {
  bool learnt = false;
  for (unsigned i = 0; i < item->changes.count && item->late; i++) {
    Change *change = &item->changes.changes[i];
    const Projection *projection = change->rule->projection;
    if (!operation_is_delta(change->rule->operation) || change->row != ROW_NOT_LOOKED_FOR)
      continue;
    const Value *row = rehearsal_find(rehearsal, projection, change->key);
    change->row = !row ? ROW_MISSING : is_marked(projection, row) ? ROW_MARKED : ROW_THERE;
    learnt |= change->row != ROW_THERE;
  }
  return learnt;
}

static Rehearsed take_mapped(Rehearsal *rehearsal, Item *item, AggregateState *state) {
  Failure failure = {0};
  AggregateState before = *state;
  const Event *event = item->event;
  Fold *fold = decide(rehearsal, item, state);
  Rehearsed done = {.verdict = item->verdict, .fold = fold, .failure = item->failure};
  if (item->verdict == VERDICT_REFRESH) {
    int64_t version = 0;
    state->blocked = false;
    if (!refresh(rehearsal, event, fold, &version, &failure))
      return fail(rehearsal, &failure);
    order_advance(&state->position, event);
    state->position.max_version = MAX(state->position.max_version, version);
    state->position.refreshed_version = MAX(state->position.refreshed_version, version);
    done.verdict = VERDICT_SUPERSEDED;
    done.refreshed = true;
  }
  if (execute(rehearsal, fold, &done.statement, &failure))
    return done;
  if (!learn_gone_rows(rehearsal, item))
    return fail(rehearsal, &failure);
  *state = before;
  item->verdict = VERDICT_NONE;
  return take_mapped(rehearsal, item, state);
}

static Rehearsed take(Rehearsal *rehearsal, Event *event, AggregateState *state) {
  Item item = {.event = event, .gap_waited = true};
  plan_map(rehearsal->mapping, &item, 1, rehearsal->arena);
  return take_mapped(rehearsal, &item, state);
}

Rehearsed rehearsal_take(Rehearsal *rehearsal, Event *event) {
  g_ptr_array_add(rehearsal->events, event);
  if (!event_has_aggregate(event)) /* it has no place in any order, and blocks nothing */
    return fail(rehearsal, event->malformed);
  AggregateState *state = aggregate_set_open(rehearsal->aggregates, &event->aggregate);
  if (g_hash_table_contains(rehearsal->ids, &event->key.event_id))
    return (Rehearsed){.verdict = VERDICT_KNOWN};
  AggregateState before = *state;
  Rehearsed done = take(rehearsal, event, state);
  if (done.verdict == VERDICT_FAILED) { /* later events of its aggregate wait */
    *state = before;
    state->blocked = true;
  } else if (verdict_outcome(done.verdict)) {
    g_hash_table_add(rehearsal->ids, &event->key.event_id);
  }
  return done;
}

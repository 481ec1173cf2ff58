/* change.c - the map step: an event and the rules that name it become changes of rows. */
#include "projector/domain/change.h"

#include "projector/domain/key.h"
#include "projector/domain/mark.h"

#include <string.h>

static bool map_key(const Projection *projection, const Event *event, Arena *arena, Change *change,
                    Failure *ret_failure) {
  change->key = arena_alloc(arena, projection->key_count, sizeof(Value));
  for (unsigned i = 0; i < projection->key_count; i++)
    if (!key_map(event, &projection->columns[i], arena, &change->key[i], ret_failure))
      return false;
  return true;
}

static bool map_all_columns(const Projection *projection, const Event *event, Arena *arena,
                            Change *change, Failure *ret_failure) {
  unsigned first = projection->key_count, count = projection->column_count - first;
  change->values = arena_alloc(arena, count, sizeof(Value));
  for (unsigned i = 0; i < count; i++) {
    const Column *column = &projection->columns[first + i];
    if (!value_for_column(event, &column->from, column, arena, &change->values[i], ret_failure))
      return false;
  }
  return true;
}

static bool map_assignments(const Rule *rule, const Event *event, Arena *arena, Change *change,
                            Failure *ret_failure) {
  bool deltas = operation_is_delta(rule->operation);
  change->values = arena_alloc(arena, rule->assignment_count, sizeof(Value));
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    Column column = rule->projection->columns[rule->assignments[i].column];
    bool delta = deltas && !rule->assignments[i].set;
    if (delta)
      column.nullable = false; /* a delta cannot be NULL */
    Value *value = &change->values[i];
    if (!value_for_column(event, &rule->assignments[i].from, &column, arena, value, ret_failure))
      return false;
    if (delta && rule->operation == OP_SUBTRACT)
      *value = value_negate(value, arena);
  }
  return true;
}

/* The value of a row's mark; NULL would mark nothing. */
static bool map_mark(const Rule *rule, const Event *event, Arena *arena, Change *change,
                     Failure *ret_failure) {
  unsigned i = 0;
  if (!map_assignments(rule, event, arena, change, ret_failure))
    return false;
  while ((int)rule->assignments[i].column != rule->projection->mark)
    i++;
  return change->values[i].kind != VALUE_NULL ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                     "%s: expected a value for %s, which marks a deleted row, found none",
                     rule->assignments[i].from.text,
                     rule->projection->columns[rule->projection->mark].name);
}

static bool map_parameters(const Rule *rule, const Event *event, Arena *arena, Change *change,
                           Failure *ret_failure) {
  change->values = arena_alloc(arena, rule->parameter_count, sizeof(Value));
  for (unsigned i = 0; i < rule->parameter_count; i++) {
    int column = rule->parameters[i].column;
    bool key = column >= 0 && column < (int)rule->projection->key_count;
    if (!value_for_parameter(event, &rule->parameters[i], rule->projection, arena,
                             &change->values[i], ret_failure) ||
        (key && !key_check_spelling(event, &rule->projection->columns[column], &change->values[i],
                                    ret_failure)))
      return false;
  }
  if (!rule->key_parameters || rule->projection->allow_unique_keys)
    return true;
  change->key = arena_alloc(arena, rule->projection->key_count, sizeof(Value));
  for (unsigned i = 0; i < rule->projection->key_count; i++)
    change->key[i] = change->values[rule->key_parameters[i]];
  return true;
}

/* The arrays of the child tables that the rule writes. */
static bool map_children(const Rule *rule, const Event *event, Arena *arena, Change *change,
                         Failure *ret_failure) {
  const Projection *projection = rule->projection;
  change->children = arena_alloc(arena, projection->child_count, sizeof *change->children);
  for (unsigned i = 0; i < projection->child_count; i++) {
    const Projection *child = projection->children[i];
    bool named = rule->child_tables & UINT32_C(1) << i;
    if (rule->operation != OP_UPSERT && !named)
      continue;
    const ChildItems from = {.items = named ? &rule->items[i] : &child->items,
                             .event = event,
                             .parent_key = change->key,
                             .of_entity = rule->of_entity};
    if (!child_rows_map(child, &from, arena, &change->children[i], ret_failure))
      return false;
  }
  return true;
}

static bool map_rule(const Rule *rule, const Event *event, Arena *arena, Change *change,
                     Failure *ret_failure) {
  const Projection *projection = rule->projection;
  bool wanted = true;
  if (rule->operation == OP_UPSERT && projection->when &&
      !condition_holds(projection->when, event, &wanted, ret_failure))
    return false;
  change->rule = rule = wanted ? rule : &projection->removal;
  switch (rule->operation) {
  case OP_UPSERT:
    return map_key(projection, event, arena, change, ret_failure) &&
           map_all_columns(projection, event, arena, change, ret_failure) &&
           map_children(rule, event, arena, change, ret_failure);
  case OP_UPDATE:
  case OP_ADD:
  case OP_SUBTRACT:
    return map_key(projection, event, arena, change, ret_failure) &&
           map_assignments(rule, event, arena, change, ret_failure) &&
           map_children(rule, event, arena, change, ret_failure);
  case OP_DELETE:
    return map_key(projection, event, arena, change, ret_failure) &&
           (!rule->soft || map_mark(rule, event, arena, change, ret_failure));
  case OP_SQL: return map_parameters(rule, event, arena, change, ret_failure);
  case OP_IGNORE: return true;
  }
  return false;
}

static bool takes_type(const Mapping *mapping, const Event *event) {
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++)
    if (projection_is_of(mapping_projection(mapping, i), event->aggregate.type,
                         event->aggregate.type_length))
      return true;
  return false;
}

bool change_list_map(const Mapping *mapping, const Event *event, Arena *arena, ChangeList *ret_list,
                     Failure *ret_failure) {
  if (event->malformed) {
    *ret_failure = *event->malformed;
    return false;
  }
  const Rule *const *rules =
      mapping_rules(mapping, event->aggregate.type, event->aggregate.type_length, event->event_type,
                    event->event_type_length);
  if (!rules) {
    *ret_list = (ChangeList){0};
    if (mapping_ignores_unknown(mapping))
      return true;
    if (!takes_type(mapping, event))
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "aggregate_type: expected one that a projection takes, found %.*s",
                         (int)event->aggregate.type_length, event->aggregate.type);
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                       "event_type: expected one that a projection of %.*s names, found %.*s",
                       (int)event->aggregate.type_length, event->aggregate.type,
                       (int)event->event_type_length, event->event_type);
  }
  unsigned count = 0;
  while (rules[count])
    count++;
  ChangeList list = {.changes = arena_alloc(arena, count, sizeof(Change))};
  for (unsigned i = 0; i < count; i++) {
    bool wanted = rules[i]->operation != OP_IGNORE;
    if (wanted && rules[i]->when && !condition_holds(rules[i]->when, event, &wanted, ret_failure))
      return failure_prefix(ret_failure, "%s", rules[i]->projection->table);
    if (!wanted)
      continue;
    if (!map_rule(rules[i], event, arena, &list.changes[list.count++], ret_failure))
      return failure_prefix(ret_failure, "%s", rules[i]->projection->table);
  }
  *ret_list = list;
  return true;
}

bool change_list_counts(const Mapping *mapping, const Event *event) {
  const Rule *const *rules =
      mapping_rules(mapping, event->aggregate.type, event->aggregate.type_length, event->event_type,
                    event->event_type_length);
  for (; rules && *rules; rules++)
    if (operation_is_delta((*rules)->operation) || (*rules)->operation == OP_SQL)
      return true;
  return false;
}

/* Changes from an entity have no event behind them, so each operation gets a rule of its own. */
static const Rule *entity_rule(const Projection *projection, Operation operation, Arena *arena) {
  Rule *rule = arena_alloc(arena, 1, sizeof *rule);
  *rule =
      (Rule){.projection = projection, .event_type = "", .operation = operation, .of_entity = true};
  return rule;
}

bool change_from_entity(const Projection *projection, const Event *entity, Arena *arena,
                        Change *ret_change, Failure *ret_failure) {
  ret_change->keep_mark = projection->soft_rule != NULL;
  return map_rule(entity_rule(projection, OP_UPSERT, arena), entity, arena, ret_change,
                  ret_failure) ||
         failure_prefix(ret_failure, "entity in %s for %s", projection->entities,
                        projection->table);
}

bool change_for_removal(const Projection *projection, const Event *event, Arena *arena,
                        Change *ret_change, Failure *ret_failure) {
  return map_rule(entity_rule(projection, OP_DELETE, arena), event, arena, ret_change, ret_failure);
}

static bool is_same(const Source *a, const Source *b) {
  for (; a && b; a = a->otherwise, b = b->otherwise)
    if (g_strcmp0(a->text, b->text) != 0 || a->constant_length != b->constant_length ||
        (a->constant_length > 0 && memcmp(a->constant, b->constant, a->constant_length) != 0))
      return false;
  return a == b;
}

static bool sets_same(const Rule *rule, const Assignment *assignment) {
  for (unsigned i = 0; i < rule->assignment_count; i++)
    if (rule->assignments[i].column == assignment->column)
      return is_same(&rule->assignments[i].from, &assignment->from);
  return false;
}

/* Whichever event deleted the row; every one of them sets the mark. */
static bool all_set(const Projection *projection, const Assignment *assignment) {
  if ((int)assignment->column == projection->mark)
    return true;
  for (unsigned i = 0; i < projection->rule_count; i++)
    if (projection->rules[i].soft && !sets_same(&projection->rules[i], assignment))
      return false;
  return true;
}

/* The soft delete without its event: what only the event has stays as it is in the row, and what
 * another soft delete does not set. */
static const Rule *marking_rule(const Projection *projection, Arena *arena) {
  Rule *rule = arena_alloc(arena, 1, sizeof *rule);
  *rule = *projection->soft_rule;
  rule->assignment_count = 0;
  rule->assignments =
      arena_alloc(arena, projection->soft_rule->assignment_count, sizeof *rule->assignments);
  for (unsigned i = 0; i < projection->soft_rule->assignment_count; i++) {
    const Assignment *assignment = &projection->soft_rule->assignments[i];
    if (source_is_known_of_gone(&assignment->from) && all_set(projection, assignment))
      rule->assignments[rule->assignment_count++] = *assignment;
  }
  return rule;
}

bool change_is_marked(const Change *change) {
  const Projection *projection = change->rule->projection;
  g_assert(change->rule->operation == OP_UPSERT);
  return projection->mark >= 0 &&
         mark_is_set(&change->values[(unsigned)projection->mark - projection->key_count]);
}

Change *change_to_mark(const Change *row, const Change *change, Arena *arena) {
  const Rule *rule = change->rule;
  unsigned key_count = rule->projection->key_count;
  Change *mark = arena_alloc(arena, 1, sizeof *mark);
  g_assert(rule->soft && row->rule->operation == OP_UPSERT);
  *mark = *change;
  mark->values = arena_alloc(arena, rule->assignment_count, sizeof *mark->values);
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    const Assignment *assignment = &rule->assignments[i];
    mark->values[i] =
        assignment->set ? row->values[assignment->column - key_count] : change->values[i];
  }
  return mark;
}

const Source *change_unknown_mark(const Projection *projection) {
  for (unsigned i = 0; i < projection->rule_count; i++) {
    const Rule *rule = &projection->rules[i];
    for (unsigned k = 0; rule->soft && k < rule->assignment_count; k++)
      if ((int)rule->assignments[k].column == projection->mark &&
          !source_is_known_of_gone(&rule->assignments[k].from))
        return &rule->assignments[k].from;
  }
  return NULL;
}

/* The change has its key already. */
static bool mark_row(const Projection *projection, const Event *event, Arena *arena, Change *change,
                     Failure *ret_failure) {
  change->gone = true;
  if (!projection->soft_rule)
    return true;
  change->keep_mark = true;
  change->rule = change_unknown_mark(projection) ? entity_rule(projection, OP_IGNORE, arena)
                                                 : marking_rule(projection, arena);
  return change->rule->operation == OP_IGNORE ||
         map_mark(change->rule, event, arena, change, ret_failure) ||
         failure_prefix(ret_failure, "the entity of a row of %s is gone", projection->table);
}

bool change_for_missing_entity(const Projection *projection, const Event *event, Arena *arena,
                               Change *ret_change, Failure *ret_failure) {
  return change_for_removal(projection, event, arena, ret_change, ret_failure) &&
         mark_row(projection, event, arena, ret_change, ret_failure);
}

bool change_for_row_of_missing_entity(const Projection *projection, const Value *key,
                                      const Event *event, Arena *arena, Change *ret_change,
                                      Failure *ret_failure) {
  *ret_change = *change_for_row(projection, key, arena);
  return mark_row(projection, event, arena, ret_change, ret_failure);
}

Change *change_for_row(const Projection *projection, const Value *key, Arena *arena) {
  Change *change = arena_alloc(arena, 1, sizeof *change);
  change->rule = entity_rule(projection, OP_DELETE, arena);
  change->key = arena_alloc(arena, projection->key_count, sizeof *key);
  memcpy(change->key, key, projection->key_count * sizeof *key);
  return change;
}

bool change_has_lost_row(const Change *change, bool refreshable) {
  return change->row == ROW_MARKED ||
         (change->row == ROW_MISSING &&
          (refreshable || projection_removes_own_rows(change->rule->projection)));
}

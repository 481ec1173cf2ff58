/* plan.c - decides what happens to each event of a batch. */
#include "projector/domain/plan.h"

#include <stdlib.h>
#include <string.h>

/* --- aggregates of a batch ------------------------------------------------------------------ */

struct AggregateSet {
  Arena *arena;
  GHashTable *by_aggregate; /* Aggregate → AggregateState */
  GPtrArray *states;
  bool ordered; /* the order of all events counts, not only that of each aggregate's */
};

AggregateSet *aggregate_set_new(Arena *arena) {
  AggregateSet *set = g_new0(AggregateSet, 1);
  set->arena = arena;
  set->by_aggregate = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  set->states = g_ptr_array_new();
  return set;
}

void aggregate_set_keep_order(AggregateSet *set) {
  set->ordered = true;
}

void aggregate_set_free(AggregateSet *set) {
  if (!set)
    return;
  g_hash_table_unref(set->by_aggregate);
  g_ptr_array_unref(set->states);
  g_free(set);
}

AggregateState *aggregate_set_find(AggregateSet *set, const Aggregate *aggregate) {
  return g_hash_table_lookup(set->by_aggregate, aggregate);
}

AggregateState *aggregate_set_open(AggregateSet *set, const Aggregate *aggregate) {
  AggregateState *state = aggregate_set_find(set, aggregate);
  if (state)
    return state;
  state = arena_alloc(set->arena, 1, sizeof *state);
  state->aggregate = aggregate;
  g_hash_table_insert(set->by_aggregate, (gpointer)aggregate, state);
  g_ptr_array_add(set->states, state);
  return state;
}

unsigned aggregate_set_count(const AggregateSet *set) {
  return set->states->len;
}

AggregateState *aggregate_set_get(const AggregateSet *set, unsigned index) {
  return set->states->pdata[index];
}

static gint compare_states(gconstpointer a, gconstpointer b) {
  return aggregate_compare((*(const AggregateState *const *)a)->aggregate,
                           (*(const AggregateState *const *)b)->aggregate);
}

void aggregate_set_sort(AggregateSet *set) {
  g_ptr_array_sort(set->states, compare_states);
}

/* --- deciding ------------------------------------------------------------------------------- */

const char *verdict_outcome(Verdict verdict) {
  switch (verdict) {
  case VERDICT_APPLIED: return "applied";
  case VERDICT_SUPERSEDED: return "superseded";
  case VERDICT_IGNORED: return "ignored";
  case VERDICT_SKIPPED: return "skipped";
  default: return NULL;
  }
}

static int compare_items(const void *a, const void *b) {
  const Item *x = a, *y = b;
  return order_key_compare(&x->event->key, &y->event->key);
}

void plan_sort(Item *items, size_t count) {
  if (count > 1)
    qsort(items, count, sizeof *items, compare_items);
}

static void fail(Item *item, const Failure *failure, Arena *arena) {
  item->verdict = VERDICT_FAILED;
  item->failure = arena_alloc(arena, 1, sizeof *failure);
  *item->failure = *failure;
}

void plan_map(const Mapping *mapping, Item *items, size_t count, Arena *arena) {
  for (size_t i = 0; i < count; i++) {
    Failure failure = {0};
    if (items[i].verdict == VERDICT_NONE &&
        !change_list_map(mapping, items[i].event, arena, &items[i].changes, &failure))
      fail(&items[i], &failure, arena);
  }
}

static bool can_refresh(const Mapping *mapping, const Event *event) {
  bool any = false;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    if (!projection_is_of(projection, event->aggregate.type, event->aggregate.type_length))
      continue;
    if (!projection->entities)
      return false;
    any = true;
  }
  return any;
}

/* A late event: deltas commute, so they are applied, unless a newer event has removed their row. A
 * full row or a delete is superseded by what is there; but if newer events did not write the whole
 * row, something may be missing, so the row is taken from the entity, if there is one. Everything
 * else needs the entity. */
static void decide_late(const Mapping *mapping, Item *item, Arena *arena) {
  ChangeList deltas = {.changes = arena_alloc(arena, item->changes.count, sizeof(Change))};
  const Change *update = NULL;
  bool refreshable = can_refresh(mapping, item->event), lost = false, gone = false;
  item->late = true;
  for (unsigned i = 0; i < item->changes.count; i++) {
    const Change *change = &item->changes.changes[i];
    Operation operation = change->rule->operation;
    if (operation_is_delta(operation) && change_has_lost_row(change, refreshable)) {
      gone = true;
    } else if (operation_is_delta(operation)) {
      deltas.changes[deltas.count] = *change;
      deltas.changes[deltas.count++].deltas_only = true;
    } else if (operation == OP_UPDATE || operation == OP_SQL)
      update = update ? update : change;
    else
      lost = lost || !mapping_overwrites(mapping, change->rule->projection);
  }
  item->else_superseded = !update;
  if (refreshable && (update || ((lost || gone) && !item->no_entity))) {
    item->verdict = VERDICT_REFRESH;
  } else if (update) {
    Failure failure;
    failure_set(&failure, FAILURE_DATA, SOURCE_EVENT, 0,
                "late %s: a newer event was applied, and %s has no \"entities\" to refresh from",
                operation_name(update->rule->operation), update->rule->projection->table);
    fail(item, &failure, arena);
    item->failure_is_provisional = true;
  } else {
    item->effect = deltas;
    item->verdict = deltas.count ? VERDICT_APPLIED : VERDICT_SUPERSEDED;
    item->unhealed = deltas.count == 0 && (!refreshable || (item->no_entity && !gone));
  }
}

static void decide(const Mapping *mapping, Item *item, AggregateState *state, Arena *arena) {
  if (state->blocked) {
    item->verdict = VERDICT_WAIT;
    return;
  }
  item->effect = item->changes;
  item->unhealed = false;
  item->reuses_version = order_reuses_version(&state->position, item->event);
  switch (order_standing(&state->position, item->event, item->gap_waited)) {
  case STANDING_REPEATED: item->verdict = VERDICT_KNOWN; return;
  case STANDING_CONTAINED: item->verdict = VERDICT_SUPERSEDED; return;
  case STANDING_GAP:
    item->verdict = VERDICT_GAP;
    item->gap_first = state->position.max_version + 1;
    return;
  case STANDING_LATE:
    if (item->changes.count > 0)
      decide_late(mapping, item, arena);
    else
      item->verdict = VERDICT_IGNORED;
    return;
  case STANDING_NEXT:
    item->verdict = item->changes.count > 0 ? VERDICT_APPLIED : VERDICT_IGNORED;
    return;
  }
}

/* An event that cannot be mapped does not fail if its effect is in the row already. */
static void decide_unmappable(Item *item, AggregateState *state) {
  if (state->blocked) {
    item->verdict = VERDICT_WAIT; /* it is not its turn */
    return;
  }
  Standing standing = order_standing(&state->position, item->event, item->gap_waited);
  if (standing == STANDING_CONTAINED)
    item->verdict = VERDICT_SUPERSEDED;
  else if (standing == STANDING_REPEATED)
    item->verdict = VERDICT_KNOWN;
}

/* One pass over the items. Returns false when an event that was to be applied cannot be folded
 * after the others: it is marked FAILED, and the pass must be repeated without it. */
static bool decide_all(const Mapping *mapping, Item *items, size_t count, AggregateSet *aggregates,
                       Fold *fold, Arena *arena) {
  for (size_t i = 0; i < count; i++) {
    Item *item = &items[i];
    if (!event_has_aggregate(item->event))
      continue; /* malformed: it already failed in plan_map, and blocks nothing */
    AggregateState *state = aggregate_set_open(aggregates, &item->event->aggregate);
    if (item->verdict == VERDICT_NONE && item->failure)
      item->verdict = VERDICT_FAILED; /* another attempt cannot map it either */
    if (item->verdict == VERDICT_NONE)
      decide(mapping, item, state, arena);
    else if (item->verdict == VERDICT_FAILED)
      decide_unmappable(item, state);
    Failure failure;
    if (item->verdict == VERDICT_APPLIED &&
        !fold_add(fold, &item->effect, aggregates->ordered ? NULL : &item->event->aggregate,
                  &failure)) {
      fail(item, &failure, arena);
      item->failure_is_provisional = true;
      return false;
    }
    if (verdict_outcome(item->verdict)) {
      if (item->verdict == VERDICT_IGNORED)
        order_pass(&state->position, item->event);
      else
        order_advance(&state->position, item->event);
      state->moved = true;
    } else if (item->verdict != VERDICT_KNOWN) {
      state->blocked = true;
    }
  }
  return true;
}

Fold *plan_decide(const Mapping *mapping, Item *items, size_t count, AggregateSet *aggregates,
                  Arena *arena) {
  /* Verdicts from before this call (map failures, known ids) survive a second pass. */
  Item *before = arena_alloc(arena, count, sizeof *before);
  unsigned aggregate_count = 0;
  for (size_t i = 0; i < count; i++)
    if (event_has_aggregate(items[i].event))
      aggregate_set_open(aggregates, &items[i].event->aggregate);
  aggregate_count = aggregate_set_count(aggregates);
  AggregateState *states = arena_alloc(arena, aggregate_count, sizeof *states);
  for (unsigned i = 0; i < aggregate_count; i++)
    states[i] = *aggregate_set_get(aggregates, i);
  if (count > 0)
    memcpy(before, items, count * sizeof *items);

  for (;;) {
    g_autoptr(Fold) fold = fold_new(arena);
    if (decide_all(mapping, items, count, aggregates, fold, arena))
      return g_steal_pointer(&fold);
    for (size_t i = 0; i < count; i++) {
      bool culprit = items[i].verdict == VERDICT_FAILED && before[i].verdict == VERDICT_NONE;
      if (culprit)
        before[i] = items[i];
      else
        items[i] = before[i];
    }
    for (unsigned i = 0; i < aggregate_count; i++)
      *aggregate_set_get(aggregates, i) = states[i];
  }
}

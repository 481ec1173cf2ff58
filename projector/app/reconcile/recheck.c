/* recheck.c - repeated checks of suspects, in batches. */
#include "projector/app/reconcile/recheck.h"

#include "projector/app/reconcile/child_check.h"
#include "projector/domain/entity.h"
#include "projector/infra/mongo/selection.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>
#include <xxhash.h>

enum {
  LOOKS_MAX = 6,
  WAIT_MS = 500,      /* before another look, if there are no versions to compare */
  EVENTS_OF_ONE = 20, /* read of one aggregate, to find one that was not applied */
  LEDGER_BATCH = 500,
};

/* What the last look at a suspect showed. */
typedef struct State {
  const Suspect *suspect;
  const Value *key; /* as the entity has it now; NULL: it cannot be mapped */
  bool settled;
  bool comparable; /* with the previous look, because that was at the same row */
  Sight sight;
  Decision decision, last;
  uint64_t hash, last_hash; /* of the entity's document; 0: no entity */
  const Aggregate *owner;
  const Expected *expected;
  const Value *row;
  const ChildTables *children; /* NULL: none, or not read */
  const char *unmappable;      /* the reason, or NULL */
  const char *refusal;         /* why the table cannot hold its key, or NULL */
} State;

/* One look at all suspects that are not settled yet. */
typedef struct Round {
  const Recheck *recheck;
  State *states;
  size_t count;
  Pool *pool;
  GPtrArray *children; /* of ChildTables, one for each look */
} Round;

/* --- position and row ----------------------------------------------------------------------- */

static void take_position(State *state, AggregateSet *set) {
  const Suspect *suspect = state->suspect;
  state->sight = (Sight){0};
  state->last = state->decision;
  state->last_hash = state->hash;
  state->hash = 0;
  state->owner = suspect->id_count ? &suspect->ids[0] : NULL;
  for (unsigned k = 0; k < suspect->id_count && !state->sight.position.known; k++) {
    const Position *position = &aggregate_set_find(set, &suspect->ids[k])->position;
    if (position->known) {
      state->sight.position = *position;
      state->owner = &suspect->ids[k];
    }
  }
}

static bool read_positions(Round *round, Failure *ret_failure) {
  Stores *stores = round->recheck->stores;
  g_autoptr(AggregateSet) set = aggregate_set_new(round->pool->arena);
  for (size_t i = 0; i < round->count; i++)
    for (unsigned k = 0; !round->states[i].settled && k < round->states[i].suspect->id_count; k++)
      aggregate_set_open(set, &round->states[i].suspect->ids[k]);
  if (!ledger_look_at_positions(stores->session, &stores->ledger, set, round->pool->arena,
                                ret_failure))
    return false;
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled)
      take_position(&round->states[i], set);
  return true;
}

/* If the table cannot hold a key, there is no row, and there never will be. */
static void take_row(const Recheck *recheck, State *state, const RowSet *set) {
  state->row = state->key ? row_set_find(set, state->key) : NULL;
  bool says_gone = state->suspect->by_row && state->row &&
                   layout_is_marked(recheck->layout, state->row); /* like its entity */
  state->sight.row = state->row && !says_gone;
  state->refusal = state->key ? row_set_refusal(set, state->key) : NULL;
}

static bool read_children(Round *round, const RowSet *set, Failure *ret_failure) {
  const Recheck *recheck = round->recheck;
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  for (size_t i = 0; i < round->count; i++) {
    const State *state = &round->states[i];
    if (!state->settled && state->key && !row_set_refusal(set, state->key))
      g_ptr_array_add(keys, (gpointer)state->key);
  }
  ChildTables *tables =
      child_tables_read(recheck->stores, recheck->layout, (const Value *const *)keys->pdata,
                        keys->len, round->pool->arena, ret_failure);
  if (!tables)
    return false;
  g_ptr_array_add(round->children, tables);
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled)
      round->states[i].children = tables;
  return true;
}

static bool read_rows(Round *round, Failure *ret_failure) {
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  g_autoptr(RowSet) set = row_set_new(round->pool->arena);
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled && round->states[i].key)
      g_ptr_array_add(keys, (gpointer)round->states[i].key);
  if (!rows_find(round->recheck->stores->session, round->recheck->layout,
                 (const Value *const *)keys->pdata, keys->len, set, ret_failure))
    return false;
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled)
      take_row(round->recheck, &round->states[i], set);
  return round->recheck->layout->projection->child_count == 0 ||
         read_children(round, set, ret_failure);
}

/* --- entity --------------------------------------------------------------------------------- */

static void map_entity(Round *round, State *state, Event *event) {
  const Layout *layout = round->recheck->layout;
  Failure failure = {0};
  bson_t view;
  const bson_t *entity = event_payload(event, &view);
  Expected *expected = arena_alloc(round->pool->arena, 1, sizeof *expected);
  state->sight.entity = true;
  state->sight.version = entity_version(entity);
  state->hash = XXH3_64bits(bson_get_data(entity), entity->len);
  state->unmappable = NULL;
  if (!layout_map(layout, event, round->pool->arena, expected, &failure)) {
    state->unmappable = arena_copy(round->pool->arena, failure.message, strlen(failure.message));
    return;
  }
  state->expected = expected;
  state->sight.absent = expected->absent;
  if (!state->key || !values_equal(state->key, expected->values, layout->key_count)) {
    state->key = expected->values; /* the next look reads this row; this look does not count */
    state->comparable = false;
  } else {
    state->unmappable = state->refusal;
    state->sight.equal = state->row && layout_equal(layout, expected, state->row);
    if (state->children)
      child_tables_judge(state->children, layout, expected, &state->sight);
  }
}

/* A row's entity is the one with the row's key, whatever else differs. */
static void map_owner(Round *round, State *state, Event *event) {
  const Layout *layout = round->recheck->layout;
  Failure failure;
  Value *key = arena_alloc(round->pool->arena, layout->key_count, sizeof *key);
  if (!layout_map_key(layout, event, round->pool->arena, key, &failure) ||
      !values_equal(key, state->key, layout->key_count))
    return;
  state->owner = &event->aggregate;
  state->sight.entity = state->sight.equal = true;
}

static GHashTable *index_entities(Round *round, const GPtrArray *documents) {
  const char *type = round->recheck->layout->projection->aggregate_type;
  GHashTable *by_id = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  for (guint i = 0; i < documents->len; i++) {
    const bson_t *document = documents->pdata[i];
    Aggregate aggregate = {.type = type, .type_length = (uint32_t)strlen(type)};
    if (!entity_id(document, &aggregate.id))
      continue;
    Event *event =
        pool_keep(round->pool, entity_as_event(document, &aggregate, entity_version(document),
                                               entity_time(document, INT64_MIN)));
    g_hash_table_insert(by_id, &event->aggregate, event);
  }
  return by_id;
}

static bool read_entities(Round *round, Failure *ret_failure) {
  g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(Id));
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  for (size_t i = 0; i < round->count; i++)
    for (unsigned k = 0; !round->states[i].settled && k < round->states[i].suspect->id_count; k++)
      g_array_append_val(ids, round->states[i].suspect->ids[k].id);
  if (!entities_find(round->recheck->entities, (const Id *)(void *)ids->data, ids->len, documents,
                     ret_failure))
    return false;
  g_autoptr(GHashTable) by_id = index_entities(round, documents);
  for (size_t i = 0; i < round->count; i++) {
    State *state = &round->states[i];
    for (unsigned k = 0; !state->settled && k < state->suspect->id_count; k++) {
      Event *event = g_hash_table_lookup(by_id, &state->suspect->ids[k]);
      if (event && state->suspect->by_row)
        map_owner(round, state, event);
      else if (event)
        map_entity(round, state, event);
    }
  }
  return true;
}

/* --- events --------------------------------------------------------------------------------- */

bool recheck_ask_ledger(Stores *stores, Item *items, size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i += LEDGER_BATCH)
    if (!ledger_find_known(stores->session, &stores->ledger, items + i,
                           MIN(count - i, LEDGER_BATCH), ret_failure))
      return false;
  return true;
}

/* An event whose effect a refresh has already written is superseded when its turn comes, so it
 * explains no difference. */
static bool is_contained(const GHashTable *refreshed, const Event *event) {
  const int64_t *version = g_hash_table_lookup((GHashTable *)refreshed, &event->aggregate);
  return version && !event->malformed && event->key.version != 0 && event->key.version <= *version;
}

/* The events of the suspects' aggregates as items, not more of each than needed. */
static bool read_events(Round *round, GArray *items, Failure *ret_failure) {
  g_autoptr(GPtrArray) aggregates = g_ptr_array_new();
  g_autoptr(GHashTable) refreshed = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  g_autoptr(GHashTable) seen = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  for (size_t i = 0; i < round->count; i++)
    for (unsigned k = 0; !round->states[i].settled && k < round->states[i].suspect->id_count; k++)
      g_ptr_array_add(aggregates, (gpointer)&round->states[i].suspect->ids[k]);
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled && round->states[i].owner)
      g_hash_table_insert(refreshed, (gpointer)round->states[i].owner,
                          &round->states[i].sight.position.refreshed_version);
  if (aggregates->len == 0)
    return true;
  g_autoptr(EventCursor) cursor = outbox_find_of_any(
      round->recheck->stores->outbox, (const Aggregate *const *)aggregates->pdata, aggregates->len);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    guint count = GPOINTER_TO_UINT(g_hash_table_lookup(seen, &event->aggregate));
    if (count == EVENTS_OF_ONE || is_contained(refreshed, event))
      continue;
    Item item = {.event = pool_keep(round->pool, g_steal_pointer(&event))};
    g_hash_table_replace(seen, &item.event->aggregate, GUINT_TO_POINTER(count + 1));
    g_array_append_val(items, item);
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool read_pending(Round *round, Failure *ret_failure) {
  g_autoptr(GArray) items = g_array_new(FALSE, TRUE, sizeof(Item));
  g_autoptr(GHashTable) pending = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  if (!read_events(round, items, ret_failure) ||
      !recheck_ask_ledger(round->recheck->stores, (Item *)(void *)items->data, items->len,
                          ret_failure))
    return false;
  for (guint i = 0; i < items->len; i++) {
    const Item *item = &g_array_index(items, Item, i);
    if (item->verdict != VERDICT_KNOWN)
      g_hash_table_add(pending, &item->event->aggregate);
  }
  for (size_t i = 0; i < round->count; i++)
    for (unsigned k = 0; k < round->states[i].suspect->id_count; k++)
      round->states[i].sight.pending |=
          g_hash_table_contains(pending, &round->states[i].suspect->ids[k]);
  return true;
}

/* --- conclusion ----------------------------------------------------------------------------- */

static Decision decide(const Round *round, const State *state) {
  Decision decision = difference_decide(&state->sight);
  if (state->unmappable)
    decision.row = state->sight.pending ? DIFFERENCE_NONE : DIFFERENCE_UNMAPPABLE;
  if (decision.row == DIFFERENCE_EXTRA_ROW && !state->suspect->by_row && !state->sight.entity)
    decision.row = DIFFERENCE_NONE; /* its entity is gone; the pass over the rows handles that */
  if (!round->recheck->positions)
    decision.position = DIFFERENCE_NONE;
  return decision;
}

static bool same_decision(const Decision *a, const Decision *b) {
  return a->row == b->row && a->position == b->position;
}

/* What is right, or merely lags, is settled at once; a difference only if the previous look saw it
 * too. */
static void conclude(Round *round, bool first) {
  for (size_t i = 0; i < round->count; i++) {
    State *state = &round->states[i];
    if (state->settled)
      continue;
    state->decision = decide(round, state);
    bool wrong =
        state->decision.row != DIFFERENCE_NONE || state->decision.position != DIFFERENCE_NONE;
    state->settled = !wrong || (!first && state->comparable && state->hash == state->last_hash &&
                                same_decision(&state->decision, &state->last));
    state->comparable = true;
  }
}

static bool look(Round *round, bool first, Failure *ret_failure) {
  if (!stores_wake(round->recheck->stores, ret_failure) || !read_positions(round, ret_failure) ||
      !read_rows(round, ret_failure) || !read_entities(round, ret_failure) ||
      !read_pending(round, ret_failure))
    return false;
  conclude(round, first);
  return true;
}

/* Without versions, two reads of one entity may see two states of it. */
static bool needs_time(const Round *round) {
  for (size_t i = 0; i < round->count; i++)
    if (!round->states[i].settled && !round->states[i].suspect->by_row &&
        round->states[i].sight.version == 0)
      return true;
  return false;
}

static void add_difference(const State *state, const Layout *layout, DifferenceKind kind,
                           Arena *arena, GArray *differences) {
  Difference difference = {.kind = kind,
                           .layout = layout,
                           .aggregate = state->owner,
                           .key = state->key,
                           .version = state->sight.version,
                           .applied = state->sight.position.max_version,
                           .expected = state->expected,
                           .row = state->row,
                           .reason = kind == DIFFERENCE_UNMAPPABLE ? state->unmappable : NULL};
  bool of_row = kind == DIFFERENCE_COLUMNS || kind == DIFFERENCE_MISSING_ROW ||
                (kind == DIFFERENCE_EXTRA_ROW && !state->suspect->by_row);
  bool of_children_alone =
      (kind == DIFFERENCE_COLUMNS && layout_equal(layout, state->expected, state->row)) ||
      (kind == DIFFERENCE_EXTRA_ROW && !state->row);
  if (kind != DIFFERENCE_NONE && !of_children_alone)
    g_array_append_val(differences, difference);
  if (of_row && state->children && state->expected)
    child_tables_differ(state->children, layout, state->expected, &difference, arena, differences);
}

bool recheck_confirm(const Recheck *recheck, const Suspect *suspects, size_t count, Pool *pool,
                     GArray *differences, int64_t *lagging, Failure *ret_failure) {
  g_autofree State *states = g_new0(State, count);
  g_autoptr(GPtrArray) children = g_ptr_array_new_with_free_func((GDestroyNotify)child_tables_free);
  Round round = {recheck, states, count, pool, children};
  size_t open = count;
  for (size_t i = 0; i < count; i++)
    states[i] = (State){.suspect = &suspects[i], .key = suspects[i].key};
  for (int number = 0; open > 0 && number < LOOKS_MAX; number++) {
    if (number > 0 && (number > 1 || needs_time(&round)))
      g_usleep(WAIT_MS * 1000);
    if (!look(&round, number == 0, ret_failure))
      return false;
    open = 0;
    for (size_t i = 0; i < count; i++)
      open += !states[i].settled;
  }
  for (size_t i = 0; i < count; i++) {
    *lagging += !states[i].settled || states[i].decision.lagging;
    if (!states[i].settled)
      continue;
    add_difference(&states[i], recheck->layout, states[i].decision.row, pool->arena, differences);
    add_difference(&states[i], recheck->layout, states[i].decision.position, pool->arena,
                   differences);
  }
  return true;
}

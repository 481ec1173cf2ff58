/* rebuild_shadow.c - `projector rebuild --shadow`: a new table beside the live one, then a swap.
 *
 *   carry     marked rows of the live table, page by page: no entity may tell of them
 *   copy      every entity becomes a row of t__new; its version is noted. Positions stay as they
 *             are: the live table is not touched, and `run` continues
 *   catch up  in rounds: aggregates whose position is not at the noted version are copied again
 *   compare   the rows of t__new with the entities
 *   swap      with the fence's table locked, so that no event is applied: what moved since, and
 *             what is copied already but not applied yet, is refreshed in both tables; columns
 *             that the mapping does not name are copied; then one RENAME */
#include "projector/app/rebuild/carry.h"
#include "projector/app/rebuild/fill.h"
#include "projector/app/rebuild/rebuild.h"
#include "projector/app/reconcile/compare.h"
#include "projector/app/shared/progress.h"
#include "projector/domain/entity.h"
#include "projector/domain/retarget.h"
#include "projector/infra/clock.h"
#include "projector/infra/mongo/selection.h"
#include "projector/infra/mysql/apply.h"
#include "projector/infra/mysql/privileges.h"
#include "projector/infra/mysql/rows.h"
#include "projector/infra/mysql/shadow.h"
#include "projector/infra/mysql/shadow_carry.h"
#include "projector/infra/mysql/unnamed.h"

#include <stdio.h>
#include <string.h>

enum {
  BATCH = 100, /* aggregates that are copied again at a time */
  READ_AT_ONCE = 1000,
  RETRIES_MAX = 10, /* of a transaction that met another session's lock */
  RETRY_MS = 50,
  FEW = 200,         /* so few that the swap itself may handle them */
  MOST = 20000,      /* more would stop `run` for too long */
  GATE_HOLDS_S = 30, /* longest idle time of the gate, so that a frozen process does not hold events
                        up for longer */
};

typedef struct Work {
  Rebuild *rebuild;
  Stores *stores; /* of the rebuild, or those that hold the fence */
  const Projection *live, *fresh;
  const Mapping *both; /* the file's projections, and `fresh` */
  Shadow shadow;
  Entities *entities;
  Reads *reads;
  Session *gate;
  Session *renamer; /* keeps the table reserved */
} Work;

/* Called before each small piece of work: no session is silent for longer. */
static bool keep_awake(Work *work, Failure *ret_failure) {
  return stores_wake(work->stores, ret_failure) &&
         (!work->gate || session_run(work->gate, ret_failure, "DO 0")) &&
         shadow_keep_reserved(&work->renamer, &work->rebuild->config->mysql, &work->shadow,
                              ret_failure);
}

/* --- copying -------------------------------------------------------------------------------- */

/* An entity that cannot become a row. */
typedef struct Unusable {
  const Aggregate *aggregate;
  char *reason; /* in the arena */
} Unusable;

/* A batch of entities that become rows. */
typedef struct Copy {
  const Aggregate *aggregates;
  size_t count;
  Pool pool;
  AggregateSet *positions;
  Fold *fold;
  GArray *notes;    /* of ShadowNote */
  GArray *unusable; /* of Unusable */
  GPtrArray *gone;  /* of Value: keys of rows without an entity, which stay if they are marked */
  GPtrArray
      *marked; /* of Value: keys of entities that carry a mark; the row's stays, if it has one */
} Copy;

static GHashTable *read_entities(Work *work, const Copy *copy, GPtrArray *documents, Id *ids,
                                 Failure *ret_failure) {
  g_autofree Id *wanted = g_new(Id, copy->count);
  g_assert(copy->aggregates || copy->count == 0);
  for (size_t i = 0; i < copy->count; i++)
    wanted[i] = copy->aggregates[i].id;
  if (!entities_find(work->entities, wanted, copy->count, documents, ret_failure))
    return NULL;
  GHashTable *by_id = g_hash_table_new(id_hash_key, id_equal_key);
  for (guint i = 0; i < documents->len; i++) {
    if (entity_id(documents->pdata[i], &ids[i]))
      g_hash_table_insert(by_id, &ids[i], documents->pdata[i]);
  }
  return by_id;
}

/* An entity that carries a mark is copied once more when its row is marked by the event, which
 * knows other columns: until then the copy counts as that of one that is gone. */
static bool map_row(Work *work, Copy *copy, const Aggregate *aggregate, const bson_t *document,
                    const Position *position, ShadowNote *note, Failure *ret_failure) {
  const bson_t nothing = BSON_INITIALIZER;
  int64_t time = order_applied_at(position);
  int64_t version = document ? entity_version(document) : position->max_version;
  if (document && version < 1)
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                       "the entity in %s has no version to rebuild from", work->live->entities);
  if (document)
    time = entity_time_to_write(work->fresh, document, time, g_get_real_time() / 1000);
  Event *event = pool_keep(
      &copy->pool, entity_as_event(document ? document : &nothing, aggregate, version, time));
  Change *change = arena_alloc(copy->pool.arena, 1, sizeof *change);
  ChangeList list = {1, change};
  if (!(document ? change_from_entity(work->fresh, event, copy->pool.arena, change, ret_failure)
                 : change_for_removal(work->fresh, event, copy->pool.arena, change, ret_failure)))
    return false;
  if (!document && work->fresh->soft_rule)
    g_ptr_array_add(copy->gone, change->key);
  note->version = version;
  if (change->rule->operation == OP_UPSERT && change_is_marked(change)) {
    g_ptr_array_add(copy->marked, change->key);
    note->gone = position->max_version < version;
    note->version = MIN(version, position->max_version);
  }
  return fold_add(copy->fold, &list, NULL, ret_failure);
}

static bool carry(Work *work, const GPtrArray *keys, CarriedRows rows, Failure *ret_failure) {
  return shadow_carry(work->stores->session, work->live, work->fresh,
                      (const Value *const *)keys->pdata, keys->len, rows, ret_failure);
}

static void note_unusable(Copy *copy, const Aggregate *aggregate, const char *reason) {
  Unusable unusable = {aggregate, arena_copy(copy->pool.arena, reason, strlen(reason))};
  g_array_append_val(copy->unusable, unusable);
}

/* Reads positions before entities, so that a noted version is never newer than its row. */
static bool map_rows(Work *work, Copy *copy, Failure *ret_failure) {
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  g_autofree Id *ids = g_new(Id, copy->count + 1);
  g_assert(copy->aggregates || copy->count == 0);
  for (size_t i = 0; i < copy->count; i++)
    aggregate_set_open(copy->positions, &copy->aggregates[i]);
  if (!ledger_look_at_positions(work->stores->session, &work->stores->ledger, copy->positions,
                                copy->pool.arena, ret_failure))
    return false;
  g_autoptr(GHashTable) by_id = read_entities(work, copy, documents, ids, ret_failure);
  for (size_t i = 0; by_id && i < copy->count; i++) {
    const Aggregate *aggregate = &copy->aggregates[i];
    const Position *position = &aggregate_set_find(copy->positions, aggregate)->position;
    Failure failure = {0};
    const bson_t *document = g_hash_table_lookup(by_id, &aggregate->id);
    ShadowNote note = {.id = aggregate->id, .gone = !document};
    if (map_row(work, copy, aggregate, document, position, &note, &failure))
      g_array_append_val(copy->notes, note);
    else
      note_unusable(copy, aggregate, failure.message);
  }
  return by_id != NULL;
}

static bool write_copy(Work *work, Copy *copy, Failure *ret_failure) {
  Session *session = work->stores->session;
  Culprit culprit;
  bool good =
      session_run(session, ret_failure, "START TRANSACTION") &&
      apply_fold(session, copy->fold, &culprit, ret_failure) &&
      carry(work, copy->gone, CARRY_MARKED_ROWS, ret_failure) &&
      shadow_keep_marks(session, work->live, work->fresh, (const Value *const *)copy->marked->pdata,
                        copy->marked->len, ret_failure) &&
      shadow_note(session, &work->shadow, (const ShadowNote *)(void *)copy->notes->data,
                  copy->notes->len, ret_failure) &&
      session_run(session, ret_failure, "COMMIT");
  session_rollback(session);
  return good;
}

static bool copy_once(Work *work, const Aggregate *aggregates, size_t count, Failure *ret_failure) {
  Copy copy = {.aggregates = aggregates, .count = count, .pool = pool_new()};
  copy.positions = aggregate_set_new(copy.pool.arena);
  copy.fold = fold_new(copy.pool.arena);
  copy.notes = g_array_new(FALSE, FALSE, sizeof(ShadowNote));
  copy.unusable = g_array_new(FALSE, FALSE, sizeof(Unusable));
  copy.gone = g_ptr_array_new();
  copy.marked = g_ptr_array_new();
  bool good = map_rows(work, &copy, ret_failure) && write_copy(work, &copy, ret_failure);
  for (guint i = 0; good && i < copy.unusable->len; i++) {
    const Unusable *unusable = &g_array_index(copy.unusable, Unusable, i);
    rebuild_leave(work->rebuild, work->live, unusable->aggregate, unusable->reason);
  }
  g_array_unref(copy.unusable);
  g_array_unref(copy.notes);
  g_ptr_array_unref(copy.gone);
  g_ptr_array_unref(copy.marked);
  fold_free(copy.fold);
  aggregate_set_free(copy.positions);
  pool_free(&copy.pool);
  return good;
}

/* Retries a transaction that met another session's lock. */
static bool copy_or_retry(Work *work, const Aggregate *aggregates, size_t count,
                          Failure *ret_failure) {
  for (int retries = 0;; retries++) {
    *ret_failure = (Failure){0};
    if (copy_once(work, aggregates, count, ret_failure))
      return true;
    if (ret_failure->class != FAILURE_CONFLICT || retries == RETRIES_MAX)
      return false;
    g_usleep(RETRY_MS * 1000);
  }
}

/* A row that MySQL refuses is found by halving the batch; what was unusable in it is named by the
 * half that is written. */
static bool copy_batch(const Aggregate *aggregates, size_t count, void *data,
                       Failure *ret_failure) {
  Work *work = data;
  if (copy_or_retry(work, aggregates, count, ret_failure))
    return true;
  if (ret_failure->class != FAILURE_DATA && ret_failure->class != FAILURE_SIZE)
    return false;
  if (count == 1) {
    rebuild_leave(work->rebuild, work->live, aggregates, ret_failure->message);
    *ret_failure = (Failure){0};
    return true;
  }
  *ret_failure = (Failure){0};
  return copy_batch(aggregates, count / 2, work, ret_failure) &&
         copy_batch(aggregates + count / 2, count - count / 2, work, ret_failure);
}

static bool copy_all(Work *work, int64_t total, Failure *ret_failure) {
  Rebuild *rebuild = work->rebuild;
  g_autoptr(Fill) pages = fill_new(work->stores, work->live, rebuild->rate);
  Progress progress;
  progress_begin(&progress, work->shadow.fresh, rebuild->at.entities, total);
  bool good = true;
  for (bool end = false; good && !end;) {
    good = keep_awake(work, ret_failure) && fill_page(pages, &rebuild->at.entity, copy_batch, work,
                                                      &rebuild->at.entities, &end, ret_failure);
    if (good)
      rebuild_checkpoint(rebuild);
    progress_show(&progress, rebuild->at.entities);
  }
  progress_end(&progress);
  return good;
}

/* --- catching up ---------------------------------------------------------------------------- */

/* Hands out the aggregates whose copy is behind their position. */
static bool take_moved(Work *work, FillTake take, int64_t *ret_count, Failure *ret_failure) {
  g_autoptr(PositionWalk) walk = shadow_walk_moved(&work->shadow, work->rebuild->config->name,
                                                   work->live->aggregate_type, BATCH);
  const GArray *found;
  *ret_count = 0;
  for (;;) {
    Aggregate aggregates[BATCH];
    if (!keep_awake(work, ret_failure) ||
        !position_walk_next(walk, work->stores->session, &found, ret_failure))
      return false;
    if (!found)
      return true;
    for (guint i = 0; i < found->len; i++)
      aggregates[i] = g_array_index(found, PositionFound, i).aggregate;
    FillBatch batch = {work->live->entities, aggregates, found->len};
    if (found->len > 0 && !fill_by_size(work->stores, &batch, take, work, ret_failure))
      return false;
    *ret_count += found->len;
  }
}

/* Makes rounds as long as each finds less than the one before. */
static bool catch_up(Work *work, Failure *ret_failure) {
  int64_t before = INT64_MAX, count = 0;
  while (take_moved(work, copy_batch, &count, ret_failure)) {
    if (count <= FEW)
      return true;
    if (count < before) {
      before = count;
      continue;
    }
    return count <= MOST || failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_PROJECTOR, 0,
                                        "%s: %lld aggregates change faster than they are copied: "
                                        "let `run` drain the outbox first",
                                        work->live->table, (long long)count);
  }
  return false;
}

/* --- comparing ------------------------------------------------------------------------------ */

/* A row that was copied at the entity's version and still differs stays wrong; the others are
 * copied again. */
static bool judge(Difference *differences, size_t count, void *data, Failure *ret_failure) {
  Work *work = data;
  g_autofree Id *ids = g_new(Id, count);
  g_autofree int64_t *noted = g_new(int64_t, count);
  for (size_t i = 0; i < count; i++)
    ids[i] = differences[i].aggregate ? differences[i].aggregate->id : (Id){.kind = ID_OTHER};
  if (!shadow_find_noted(work->stores->session, &work->shadow, ids, count, noted, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    const Difference *difference = &differences[i];
    if (difference->kind == DIFFERENCE_UNMAPPABLE)
      rebuild_leave_different(work->rebuild, work->live, difference, difference->reason);
    else if (noted[i] == difference->version)
      rebuild_leave(work->rebuild, work->live, difference->aggregate,
                    "its new row differs from what was written: a generated column, or another "
                    "unique key changes it; or the entity changed without a new version");
    else if (!copy_batch(difference->aggregate, 1, work, ret_failure))
      return false;
  }
  return true;
}

static bool compare(Work *work, int64_t total, Failure *ret_failure) {
  const CompareRange all = {0};
  g_autoptr(Compare) comparison = compare_new(work->stores, work->fresh, &all, false, ret_failure);
  g_autofree char *what = g_strdup_printf("%s, comparing", work->shadow.fresh);
  bson_t *at = NULL;
  Progress progress;
  progress_begin(&progress, what, 0, total);
  bool good = comparison != NULL;
  for (bool end = false; good && !end;) {
    good = keep_awake(work, ret_failure) &&
           compare_entities(comparison, &at, judge, work, &end, ret_failure);
    progress_show(&progress, compare_counts(comparison)->entities);
  }
  progress_end(&progress);
  if (at)
    bson_destroy(at);
  return good;
}

/* --- swapping ------------------------------------------------------------------------------- */

/* A refresh only marks existing rows, and leaves a row to the soft delete that waits for it: the
 * new table takes over what the live one shows after it. */
static bool carry_again(Work *work, const Aggregate *aggregates, size_t count,
                        Failure *ret_failure) {
  Session *session = work->stores->session;
  const bson_t nothing = BSON_INITIALIZER;
  Pool pool = pool_new();
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  bool good = true;
  for (size_t i = 0; good && i < count; i++) {
    Event *event = pool_keep(&pool, entity_as_event(&nothing, &aggregates[i], 0, INT64_MIN));
    Change change;
    good = change_for_removal(work->fresh, event, pool.arena, &change, ret_failure);
    g_ptr_array_add(keys, change.key);
  }
  good = good && session_run(session, ret_failure, "START TRANSACTION") &&
         carry(work, keys, CARRY_ALL_ROWS, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
  session_rollback(session);
  pool_free(&pool);
  return good;
}

/* Refreshes the rows of all tables, also the live one: if the swap fails, that is right too. */
static bool refresh_batch(const Aggregate *aggregates, size_t count, void *data,
                          Failure *ret_failure) {
  Work *work = data;
  return keep_awake(work, ret_failure) &&
         rebuild_refresh(work->rebuild, work->stores, work->reads, work->live, aggregates, count,
                         ret_failure) &&
         (!work->fresh->soft_rule || carry_again(work, aggregates, count, ret_failure));
}

/* Refreshes the aggregates with events that their copies already contain. */
static bool refresh_contained(Work *work, GPtrArray *events, Failure *ret_failure) {
  g_autofree Id *ids = g_new(Id, events->len + 1);
  g_autofree int64_t *noted = g_new(int64_t, events->len + 1);
  g_autoptr(GHashTable) seen = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  g_autoptr(GArray) contained = g_array_new(FALSE, FALSE, sizeof(Aggregate));
  for (guint i = 0; i < events->len; i++)
    ids[i] = ((const Event *)events->pdata[i])->aggregate.id;
  if (!keep_awake(work, ret_failure) || !shadow_find_noted(work->stores->session, &work->shadow,
                                                           ids, events->len, noted, ret_failure))
    return false;
  for (guint i = 0; i < events->len; i++) {
    Event *event = events->pdata[i];
    if (event->key.version <= noted[i] && g_hash_table_add(seen, &event->aggregate))
      g_array_append_val(contained, event->aggregate);
  }
  return contained->len == 0 || refresh_batch((const Aggregate *)(void *)contained->data,
                                              contained->len, work, ret_failure);
}

static bool take_contained(Work *work, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_list_events(work->stores->outbox);
  for (bool more = true; more;) {
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    const bson_t *document = NULL;
    /* In between, the gate has to hear from us, however many events are of other types. */
    for (int read = 0; read < READ_AT_ONCE && events->len < BATCH &&
                       (document = event_cursor_next(cursor, ret_failure));
         read++) {
      g_autoptr(Event) event = event_decode(document);
      if (event_has_aggregate(event) &&
          projection_is_of(work->live, event->aggregate.type, event->aggregate.type_length))
        g_ptr_array_add(events, g_steal_pointer(&event));
    }
    more = document != NULL;
    if ((!more && ret_failure->class != FAILURE_NONE) ||
        !refresh_contained(work, events, ret_failure))
      return false;
  }
  return true;
}

/* Others write these columns, whenever they like: before the swap most of it is copied, and while
 * the gate is closed the rest. */
static bool carry_unnamed(Work *work, Session *gate, Failure *ret_failure) {
  const UnnamedCarry carry = {.live = work->live, .fresh = work->fresh, .gate = gate};
  return shadow_carry_unnamed(work->stores->session, &carry, ret_failure);
}

/* While the gate is closed nothing is applied; whatever the last round missed is refreshed. */
static bool finish(Work *work, bool *ret_swapped, Failure *ret_failure) {
  int64_t moved;
  Stores *stores = work->stores;
  Config both = *work->rebuild->config;
  Stores held = *stores;
  both.mapping = (Mapping *)work->both;
  held.config = &both;
  held.ledger.held = true;
  work->stores = &held;
  bool good =
      take_moved(work, refresh_batch, &moved, ret_failure) && take_contained(work, ret_failure);
  work->stores = stores;
  stores->session = held.session; /* the fence's session may have been opened again */
  good = good && (work->rebuild->at.left > 0 || carry_unnamed(work, work->gate, ret_failure));
  if (!good || work->rebuild->at.left > 0) {
    shadow_open_gate(work->gate, &work->shadow);
    return good;
  }
  *ret_swapped =
      shadow_swap(work->gate, work->renamer, stores->session, &work->shadow, ret_failure);
  return *ret_swapped;
}

static bool swap(Work *work, bool *ret_swapped, Failure *ret_failure) {
  Rebuild *rebuild = work->rebuild;
  g_autoptr(Session) gate = session_open(&rebuild->config->mysql, ret_failure);
  g_autoptr(Reads) reads = reads_new(&rebuild->stores, work->live->entities);
  work->gate = gate;
  work->reads = reads;
  return gate && session_run(gate, ret_failure, "SET SESSION wait_timeout = %d", GATE_HOLDS_S) &&
         rebuild_check_emptied(rebuild, work->live, ret_failure) &&
         stores_wake(work->stores, ret_failure) && carry_unnamed(work, NULL, ret_failure) &&
         shadow_mark(work->stores->session, &work->shadow, ret_failure) &&
         keep_awake(work, ret_failure) &&
         shadow_close_gate(gate, &work->shadow, rebuild->drop_old, ret_failure) &&
         finish(work, ret_swapped, ret_failure);
}

/* --- one table ------------------------------------------------------------------------------ */

/* Where an interrupted rebuild stood. If its tables are gone it starts again, unless they were
 * swapped already. */
static bool begin(Work *work, int64_t first, bool *ret_swapped, Failure *ret_failure) {
  Rebuild *rebuild = work->rebuild;
  Session *session = rebuild->stores.session;
  bool fresh, copied;
  if (!shadow_table_exists(session, work->shadow.fresh, &fresh, ret_failure) ||
      !shadow_table_exists(session, work->shadow.copied, &copied, ret_failure))
    return false;
  bool begun = rebuild->at.step > first || rebuild->at.entity;
  *ret_swapped = false;
  if (rebuild->at.step > first && copied && !fresh &&
      !shadow_was_swapped(session, &work->shadow, ret_swapped, ret_failure))
    return false;
  if (*ret_swapped || (begun && fresh && copied))
    return true;
  if (rebuild->at.entity)
    bson_destroy(g_steal_pointer(&rebuild->at.entity));
  rebuild->at = (RebuildCheckpoint){.step = first};
  return shadow_create(session, &work->shadow, ret_failure) &&
         carry_marked(work->stores, work->live, work->fresh, ret_failure);
}

static bool build(Work *work, int64_t first, bool *ret_swapped, Failure *ret_failure) {
  Rebuild *rebuild = work->rebuild;
  int64_t total;
  if (!begin(work, first, ret_swapped, ret_failure))
    return false;
  if (*ret_swapped)
    return true;
  if (!rebuild_estimate(rebuild, work->live, &total, ret_failure))
    return false;
  if (rebuild->at.step == first) {
    if (!copy_all(work, total, ret_failure))
      return false;
    rebuild_next_step(rebuild);
  }
  if (rebuild->at.left > 0)
    return true;
  if (!catch_up(work, ret_failure) || !compare(work, total, ret_failure) ||
      !catch_up(work, ret_failure))
    return false;
  return rebuild->at.left > 0 || swap(work, ret_swapped, ret_failure);
}

/* The mapping with one more projection, as if the file had the new table too. */
static Mapping *map_both(const Config *config, const Projection *live, const char *fresh,
                         Failure *ret_failure) {
  json_t *json = json_deep_copy(config->json);
  json_t *projections = json_object_get(json, "projections");
  json_t *added = json_deep_copy(json_array_get(projections, live->index));
  mapping_rename(added, live, fresh);
  json_array_append_new(projections, added);
  Mapping *both = mapping_parse(json, ret_failure);
  json_decref(json);
  return both;
}

/* With the table reserved. */
static bool rebuild_reserved(Work *work, guint at, Failure *ret_failure) {
  Rebuild *rebuild = work->rebuild;
  const Projection *live = work->live;
  bool swapped = false;
  g_autoptr(Entities) entities = entities_open(rebuild->stores.store, live->entities, NULL);
  work->entities = entities;
  if (!build(work, 2 * (int64_t)at, &swapped, ret_failure) ||
      !stores_wake(&rebuild->stores, ret_failure) ||
      !shadow_drop(rebuild->stores.session, &work->shadow, ret_failure))
    return false;
  if (swapped)
    rebuild_done(rebuild, live);
  else
    fprintf(stderr, "projector: %s is unchanged: correct the remaining entities first\n",
            live->table);
  rebuild->at = (RebuildCheckpoint){.step = 2 * (int64_t)at + 1};
  rebuild_next_step(rebuild);
  return true;
}

static bool rebuild_table(Rebuild *rebuild, guint at, Failure *ret_failure) {
  const Projection *live = rebuild->projections->pdata[at];
  Work work = {.rebuild = rebuild, .stores = &rebuild->stores, .live = live};
  rebuild->started_us = clock_us();
  if (!shadow_name(live, &work.shadow, ret_failure))
    return false;
  g_autoptr(Mapping) both = map_both(rebuild->config, live, work.shadow.fresh, ret_failure);
  if (!both)
    return false;
  work.both = both;
  work.fresh = mapping_find(both, work.shadow.fresh);
  work.renamer = shadow_open_renamer(&rebuild->config->mysql, &work.shadow, ret_failure);
  bool good = work.renamer && rebuild_reserved(&work, at, ret_failure);
  session_close(work.renamer);
  return good;
}

bool rebuild_shadow(Rebuild *rebuild, Failure *ret_failure) {
  for (guint i = 0; i < rebuild->projections->len; i++)
    if (rebuild->at.step <= 2 * (int64_t)i + 1 && !rebuild_table(rebuild, i, ret_failure))
      return false;
  return true;
}

/* --- before anything is written --------------------------------------------------------------- */

/* A key that an entity can change, or that is unknown without the entity, would leave rows
 * behind. */
static bool check_key(const Projection *projection, Failure *ret_failure) {
  for (unsigned i = 0; i < projection->key_count; i++)
    if (!source_is_of_aggregate(&projection->columns[i].from))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: its key %s comes from the entity and not from $aggregate_id, so "
                         "--shadow cannot follow a row; rebuild it without --shadow",
                         projection->table, projection->columns[i].name);
  return true;
}

bool rebuild_shadow_check(Rebuild *rebuild, Failure *ret_failure) {
  for (guint i = 0; i < rebuild->projections->len; i++) {
    const Projection *projection = rebuild->projections->pdata[i];
    Shadow shadow;
    if (!check_key(projection, ret_failure) || !shadow_name(projection, &shadow, ret_failure) ||
        !privileges_check_swap(&rebuild->config->mysql, &shadow, ret_failure) ||
        !shadow_check(rebuild->stores.session, &shadow, rebuild->drop_old, ret_failure) ||
        !unnamed_check(rebuild->stores.session, projection, ret_failure))
      return false;
    Failure failure = {0};
    g_autoptr(Mapping) both = map_both(rebuild->config, projection, shadow.fresh, &failure);
    if (!both) {
      *ret_failure = failure;
      return false;
    }
  }
  return true;
}

/* refresh.c - reads entities and writes them as rows. */
#include "projector/app/shared/refresh.h"

#include "projector/domain/entity.h"
#include "projector/infra/mysql/apply.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

/* Events read at a time. More than that of one aggregate in the outbox is unusual; of those beyond
 * only the highest version is read, which an aggregate without an entity is at. */
enum { LOOK_AHEAD = 1000 };

/* One transaction and what it will write. */
typedef struct RefreshBatch {
  Session *session;
  const Ledger *ledger;
  Outbox *outbox;
  const Mapping *mapping;
  Arena *arena;
  AggregateSet *set;
  Fold *fold;
  GPtrArray *events; /* owns what the fold and the positions point to */
  bool any;          /* there is something to write */
  Culprit culprit;   /* of a failure at the rows */
} RefreshBatch;

typedef struct EntityView {
  Event *event;    /* an event whose payload is the entity; NULL: there is no entity */
  int64_t version; /* of the entity; 0: none */
} EntityView;

static Event *keep(RefreshBatch *batch, Event *event) {
  g_ptr_array_add(batch->events, event);
  return event;
}

/* The aggregate's events in the outbox. They are read before the entity, so that it contains all of
 * them. */
static bool look_ahead(RefreshBatch *batch, const Refresh *refresh, GPtrArray *events,
                       Failure *ret_failure) {
  if (refresh->prefetched) {
    g_ptr_array_extend(events, refresh->events, NULL, NULL);
    return true;
  }
  g_autoptr(EventCursor) cursor = outbox_find_keys(batch->outbox, refresh->aggregate, LOOK_AHEAD);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure)))
    g_ptr_array_add(events, keep(batch, event_decode(document)));
  return ret_failure->class == FAILURE_NONE;
}

/* Of all its events, however many they are: the newest one is added to those that were read. */
static bool find_highest(RefreshBatch *batch, const Refresh *refresh, GPtrArray *events,
                         int64_t *ret_highest, Failure *ret_failure) {
  int64_t highest = 0;
  for (guint i = 0; i < events->len; i++)
    highest = MAX(highest, ((const Event *)events->pdata[i])->key.version);
  if (!refresh->prefetched && events->len >= LOOK_AHEAD) {
    g_autoptr(EventCursor) cursor = outbox_find_newest(batch->outbox, refresh->aggregate);
    const bson_t *document;
    bool found = false;
    while (!found && (document = event_cursor_next(cursor, ret_failure))) {
      Event *event = keep(batch, event_decode(document));
      found = event->key.version > 0; /* a malformed version is none */
      highest = MAX(highest, event->key.version);
      if (found)
        g_ptr_array_add(events, event);
    }
    if (ret_failure->class != FAILURE_NONE)
      return false;
  }
  *ret_highest = highest;
  return true;
}

static bool find_entity(RefreshBatch *batch, const Projection *projection, const Refresh *refresh,
                        bson_t **ret_entity, Failure *ret_failure) {
  *ret_entity = NULL;
  if (!refresh->prefetched || strcmp(refresh->prefetched, projection->entities) != 0)
    return outbox_read_entity(batch->outbox, projection->entities, &refresh->aggregate->id,
                              ret_entity, ret_failure);
  if (refresh->entity)
    *ret_entity = bson_copy(refresh->entity);
  return true;
}

/* All projections of the collection see the same time, so one that compares it decides. */
static int64_t time_to_write(const RefreshBatch *batch, const Projection *projection,
                             const Aggregate *aggregate, const bson_t *entity, int64_t known) {
  int64_t time = INT64_MIN, now = g_get_real_time() / 1000;
  for (unsigned i = 0; i < mapping_projection_count(batch->mapping); i++) {
    const Projection *other = mapping_projection(batch->mapping, i);
    if (projection_is_of(other, aggregate->type, aggregate->type_length) && other->entities &&
        !strcmp(other->entities, projection->entities) &&
        (time = entity_time_to_write(other, entity, known, now)) == INT64_MIN)
      break;
  }
  return time;
}

static bool read_entity(RefreshBatch *batch, const Projection *projection, const Refresh *refresh,
                        int64_t occurred_at, EntityView *ret_view, Failure *ret_failure) {
  const Aggregate *aggregate = refresh->aggregate;
  bson_t *entity;
  EntityView view = {0};
  if (!find_entity(batch, projection, refresh, &entity, ret_failure))
    return false;
  if (entity) {
    view.version = entity_version(entity);
    int64_t time = time_to_write(batch, projection, aggregate, entity, occurred_at);
    view.event = keep(batch, entity_as_event(entity, aggregate, view.version, time));
    bson_destroy(entity);
    if (view.version < 1)
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "the entity in %s has no version to refresh from", projection->entities);
  }
  *ret_view = view;
  return true;
}

/* A collection that is not there says nothing of its entities: a mistake in the mapping, or a drop,
 * must not delete rows unless somebody asked for that. */
static bool check_collection(RefreshBatch *batch, const Refresh *refresh,
                             const Projection *projection, Failure *ret_failure) {
  enum { NAMESPACE_NOT_FOUND = 26 };
  bool exists;
  if (!refresh->late)
    return true;
  if (!outbox_entities_exist(batch->outbox, projection->entities, &exists, ret_failure))
    return false;
  return exists || failure_set(ret_failure, FAILURE_DATA, SOURCE_MONGODB, NAMESPACE_NOT_FOUND,
                               "the collection %s does not exist, so a refresh would delete the "
                               "row of %s: correct \"entities\" in the mapping, or restore the "
                               "collection; if it was dropped on purpose, create it empty",
                               projection->entities, projection->table);
}

/* --- soft deletes that are still to come ---------------------------------------------------------
 */

/* An event in the outbox that the position will pass. */
typedef struct PassedEvent {
  const Event *event;
  ChangeList changes;
} PassedEvent;

static bool rule_marks(const Rule *rule) {
  return rule->soft;
}

/* Whether a row has another mark behind it than before, or none. */
static bool rule_decides_marks(const Rule *rule) {
  return rule->projection->soft_rule &&
         (rule->operation == OP_UPSERT || rule->operation == OP_DELETE);
}

/* By its rules alone, for which no payload is needed. */
static bool event_may(const Mapping *mapping, const Event *event, bool (*rule_does)(const Rule *)) {
  const Rule *const *rules =
      event->malformed ? NULL
                       : mapping_rules(mapping, event->aggregate.type, event->aggregate.type_length,
                                       event->event_type, event->event_type_length);
  for (; rules && *rules; rules++)
    if (rule_does(*rules))
      return true;
  return false;
}

/* Whether its entity is gone, or lives with a mark of its own. */
static bool is_deleted(const Change *row) {
  return row->rule->projection->soft_rule &&
         (row->gone || (row->rule->operation == OP_UPSERT && change_is_marked(row)));
}

static gint compare_events(gconstpointer a, gconstpointer b) {
  const Event *x = *(const Event *const *)a, *y = *(const Event *const *)b;
  return order_key_compare(&x->key, &y->key);
}

/* Reads one whole, unless it is no longer there. One that is dead is left out: MySQL has refused
 * what it says. `*ret_marks`: it marks a row, or may do so once it can be mapped. */
static bool read_waiting(RefreshBatch *batch, const Event *brief, GArray *waiting, bool *ret_marks,
                         Failure *ret_failure) {
  Failure unfit = {0};
  g_autoptr(EventCursor) cursor = outbox_find_event(batch->outbox, &brief->key.event_id);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  if (!document)
    return ret_failure->class == FAILURE_NONE;
  PassedEvent one = {.event = keep(batch, event_decode(document))};
  if (!change_list_map(batch->mapping, one.event, batch->arena, &one.changes, &unfit)) {
    *ret_marks |= event_may(batch->mapping, brief, rule_marks);
    return true;
  }
  for (unsigned i = 0; i < one.changes.count; i++)
    *ret_marks |= one.changes.changes[i].rule->soft;
  if (one.event->status != STATUS_DEAD)
    g_array_append_val(waiting, one);
  return true;
}

/* The events that decide how the deleted rows are marked, in their order. */
static bool find_waiting(RefreshBatch *batch, const Refresh *refresh, const GPtrArray *events,
                         const Position *position, GArray *waiting, bool *ret_marks,
                         Failure *ret_failure) {
  g_autoptr(GPtrArray) briefs = g_ptr_array_new();
  for (guint i = 0; i < events->len; i++) {
    const Event *event = events->pdata[i];
    if (event->key.version <= refresh->version &&
        event_may(batch->mapping, event, rule_decides_marks) &&
        order_standing(position, event, true) == STANDING_NEXT)
      g_ptr_array_add(briefs, (gpointer)event);
  }
  g_ptr_array_sort(briefs, compare_events);
  for (guint i = 0; i < briefs->len; i++)
    if (!read_waiting(batch, briefs->pdata[i], waiting, ret_marks, ret_failure))
      return false;
  return true;
}

/* Of the rows as the refresh found them, which come before what is added to them. */
static Change *row_of(const ChangeList *rows, const Projection *projection) {
  for (unsigned i = 0; i < rows->count; i++)
    if (rows->changes[i].rule->projection == projection)
      return is_deleted(&rows->changes[i]) ? &rows->changes[i] : NULL;
  return NULL;
}

static void forget_marks(GPtrArray *marks, const Projection *projection) {
  for (guint i = marks->len; i-- > 0;)
    if (((const Change *)marks->pdata[i])->rule->projection == projection)
      g_ptr_array_remove_index(marks, i);
}

/* A row that is written anew meanwhile loses the mark that it has now. What comes first for a row
 * whose entity is gone takes the place of what is known without it. */
static void take_mark(RefreshBatch *batch, Change *row, Change *change, GPtrArray *marks) {
  if (!change->rule->soft) {
    forget_marks(marks, change->rule->projection);
    row->keep_mark &= row->gone;
  } else if (!row->gone) {
    g_ptr_array_add(marks, change_to_mark(row, change, batch->arena));
  } else if (row->keep_mark) {
    *row = *change;
    row->gone = true; /* and a mark in the row is an older one */
  } else {
    g_ptr_array_add(marks, change);
  }
}

/* Deleted rows are marked as the events would do it, since the position will pass them. */
static void mark_by_events(RefreshBatch *batch, const GArray *waiting, ChangeList *rows) {
  g_autoptr(GPtrArray) marks = g_ptr_array_new();
  for (guint i = 0; i < waiting->len; i++) {
    const ChangeList *changes = &g_array_index(waiting, PassedEvent, i).changes;
    for (unsigned k = 0; k < changes->count; k++) {
      Change *change = &changes->changes[k];
      Change *row =
          rule_decides_marks(change->rule) ? row_of(rows, change->rule->projection) : NULL;
      if (row)
        take_mark(batch, row, change, marks);
    }
  }
  ChangeList all = {rows->count + marks->len,
                    arena_alloc(batch->arena, rows->count + marks->len, sizeof(Change))};
  memcpy(all.changes, rows->changes, rows->count * sizeof(Change));
  for (guint i = 0; i < marks->len; i++)
    all.changes[rows->count + i] = *(const Change *)marks->pdata[i];
  *rows = all;
}

static bool any_is_deleted(const ChangeList *rows) {
  for (unsigned i = 0; i < rows->count; i++)
    if (is_deleted(&rows->changes[i]))
      return true;
  return false;
}

static bool all_are_gone(const ChangeList *rows) {
  for (unsigned i = 0; i < rows->count; i++)
    if (!rows->changes[i].gone)
      return false;
  return true;
}

/* --- rows and position ---------------------------------------------------------------------------
 */

/* The rows of all projections of the type, and the version they show. */
static bool map_entities(RefreshBatch *batch, Refresh *refresh, const Event *absent, int64_t time,
                         ChangeList *list, Failure *ret_failure) {
  const Aggregate *aggregate = refresh->aggregate;
  bool any = false;
  EntityView view = {0};
  const char *read = NULL; /* the view's collection: all its rows come from one reading */
  for (unsigned i = 0; i < mapping_projection_count(batch->mapping); i++) {
    const Projection *projection = mapping_projection(batch->mapping, i);
    if (!projection_is_of(projection, aggregate->type, aggregate->type_length))
      continue;
    if (!projection->entities)
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "%s has no \"entities\" to refresh from", projection->table);
    if (!read || strcmp(read, projection->entities) != 0) {
      if (!read_entity(batch, projection, refresh, time, &view, ret_failure))
        return false;
      read = projection->entities;
    }
    if (!view.event && refresh->entity_needed)
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "there is no such entity in %s: a refresh would remove its rows",
                         projection->entities);
    if (!view.event && !check_collection(batch, refresh, projection, ret_failure))
      return false;
    int64_t version = view.event ? view.version : absent->key.version;
    if (any && version != refresh->version)
      return failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_EVENT, 0,
                         "the entities of the projections differ in version");
    any = true;
    refresh->version = version;
    Change *change = &list->changes[list->count];
    if (view.event
            ? change_from_entity(projection, view.event, batch->arena, change, ret_failure)
            : change_for_missing_entity(projection, absent, batch->arena, change, ret_failure))
      list->count++;
    else if (view.event || !refresh->remove) /* the keys are known from elsewhere */
      return false;
  }
  return any ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "no projection of %.*s to refresh",
                     (int)aggregate->type_length, aggregate->type);
}

/* Whether the refresh found the entity that the projection's rows come from. */
static bool has_entity(const ChangeList *rows, const Projection *projection) {
  for (unsigned i = 0; i < rows->count; i++)
    if (rows->changes[i].rule->projection == projection)
      return !rows->changes[i].gone;
  return false;
}

/* A row whose mark only an event knows cannot be marked here: it has to be marked already. */
static bool check_marked(RefreshBatch *batch, const Change *change, Failure *ret_failure) {
  const Projection *projection = change->rule->projection;
  bool unmarked;
  batch->culprit.projection = projection;
  if (!failure_at(
          ret_failure, STEP_ROWS,
          rows_find_unmarked(batch->session, projection, change->key, &unmarked, ret_failure)))
    return false;
  batch->culprit.projection = NULL;
  if (!unmarked)
    return true;
  g_autofree char *source = source_names(change_unknown_mark(projection));
  const char *mark = projection->columns[projection->mark].name;
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                     "the entity of a row of %s is gone, and %s, which marks a deleted row, comes "
                     "from %s, which only an event has: have that event applied, or set it "
                     "yourself (UPDATE %s SET %s = … WHERE …)",
                     projection->table, mark, source, projection->table, mark);
}

static bool check_all_marked(RefreshBatch *batch, const ChangeList *rows, Failure *ret_failure) {
  for (unsigned i = 0; i < rows->count; i++)
    if (rows->changes[i].gone && rows->changes[i].rule->operation == OP_IGNORE &&
        !check_marked(batch, &rows->changes[i], ret_failure))
      return false;
  return true;
}

static bool fold_removal(RefreshBatch *batch, Refresh *refresh, const Change *removal,
                         const ChangeList *rows, const Event *absent, Failure *ret_failure) {
  const Projection *projection = removal->rule->projection;
  Change *change = arena_alloc(batch->arena, 1, sizeof *change);
  ChangeList one = {1, change};
  *change = *removal;
  if (projection->soft_rule && !has_entity(rows, projection)) {
    refresh->marked = true;
    if (!change_for_row_of_missing_entity(projection, removal->key, absent, batch->arena, change,
                                          ret_failure))
      return false;
  }
  return check_all_marked(batch, &one, ret_failure) &&
         fold_add(batch->fold, &one, NULL, ret_failure);
}

static bool fold_rows(RefreshBatch *batch, Refresh *refresh, const ChangeList *rows,
                      const Event *absent, Failure *ret_failure) {
  for (guint i = 0; refresh->purge && i < refresh->purge->len; i++) {
    ChangeList one = {1, refresh->purge->pdata[i]};
    if (!fold_add(batch->fold, &one, NULL, ret_failure))
      return false;
  }
  for (guint i = 0; refresh->remove && i < refresh->remove->len; i++)
    if (!fold_removal(batch, refresh, refresh->remove->pdata[i], rows, absent, ret_failure))
      return false;
  return fold_add(batch->fold, rows, NULL, ret_failure);
}

/* The position after the refresh: never earlier than before, and at the newest event that the
 * entity contains. */
static void move_position(AggregateState *state, const GPtrArray *events, const Event *late,
                          int64_t version) {
  Position *position = &state->position;
  if (!position->known) {
    Event nothing = {0};
    order_pass(position, &nothing);
  }
  for (guint i = 0; i < events->len; i++) {
    const Event *event = events->pdata[i];
    if (event->key.version && event->key.version <= version && !event->malformed)
      order_advance(position, event);
  }
  if (late)
    order_advance(position, late);
  position->max_version = MAX(position->max_version, version);
  position->refreshed_version = MAX(position->refreshed_version, version);
  state->moved = true;
}

/* They are applied later, although the entity may contain them: only versions would tell. */
static int64_t count_doubtful(const RefreshBatch *batch, const Refresh *refresh,
                              const GPtrArray *events, const Position *position) {
  int64_t count = 0;
  for (guint i = 0; i < events->len; i++) {
    const Event *event = events->pdata[i];
    Standing standing = order_standing(position, event, true);
    bool waits = standing == STANDING_NEXT || standing == STANDING_LATE;
    bool other = !id_equal(&event->key.event_id, &refresh->late->key.event_id);
    if (waits && other && !event->malformed && event->key.version == 0 &&
        change_list_counts(batch->mapping, event))
      count++;
  }
  return count;
}

/* INT64_MIN: nothing indicates it. */
static int64_t time_of_absent(const Refresh *refresh, const Position *position) {
  int64_t applied_at = order_applied_at(position);
  if (applied_at != INT64_MIN) /* never before the time that the rows may show already */
    return applied_at;
  return refresh->late ? refresh->late->key.occurred_at : INT64_MIN;
}

/* Whether the rows stay as they are, since the event that deletes them is still to come and marks
 * them: nobody else knows when that was, and why. */
static bool settle_marks(RefreshBatch *batch, const Refresh *refresh, const GPtrArray *events,
                         const Position *position, ChangeList *rows, bool *ret_stay,
                         Failure *ret_failure) {
  g_autoptr(GArray) waiting = g_array_new(FALSE, FALSE, sizeof(PassedEvent));
  bool marking = false;
  if (any_is_deleted(rows) &&
      !find_waiting(batch, refresh, events, position, waiting, &marking, ret_failure))
    return false;
  *ret_stay = (refresh->late || refresh->leave_waiting) && marking && all_are_gone(rows);
  if (*ret_stay)
    return true;
  mark_by_events(batch, waiting, rows);
  if (check_all_marked(batch, rows, ret_failure))
    return true;
  if (!refresh->late || ret_failure->source != SOURCE_EVENT)
    return false;
  *ret_failure = (Failure){0};
  *ret_stay = true;
  return true;
}

/* Adds an aggregate's rows and its position to the batch. */
static bool add_refresh(RefreshBatch *batch, Refresh *refresh, Failure *ret_failure) {
  const Aggregate *aggregate = refresh->aggregate;
  AggregateState *state = aggregate_set_find(batch->set, aggregate);
  g_autoptr(GPtrArray) events = g_ptr_array_new();
  ChangeList rows = {.changes = arena_alloc(batch->arena, mapping_projection_count(batch->mapping),
                                            sizeof(Change))};
  Item item = {.event = refresh->late, .verdict = VERDICT_SUPERSEDED};
  bool repeated = false, stay;
  int64_t highest;
  if (!look_ahead(batch, refresh, events, ret_failure) ||
      !find_highest(batch, refresh, events, &highest, ret_failure))
    return false;
  if (refresh->rewind)
    state->position = (Position){0};
  int64_t newest = MAX(highest, state->position.max_version);
  bson_t nothing = BSON_INITIALIZER;
  int64_t time = time_of_absent(refresh, &state->position);
  const Event *absent =
      keep(batch, entity_as_event(&nothing, aggregate, newest,
                                  time == INT64_MIN ? g_get_real_time() / 1000 : time));
  bson_destroy(&nothing);
  if (!map_entities(batch, refresh, absent, time, &rows, ret_failure) ||
      !settle_marks(batch, refresh, events, &state->position, &rows, &stay, ret_failure))
    return false;
  if (!stay && refresh->version < state->position.max_version)
    return failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_EVENT, 0,
                       "the entity is at version %lld, behind version %lld that was applied",
                       (long long)refresh->version, (long long)state->position.max_version);
  if (refresh->late &&
      !failure_at(ret_failure, STEP_LEDGER,
                  ledger_insert(batch->session, batch->ledger, &item, 1, &repeated, ret_failure)))
    return false;
  if (repeated) /* applied after all; the rows are right as they are */
    return true;
  if (stay && !refresh->late)
    return true;
  batch->any = true;
  if (stay) { /* and the events that follow the late one are applied */
    order_pass(&state->position, refresh->late);
    state->moved = true;
    return true;
  }
  move_position(state, events, refresh->late, refresh->version);
  if (refresh->late)
    refresh->doubtful = count_doubtful(batch, refresh, events, &state->position);
  return fold_rows(batch, refresh, &rows, absent, ret_failure);
}

/* A fault in one entity does not prevent the refresh of the others. */
static bool add_all(RefreshBatch *batch, Refresh *refreshes, size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    Failure failure = {0};
    if (add_refresh(batch, &refreshes[i], &failure))
      continue;
    if (failure.source != SOURCE_EVENT) {
      *ret_failure = failure;
      return false;
    }
    refreshes[i].failure = failure;
  }
  return true;
}

static bool transact(RefreshBatch *batch, const Prefetch *prefetch, Refresh *refreshes,
                     size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    aggregate_set_open(batch->set, refreshes[i].aggregate);
    refreshes[i].failure.class = FAILURE_NONE;
    refreshes[i].prefetched = NULL;
  }
  if (!failure_at(ret_failure, STEP_BEGIN,
                  session_run(batch->session, ret_failure, "START TRANSACTION")) ||
      !failure_at(
          ret_failure, STEP_ENTER,
          ledger_enter(batch->session, batch->ledger, batch->set, batch->arena, ret_failure)) ||
      (prefetch && !prefetch->read(prefetch->data, refreshes, count, ret_failure)) ||
      !add_all(batch, refreshes, count, ret_failure))
    return false;
  return !batch->any ||
         (failure_at(ret_failure, STEP_ROWS,
                     apply_fold(batch->session, batch->fold, &batch->culprit, ret_failure)) &&
          failure_at(
              ret_failure, STEP_POSITIONS,
              ledger_write_positions(batch->session, batch->ledger, batch->set, ret_failure)) &&
          failure_at(ret_failure, STEP_COMMIT, session_run(batch->session, ret_failure, "COMMIT")));
}

bool refresh_aggregates(const RefreshWith *with, Refresh *refreshes, size_t count,
                        Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  g_autoptr(Fold) fold = fold_new(arena);
  g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  RefreshBatch batch = {with->session, with->ledger, with->outbox, with->mapping, arena,
                        set,           fold,         events,       false,         {0}};
  bool good = transact(&batch, with->prefetch, refreshes, count, ret_failure);
  for (size_t i = 0; i < count; i++)
    refreshes[i].culprit = good ? NULL : batch.culprit.projection;
  session_rollback(with->session); /* after a COMMIT there is nothing to roll back */
  return good;
}

/* refresh.c - reads entities and writes them as rows. */
#include "projector/app/refresh.h"

#include "projector/infra/mysql/apply.h"

#include <string.h>

/* Events read in one look-up; more than that of one aggregate in the outbox is unusual, and what
 * lies beyond is then found late and refreshed again. */
enum { LOOK_AHEAD = 1000 };

typedef struct EntityView {
  Event *event;    /* an event whose payload is the entity; NULL: there is no entity */
  int64_t version; /* of the entity; 0: none */
} EntityView;

static bool is_of_type(const Projection *projection, const Aggregate *aggregate) {
  return strlen(projection->aggregate_type) == aggregate->type_length &&
         !memcmp(projection->aggregate_type, aggregate->type, aggregate->type_length);
}

/* The newest event of the aggregate in the outbox with a version up to `version` (0: any), and the
 * highest version there. Read before the entity, so that the entity contains all of them. */
static bool look_ahead(Outbox *outbox, const Aggregate *aggregate, GPtrArray *events,
                       Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_aggregate(outbox, aggregate, NULL, LOOK_AHEAD);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure)))
    g_ptr_array_add(events, event_decode(document));
  return ret_failure->class == FAILURE_NONE;
}

static int64_t highest_version(const GPtrArray *events) {
  int64_t highest = 0;
  for (guint i = 0; i < events->len; i++)
    highest = MAX(highest, ((const Event *)events->pdata[i])->key.version);
  return highest;
}

/* The entity in the form of an event, so that the mapping reads it like one. */
static Event *as_event(const bson_t *entity, const Aggregate *aggregate, int64_t version,
                       int64_t occurred_at) {
  bson_t document = BSON_INITIALIZER;
  bson_append_utf8(&document, "aggregate_type", -1, aggregate->type, (int)aggregate->type_length);
  id_append_bson(&aggregate->id, &document, "aggregate_id");
  if (version)
    BSON_APPEND_INT64(&document, "version", version);
  if (occurred_at != INT64_MIN)
    BSON_APPEND_DATE_TIME(&document, "occurred_at", occurred_at);
  BSON_APPEND_DOCUMENT(&document, "payload", entity);
  Event *event = event_decode(&document);
  bson_destroy(&document);
  return event;
}

static int64_t entity_version(const bson_t *entity) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, entity, "version") && BSON_ITER_HOLDS_NUMBER(&iter)
             ? bson_iter_as_int64(&iter)
             : 0;
}

static int64_t entity_time(const bson_t *entity, int64_t otherwise) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, entity, "last_event_at") && BSON_ITER_HOLDS_DATE_TIME(&iter)
             ? bson_iter_date_time(&iter)
             : otherwise;
}

static bool read_entity(Outbox *outbox, const Projection *projection, const Aggregate *aggregate,
                        int64_t occurred_at, EntityView *ret_view, Failure *ret_failure) {
  bson_t *entity = NULL;
  EntityView view = {0};
  if (!outbox_read_entity(outbox, projection->entities, &aggregate->id, &entity, ret_failure))
    return false;
  if (entity) {
    view.version = entity_version(entity);
    view.event = as_event(entity, aggregate, view.version, entity_time(entity, occurred_at));
    bson_destroy(entity);
    if (view.version < 1) {
      event_free(view.event);
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "the entity in %s has no version to refresh from", projection->entities);
    }
  }
  *ret_view = view;
  return true;
}

/* Adds the rows of all projections of the type; `*ret_version` is the version they show. */
static bool fold_entities(Outbox *outbox, const Mapping *mapping, const Aggregate *aggregate,
                          const Event *absent, int64_t newest, GPtrArray *entities, Fold *fold,
                          Arena *arena, int64_t *ret_version, Failure *ret_failure) {
  bool any = false;
  EntityView view = {0};
  const char *read = NULL; /* the collection of the view: all its rows come from one reading */
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    if (!is_of_type(projection, aggregate))
      continue;
    if (!projection->entities)
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "%s has no \"entities\" to refresh from", projection->table);
    if (!read || strcmp(read, projection->entities) != 0) {
      if (!read_entity(outbox, projection, aggregate, absent->key.occurred_at, &view, ret_failure))
        return false;
      if (view.event)
        g_ptr_array_add(entities, view.event);
      read = projection->entities;
    }
    Change change;
    if (!(view.event ? change_from_entity(projection, view.event, arena, &change, ret_failure)
                     : change_for_missing_entity(projection, absent, arena, &change, ret_failure)))
      return false;
    int64_t version = view.event ? view.version : newest;
    if (any && version != *ret_version)
      return failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_EVENT, 0,
                         "the entities of the projections differ in version");
    any = true;
    *ret_version = version;
    ChangeList list = {1, &change};
    if (!fold_add(fold, &list, ret_failure))
      return false;
  }
  return any ||
         failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "no projection of %.*s to refresh",
                     (int)aggregate->type_length, aggregate->type);
}

/* The position after the refresh: never behind where it was, and at the newest event that the
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

static bool transact(Session *session, const Ledger *ledger, Outbox *outbox, const Mapping *mapping,
                     const Aggregate *aggregate, Event *late, Arena *arena, int64_t *ret_version,
                     Failure *ret_failure) {
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  AggregateState *state = aggregate_set_open(set, aggregate);
  g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_autoptr(GPtrArray) entities = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_autoptr(Fold) fold = fold_new(arena);
  int64_t version = 0;
  bool repeated = false;
  Item item = {.event = late, .verdict = VERDICT_SUPERSEDED};

  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, ledger, ret_failure) ||
      !ledger_read_positions(session, ledger, set, arena, ret_failure) ||
      !look_ahead(outbox, aggregate, events, ret_failure))
    return false;
  int64_t newest = MAX(highest_version(events), state->position.max_version);
  bson_t nothing = BSON_INITIALIZER;
  g_autoptr(Event) absent = as_event(&nothing, aggregate, newest,
                                     late                    ? late->key.occurred_at
                                     : state->position.known ? state->position.last.occurred_at
                                                             : INT64_MIN);
  bson_destroy(&nothing);
  if (!fold_entities(outbox, mapping, aggregate, absent, newest, entities, fold, arena, &version,
                     ret_failure))
    return false;
  if (version < state->position.max_version)
    return failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_EVENT, 0,
                       "the entity is at version %lld, behind version %lld that was applied",
                       (long long)version, (long long)state->position.max_version);
  if (late && !ledger_insert(session, ledger, &item, 1, &repeated, ret_failure))
    return false;
  if (repeated) /* applied before after all; the rows are right as they are */
    return true;
  const Projection *culprit;
  move_position(state, events, late, version);
  *ret_version = version;
  return apply_fold(session, fold, &culprit, ret_failure) &&
         ledger_write_positions(session, ledger, set, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

bool refresh_aggregate(Session *session, const Ledger *ledger, Outbox *outbox,
                       const Mapping *mapping, const Aggregate *aggregate, Event *late,
                       int64_t *ret_version, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  bool good =
      transact(session, ledger, outbox, mapping, aggregate, late, arena, ret_version, ret_failure);
  session_rollback(session); /* after a COMMIT there is nothing to roll back */
  return good;
}

/* fake_cursor.c - reads the outbox in memory, and the entities. */
#include "tests/sim/fake_mongo.h"

#include <stdlib.h>
#include <string.h>

/* --- look-ups -------------------------------------------------------------------------------- */

static void destroy_document(gpointer document) {
  bson_destroy(document);
}

EventCursor *cursor_new(const Outbox *outbox, Query query) {
  EventCursor *cursor = g_new0(EventCursor, 1);
  cursor->outbox = outbox;
  cursor->query = query;
  cursor->limit = EVENTS_MAX;
  cursor->found = g_ptr_array_new_with_free_func(destroy_document);
  return cursor;
}

void event_cursor_free(EventCursor *cursor) {
  if (!cursor)
    return;
  g_ptr_array_unref(cursor->found);
  g_clear_pointer(&cursor->filter, bson_destroy);
  g_free(cursor);
}

static bool is_behind(const SimEvent *event, const OrderKey *after) {
  OrderKey key = {.occurred_at = event->occurred_at,
                  .version = event->version,
                  .event_id = {.kind = ID_STRING,
                               .length = (uint32_t)strlen(event->id),
                               .bytes = (const uint8_t *)event->id}};
  return !after || order_key_compare(&key, after) > 0;
}

static bool matches(const EventCursor *cursor, const SimEvent *event) {
  if (!event->present && cursor->query != UNFED && cursor->query != UNNUMBERED)
    return false;
  switch (cursor->query) {
  case ALL: return true;
  case ABANDONED: return is_abandoned(cursor->outbox, event, cursor->older_than_ms);
  case OF_AGGREGATE:
    return event->aggregate == cursor->aggregate && is_behind(event, cursor->after);
  case VERSIONS:
    return event->aggregate == cursor->aggregate && event->version >= cursor->first &&
           event->version <= cursor->last;
  case OF_IDS: return cursor->wanted[event->index];
  case SELECTED: return is_selected(cursor->selection, event);
  case FILTERED: return filter_selects(cursor->outbox->owner, cursor->filter, event);
  case UNFED:
    return !event->fed && event->inserted_at >= 0 && event->inserted_at <= cursor->moment_us &&
           (event->present || event->removed_at > cursor->moment_us);
  case UNNUMBERED: return event->archived && event->seq == 0;
  }
  return false;
}

static int compare_pointers(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

static void fill(EventCursor *cursor) {
  g_autofree SimEvent *shown = g_new(SimEvent, EVENTS_MAX);
  const SimEvent *found[EVENTS_MAX];
  unsigned count = 0;
  for (unsigned i = 0; i < sim.event_count; i++) {
    shown[i] = cursor->query == OF_IDS || cursor->query == FILTERED
                   ? sim.events[i]
                   : as_known_to_majority(&sim.events[i]);
    if (matches(cursor, &shown[i]))
      found[count++] = &shown[i];
  }
  if (count > 1)
    qsort(found, count, sizeof *found, compare_pointers);
  for (unsigned i = 0; i < count && i < cursor->limit; i++) {
    sim_trace("  found %s, %s", found[i]->id, status_names[found[i]->status]);
    g_ptr_array_add(cursor->found, mongo_document(found[i]));
  }
}

const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure) {
  static const char *const names[] = {"scan",          "find abandoned", "find aggregate",
                                      "find versions", "find events",    "find selected",
                                      "find to leave", "find unfed",     "find unnumbered"};
  ret_failure->class = FAILURE_NONE;
  if (!cursor->open || sim_chance(100)) {
    if (!call_begin(MONGO, names[cursor->query], ret_failure))
      return NULL;
    if (!cursor->open)
      fill(cursor);
    cursor->open = true;
    if (!call_end(MONGO, names[cursor->query], ret_failure))
      return NULL;
  }
  if (cursor->query == ALL && fiber_now_us() < sim.faults.history_until && sim_chance(100)) {
    counts.histories++;
    failure_set(ret_failure, FAILURE_HISTORY, SOURCE_MONGODB, 43, "the cursor is gone");
    return NULL;
  }
  return cursor->next < cursor->found->len ? cursor->found->pdata[cursor->next++] : NULL;
}

EventCursor *outbox_scan(Outbox *outbox, uint32_t *ret_seconds, uint32_t *ret_increment,
                         Failure *ret_failure) {
  if (!call_begin(MONGO, "cluster time", ret_failure))
    return NULL;
  uint32_t position = sim.inserts->len;
  if (!call_end(MONGO, "cluster time", ret_failure))
    return NULL;
  *ret_seconds = (uint32_t)(sim_server_ms(MONGO) / 1000);
  *ret_increment = position;
  return cursor_new(outbox, ALL);
}

EventCursor *outbox_find_abandoned(Outbox *outbox, int64_t older_than_ms) {
  EventCursor *cursor = cursor_new(outbox, ABANDONED);
  cursor->older_than_ms = older_than_ms;
  return cursor;
}

EventCursor *outbox_find_aggregate(Outbox *outbox, const Aggregate *aggregate,
                                   const OrderKey *after, int limit) {
  EventCursor *cursor = cursor_new(outbox, OF_AGGREGATE);
  cursor->aggregate = aggregate_of_id(&aggregate->id);
  cursor->after = after; /* outlives the cursor */
  cursor->limit = (unsigned)limit;
  return cursor;
}

EventCursor *outbox_find_keys(Outbox *outbox, const Aggregate *aggregate, int limit) {
  return outbox_find_aggregate(outbox, aggregate, NULL, limit);
}

/* No aggregate of the simulation has a thousand events. */
EventCursor *outbox_find_newest(Outbox *outbox, const Aggregate *aggregate) {
  (void)outbox, (void)aggregate;
  g_assert_not_reached();
}

EventCursor *outbox_find_versions(Outbox *outbox, const Aggregate *aggregate, int64_t first,
                                  int64_t last) {
  EventCursor *cursor = cursor_new(outbox, VERSIONS);
  fiber_turn()->into_gaps = true;
  cursor->aggregate = aggregate_of_id(&aggregate->id);
  cursor->first = first;
  cursor->last = last;
  return cursor;
}

EventCursor *outbox_find_event(Outbox *outbox, const Id *id) {
  return outbox_find_events(outbox, &id, 1);
}

EventCursor *outbox_find_events(Outbox *outbox, const Id *const *ids, size_t count) {
  EventCursor *cursor = cursor_new(outbox, OF_IDS);
  for (size_t i = 0; i < count; i++)
    cursor->wanted[event_of_id(ids[i])->index] = true;
  return cursor;
}

bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "remove present", ret_failure))
    return false;
  for (guint i = ids->len; i-- > 0;)
    if (as_known_to_majority(event_of_id(&g_array_index(ids, Id, i))).present)
      g_array_remove_index_fast(ids, i);
  return call_end(MONGO, "remove present", ret_failure);
}

/* As the collection has it or, for a while, as a backup had it. An entity that was absent in the
 * backup stays as it is: it could not be told from one that was removed. */
static Entity entity_now(unsigned aggregate) {
  Entity entity = sim.entities[aggregate], before = {0};
  if (fiber_now_us() >= sim.faults.restored_until)
    return entity;
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *event = &sim.events[i];
    if (event->aggregate == aggregate && event->version > before.version &&
        event->version <= entity.version - sim.faults.restored_by)
      before = (Entity){.version = event->version, .last_event_at = event->occurred_at};
  }
  before.state = state_at(aggregate, before.version);
  if (!before.state.present)
    return entity;
  counts.restored += before.version < sim.positions[aggregate].max_version;
  return before;
}

bool outbox_read_entity(Outbox *outbox, const char *collection, const Id *id, bson_t **ret_entity,
                        Failure *ret_failure) {
  (void)outbox;
  if (strcmp(collection, "accounts"))
    sim_fail("entities are read from %s", collection);
  if (!call_begin(MONGO, "read entity", ret_failure))
    return false;
  unsigned aggregate = aggregate_of_id(id);
  Entity entity = entity_now(aggregate);
  if (!call_end(MONGO, "read entity", ret_failure))
    return false;
  *fiber_read() = (EntityRead){true, aggregate, entity.state.present ? entity.version : 0};
  *ret_entity = NULL;
  if (!entity.state.present)
    return true;
  *ret_entity = BCON_NEW("_id", "a", "version", BCON_INT64(entity.version), "last_event_at",
                         BCON_DATE_TIME(entity.last_event_at), "name", BCON_UTF8(entity.state.name),
                         "balance", BCON_INT64(entity.state.balance), "total",
                         BCON_INT64(entity.state.total));
  if (entity.state.note[0])
    BSON_APPEND_UTF8(*ret_entity, "note", entity.state.note);
  return true;
}

/* Nobody drops the collection. */
bool outbox_entities_exist(Outbox *outbox, const char *collection, bool *ret_exist,
                           Failure *ret_failure) {
  (void)outbox, (void)collection;
  *ret_exist = true;
  return call_begin(MONGO, "list collections", ret_failure) &&
         call_end(MONGO, "list collections", ret_failure);
}

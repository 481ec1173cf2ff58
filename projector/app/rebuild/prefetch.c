/* prefetch.c - two queries for a batch of refreshes. */
#include "projector/app/rebuild/prefetch.h"

#include "projector/domain/entity.h"
#include "projector/infra/mongo/selection.h"

/* If there are more events, each aggregate's are read separately, which is bounded. */
enum { EVENTS_MAX = 20000 };

struct Reads {
  Stores *stores;
  const char *collection;
  Entities *entities;
  GPtrArray *events;    /* of Event */
  GPtrArray *documents; /* of bson_t */
  GPtrArray *lists;     /* of GPtrArray: the events of each aggregate */
};

Reads *reads_new(Stores *stores, const char *entities) {
  Reads *reads = g_new0(Reads, 1);
  *reads = (Reads){stores,
                   entities,
                   entities_open(stores->store, entities, NULL),
                   g_ptr_array_new_with_free_func((GDestroyNotify)event_free),
                   g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy),
                   g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref)};
  return reads;
}

void reads_free(Reads *reads) {
  if (!reads)
    return;
  g_ptr_array_unref(reads->lists);
  g_ptr_array_unref(reads->events);
  g_ptr_array_unref(reads->documents);
  entities_close(reads->entities);
  g_free(reads);
}

/* False without a failure: there are too many. */
static bool read_events(Reads *reads, const Refresh *refreshes, size_t count,
                        Failure *ret_failure) {
  g_autofree const Aggregate **aggregates = g_new(const Aggregate *, count);
  for (size_t i = 0; i < count; i++)
    aggregates[i] = refreshes[i].aggregate;
  g_autoptr(EventCursor) cursor = outbox_find_of_any(reads->stores->outbox, aggregates, count);
  const bson_t *document = NULL;
  while (reads->events->len < EVENTS_MAX && (document = event_cursor_next(cursor, ret_failure)))
    g_ptr_array_add(reads->events, event_decode(document));
  return !document && ret_failure->class == FAILURE_NONE;
}

static bool read_entities(Reads *reads, const Refresh *refreshes, size_t count,
                          Failure *ret_failure) {
  g_autofree Id *ids = g_new(Id, count);
  for (size_t i = 0; i < count; i++)
    ids[i] = refreshes[i].aggregate->id;
  return entities_find(reads->entities, ids, count, reads->documents, ret_failure);
}

/* Gives each refresh its own part. */
static void hand_out(Reads *reads, Refresh *refreshes, size_t count) {
  g_autoptr(GHashTable) by_id = g_hash_table_new(id_hash_key, id_equal_key);
  g_autofree Id *ids = g_new(Id, reads->documents->len + 1);
  for (size_t i = 0; i < count; i++) {
    Refresh *refresh = &refreshes[i];
    refresh->events = g_ptr_array_new();
    refresh->entity = NULL;
    refresh->prefetched = reads->collection;
    g_ptr_array_add(reads->lists, refresh->events);
    g_hash_table_insert(by_id, (gpointer)&refresh->aggregate->id, refresh);
  }
  for (guint i = 0; i < reads->events->len; i++) {
    Event *event = reads->events->pdata[i];
    Refresh *refresh = g_hash_table_lookup(by_id, &event->aggregate.id);
    if (refresh)
      g_ptr_array_add(refresh->events, event);
  }
  for (guint i = 0; i < reads->documents->len; i++) {
    Refresh *refresh = NULL;
    if (entity_id(reads->documents->pdata[i], &ids[i]))
      refresh = g_hash_table_lookup(by_id, &ids[i]);
    if (refresh)
      refresh->entity = reads->documents->pdata[i];
  }
}

static bool read_all(void *data, Refresh *refreshes, size_t count, Failure *ret_failure) {
  Reads *reads = data;
  g_ptr_array_set_size(reads->lists, 0);
  g_ptr_array_set_size(reads->events, 0);
  g_ptr_array_set_size(reads->documents, 0);
  if (!read_events(reads, refreshes, count, ret_failure))
    return ret_failure->class == FAILURE_NONE;
  if (!read_entities(reads, refreshes, count, ret_failure))
    return false;
  hand_out(reads, refreshes, count);
  return true;
}

Prefetch reads_prefetch(Reads *reads) {
  return (Prefetch){read_all, reads};
}

/* history.c - an aggregate's events from the outbox, then from the archive. */
#include "projector/app/replay/history.h"

void history_free(History *history) {
  if (!history)
    return;
  g_ptr_array_unref(history->waiting);
  g_ptr_array_unref(history->archived);
  g_free(history);
}

static bool read_events(Outbox *from, const Aggregate *aggregate,
                        Event *(*decode)(const bson_t *document), GPtrArray *events,
                        Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = archive_find_aggregate(from, aggregate);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure)))
    g_ptr_array_add(events, decode(document));
  return ret_failure->class == FAILURE_NONE;
}

static void remove_moved(const History *history) {
  g_autoptr(GHashTable) moved = g_hash_table_new(id_hash_key, id_equal_key);
  for (guint i = 0; i < history->archived->len; i++)
    g_hash_table_add(moved, &((Event *)history->archived->pdata[i])->key.event_id);
  for (guint i = history->waiting->len; i-- > 0;)
    if (g_hash_table_contains(moved, &((Event *)history->waiting->pdata[i])->key.event_id))
      g_ptr_array_remove_index(history->waiting, i);
}

History *history_read(Outbox *outbox, Archive *archive, const Aggregate *aggregate,
                      Failure *ret_failure) {
  g_autoptr(History) history = g_new0(History, 1);
  history->waiting = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  history->archived = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  if (!read_events(outbox, aggregate, event_decode, history->waiting, ret_failure) ||
      !read_events(archive_events(archive), aggregate, archive_decode, history->archived,
                   ret_failure))
    return NULL;
  remove_moved(history);
  return g_steal_pointer(&history);
}

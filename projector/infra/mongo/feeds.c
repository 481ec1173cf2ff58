/* feeds.c - which events are copied into feeds, and in what order: read again, or from memory.
 */
#include "projector/infra/mongo/feeds.h"

#include "projector/infra/crash.h"
#include "projector/infra/mongo/feeds_private.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

static bool are_named(const Outbox *outbox) {
  return *feeds_of(outbox_store(outbox)) != NULL;
}

/* --- copies of what is in the outbox -------------------------------------------------------- */

/* Copies the events of the outbox that the filter selects into each feed that does not have them,
 * in order, for a majority. */
static bool copy(Outbox *outbox, const bson_t *filter, Failure *ret_failure) {
  const char *const *feed = feeds_of(outbox_store(outbox));
  if (*feed)
    crash_point("before_feed");
  for (; *feed; feed++) {
    if (!feed_copy_into(outbox, *feed, filter, ret_failure))
      return false;
    crash_point("after_feed");
  }
  return true;
}

enum { BRANCHES = 50 }; /* of one $or: MongoDB plans each branch separately */

/* How far back to look in an aggregate: its latest event among those given. */
typedef struct Reach {
  Event *event; /* owned; has the aggregate */
  int64_t until;
} Reach;

static void free_reach(gpointer data) {
  Reach *reach = data;
  event_free(reach->event);
  g_free(reach);
}

/* In another system's outbox the time may be of any type: then there is no bound. */
static void append_reach(const Outbox *outbox, bson_t *list, uint32_t at, const Reach *reach) {
  bson_t earlier;
  char buffer[16];
  const char *key;
  bson_uint32_to_string(at, &key, buffer, sizeof buffer);
  BSON_APPEND_DOCUMENT_BEGIN(list, key, &earlier);
  outbox_append_aggregate(outbox, &earlier, &reach->event->aggregate);
  if (!outbox_is_foreign(outbox))
    BCON_APPEND(&earlier, "occurred_at", "{", "$lte", BCON_DATE_TIME(reach->until), "}");
  bson_append_document_end(list, &earlier);
}

static bool copy_reaches(Outbox *outbox, GHashTable *reaches, Failure *ret_failure) {
  GHashTableIter iter;
  gpointer reach;
  g_hash_table_iter_init(&iter, reaches);
  for (bool more = true, good = true; more;) {
    bson_t list = BSON_INITIALIZER, filter = BSON_INITIALIZER;
    uint32_t count = 0;
    while (count < BRANCHES && (more = g_hash_table_iter_next(&iter, NULL, &reach)))
      append_reach(outbox, &list, count++, reach);
    BSON_APPEND_ARRAY(&filter, "$or", &list);
    good = count == 0 || copy(outbox, &filter, ret_failure);
    bson_destroy(&filter);
    bson_destroy(&list);
    if (!good)
      return false;
  }
  return true;
}

/* Takes over the event. */
static void reach_out(GHashTable *reaches, Event *event) {
  Reach *reach = g_new(Reach, 1);
  *reach = (Reach){event, event->key.occurred_at};
  Reach *known = g_hash_table_lookup(reaches, &event->aggregate);
  if (!known) {
    g_hash_table_insert(reaches, &event->aggregate, reach);
    return;
  }
  known->until = MAX(known->until, reach->until);
  free_reach(reach);
}

bool feeds_copy_with_earlier(Outbox *outbox, const bson_t *filter, Failure *ret_failure) {
  if (!are_named(outbox))
    return true;
  g_autoptr(GHashTable) reaches =
      g_hash_table_new_full(aggregate_hash_key, aggregate_equal_key, NULL, free_reach);
  bool any_without = false;
  /* Whoever takes events out needs only their ids. */
  g_autoptr(EventCursor) cursor = outbox_find(
      outbox, bson_copy(filter), BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}"));
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    if (event_has_aggregate(event))
      reach_out(reaches, g_steal_pointer(&event));
    else
      any_without = true;
  }
  return ret_failure->class == FAILURE_NONE && copy_reaches(outbox, reaches, ret_failure) &&
         (!any_without || copy(outbox, filter, ret_failure));
}

/* --- copies from memory --------------------------------------------------------------------- */

static bool has_feed(const bson_t *document, const char *feed) {
  bson_iter_t iter, member;
  if (!bson_iter_init_find(&iter, document, "fed_to") || !BSON_ITER_HOLDS_ARRAY(&iter) ||
      !bson_iter_recurse(&iter, &member))
    return false;
  while (bson_iter_next(&member))
    if (BSON_ITER_HOLDS_UTF8(&member) && !strcmp(bson_iter_utf8(&member, NULL), feed))
      return true;
  return false;
}

static bool insert_into(Outbox *outbox, const char *feed, Event *const *events, size_t count,
                        Failure *ret_failure) {
  g_autofree bson_t **copies = g_new(bson_t *, count);
  g_autofree const bson_t **list = g_new(const bson_t *, count); /* feed_insert changes it */
  size_t wanted = 0;
  for (size_t i = 0; i < count; i++) {
    bson_t view;
    const bson_t *document = event_document(events[i], &view);
    if (has_feed(document, feed))
      continue;
    copies[wanted] = bson_new();
    feed_append_copy(document, copies[wanted]);
    list[wanted] = copies[wanted];
    wanted++;
  }
  bool good = feed_insert(outbox, feed, list, wanted, ret_failure);
  for (size_t i = 0; i < wanted; i++)
    bson_destroy(copies[i]);
  return good;
}

bool feeds_copy_whole(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  const char *const *feed = feeds_of(outbox_store(outbox));
  if (*feed)
    crash_point("before_feed");
  for (; *feed; feed++) {
    if (!insert_into(outbox, *feed, events, count, ret_failure))
      return false;
    crash_point("after_feed");
  }
  return true;
}

/* --- events that stay in the outbox ---------------------------------------------------------- */

static bson_t *filter_of(const bson_t *ids) {
  return BCON_NEW("_id", "{", "$in", BCON_ARRAY(ids), "}");
}

bool feeds_copy_and_mark(Outbox *outbox, const bson_t *ids, int64_t *ret_count, bool *ret_copied,
                         Failure *ret_failure) {
  bson_t *filter = filter_of(ids);
  bool good = *ret_copied = copy(outbox, filter, ret_failure);
  if (good) {
    crash_point("before_fed");
    good = feed_mark(outbox, filter, ret_count, ret_failure);
  }
  bson_destroy(filter);
  return good;
}

bool feeds_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure) {
  int64_t count;
  bson_t *filter = filter_of(ids);
  bool good = feed_mark(outbox, filter, &count, ret_failure);
  bson_destroy(filter);
  return good;
}

/* archive.c - opens "<outbox>_archive" as if it were the outbox. */
#include "projector/infra/mongo/archive.h"

#include "projector/infra/mongo/entities.h"
#include "projector/infra/mongo/feeds.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

enum { SCAN_BATCH = 1000 };

struct Archive {
  MongoSettings settings;
  char *collection;
  MongoStore *store;
  Outbox *events;
};

Archive *archive_open(const MongoSettings *settings, Failure *ret_failure) {
  g_autoptr(Archive) archive = g_new0(Archive, 1);
  archive->settings = *settings;
  archive->settings.outbox = archive->collection = mongo_archive_name(settings->outbox);
  archive->store = mongo_store_open_single(&archive->settings, ret_failure);
  if (!archive->store)
    return NULL;
  archive->events = outbox_new_for_command(archive->store, "archive");
  return g_steal_pointer(&archive);
}

void archive_close(Archive *archive) {
  if (!archive)
    return;
  outbox_free(archive->events);
  mongo_store_close(archive->store);
  g_free(archive->collection);
  g_free(archive);
}

Outbox *archive_events(Archive *archive) {
  return archive->events;
}

MongoStore *archive_store(Archive *archive) {
  return archive->store;
}

Event *archive_decode(const bson_t *document) {
  Event *event = event_decode(document);
  bson_iter_t iter;
  event->skipped = bson_iter_init_find(&iter, document, "skipped_at");
  return event;
}

bool archive_is_empty(Archive *archive, bool *ret_empty, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(archive->events, BCON_NEW("skipped_at", "{", "$exists", BCON_BOOL(false), "}"),
                  BCON_NEW("limit", BCON_INT64(1)));
  *ret_empty = event_cursor_next(cursor, ret_failure) == NULL;
  return ret_failure->class == FAILURE_NONE;
}

bool archive_estimate(Archive *archive, int64_t *ret_count, Failure *ret_failure) {
  g_autoptr(Entities) events = entities_open(archive->store, archive->collection, NULL);
  return entities_estimate(events, ret_count, ret_failure);
}

bool event_in_range(const EventRange *range, const Event *event) {
  const Aggregate *aggregate = &event->aggregate;
  return event_has_aggregate(event) && aggregate->type_length == strlen(range->aggregate_type) &&
         !memcmp(aggregate->type, range->aggregate_type, aggregate->type_length) &&
         event->key.occurred_at >= range->from && event->key.occurred_at < range->to;
}

/* Only dates: Timestamp, regex and MaxKey sort after them, and an array sorts where its dates do.
 * Of all aggregate types, because no index serves the times of one. */
static EventCursor *find_last(Archive *archive) {
  return outbox_find(archive->events,
                     BCON_NEW("occurred_at", "{", "$type", BCON_UTF8("date"), "$not", "{", "$type",
                              BCON_UTF8("array"), "}", "}"),
                     BCON_NEW("limit", BCON_INT64(1), "allowDiskUse", BCON_BOOL(true), "sort", "{",
                              "occurred_at", BCON_INT32(-1), "version", BCON_INT32(-1), "_id",
                              BCON_INT32(-1), "}"));
}

/* In another outbox the order of the field is not that of the times: a missing one, which means the
 * ObjectId's, sorts before all dates. */
static EventCursor *find_last_by_time(Archive *archive) {
  return outbox_find_by_time(archive->events, bson_new(), -1, 1);
}

bool archive_bound(Archive *archive, EventRange *range, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_is_foreign(archive->events) ? find_last_by_time(archive) : find_last(archive);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  bson_iter_t iter;
  if (document && bson_iter_init_find(&iter, document, "occurred_at") &&
      BSON_ITER_HOLDS_DATE_TIME(&iter) && bson_iter_date_time(&iter) < range->to)
    range->to = bson_iter_date_time(&iter) + 1;
  return ret_failure->class == FAILURE_NONE;
}

EventCursor *archive_scan(Archive *archive, const EventRange *range) {
  bson_t *filter = BCON_NEW(outbox_field(archive->events, FIELD_AGGREGATE_TYPE),
                            BCON_UTF8(range->aggregate_type));
  outbox_append_times(archive->events, filter, range->from, range->to);
  if (outbox_is_foreign(archive->events))
    return outbox_find_by_time(archive->events, filter, 1, 0);
  bson_t *options = outbox_sorted_options(archive->events);
  BSON_APPEND_INT32(options, "batchSize", SCAN_BATCH);
  BSON_APPEND_BOOL(options, "allowDiskUse", true);
  return outbox_find(archive->events, filter, options);
}

EventCursor *archive_find_ids(Outbox *events, const Id *ids, size_t count) {
  bson_t *filter = bson_new();
  outbox_append_ids(filter, "_id", ids, count);
  return outbox_find(events, filter, bson_new());
}

EventCursor *archive_find_aggregate(Outbox *events, const Aggregate *aggregate) {
  bson_t *filter = bson_new();
  outbox_append_aggregate(events, filter, aggregate);
  return outbox_find(events, filter, outbox_sorted_options(events));
}

EventCursor *archive_find_marks(Archive *archive, const Aggregate *aggregate, int limit) {
  bson_t *filter = bson_new();
  outbox_append_aggregate(archive->events, filter, aggregate);
  return outbox_find(
      archive->events, filter,
      BCON_NEW("limit", BCON_INT64(limit), "projection", "{", "skipped_at", BCON_INT32(1), "}"));
}

EventCursor *archive_list_aggregates(Archive *archive, const char *aggregate_type) {
  const char *type = outbox_field(archive->events, FIELD_AGGREGATE_TYPE),
             *id = outbox_field(archive->events, FIELD_AGGREGATE_ID);
  return outbox_find(archive->events, BCON_NEW(type, BCON_UTF8(aggregate_type)),
                     BCON_NEW("sort", "{", type, BCON_INT32(1), id, BCON_INT32(1), "}",
                              "projection", "{", type, BCON_INT32(1), id, BCON_INT32(1), "}",
                              "allowDiskUse", BCON_BOOL(true)));
}

static bson_t *versions_of(const Outbox *outbox, const Aggregate *aggregate, int64_t first,
                           int64_t last) {
  bson_t *filter = BCON_NEW(outbox_field(outbox, FIELD_VERSION), "{", "$gte", BCON_INT64(first),
                            "$lte", BCON_INT64(last), "}");
  outbox_append_aggregate(outbox, filter, aggregate);
  return filter;
}

static bool count_versions(Outbox *outbox, const bson_t *filter, int64_t *ret_found,
                           Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bson_t options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  *ret_found = mongoc_collection_count_documents(outbox_collection(outbox), filter, &options, NULL,
                                                 &reply, &error);
  bson_destroy(&options);
  bool good = *ret_found >= 0 || mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  return good;
}

bool archive_put_back(Outbox *outbox, const Aggregate *aggregate, int64_t first, int64_t last,
                      int64_t *ret_found, Failure *ret_failure) {
  mongoc_collection_t *events = outbox_collection(outbox);
  const char *name = mongoc_collection_get_name(events);
  g_autofree char *archive_name = mongo_archive_name(name);
  mongoc_collection_t *archive = outbox_neighbour(outbox, archive_name);
  bson_t *filter = versions_of(outbox, aggregate, first, last), *archived = bson_copy(filter);
  BCON_APPEND(archived, "skipped_at", "{", "$exists", BCON_BOOL(false), "}");
  bson_t fed = BSON_INITIALIZER, own = BSON_INITIALIZER;
  feeds_append_mark(outbox, &fed, "$applied_at");
  event_own_names(OWN_KEPT | OWN_NUMBER | OWN_ATTEMPTS, &own);
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", BCON_DOCUMENT(archived), "}", "{", "$set",
               BCON_DOCUMENT(&fed), "}", "{", "$unset", BCON_ARRAY(&own), "}", "{", "$merge", "{",
               "into", BCON_UTF8(name), "whenMatched", BCON_UTF8("keepExisting"), "}", "}", "]");
  bson_t options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(archive, MONGOC_QUERY_NONE, pipeline, &options, NULL);
  bson_destroy(&options);
  const bson_t *document, *reply;
  bson_error_t error;
  mongoc_cursor_next(cursor, &document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  good = good && count_versions(outbox, filter, ret_found, ret_failure);
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(archive);
  bson_destroy(pipeline);
  bson_destroy(&own);
  bson_destroy(&fed);
  bson_destroy(archived);
  bson_destroy(filter);
  return good;
}

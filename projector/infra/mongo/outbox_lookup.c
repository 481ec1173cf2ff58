/* outbox_lookup.c - scans, and finds events by id, aggregate and version. */
#include "projector/infra/mongo/outbox_lookup.h"

#include "projector/infra/mongo/outbox_private.h"

enum { SCAN_BATCH = 1000 };

struct EventCursor {
  mongoc_cursor_t *cursor;
  mongoc_client_session_t *session;
};

void event_cursor_free(EventCursor *cursor) {
  if (!cursor)
    return;
  if (cursor->cursor)
    mongoc_cursor_destroy(cursor->cursor);
  if (cursor->session)
    mongoc_client_session_destroy(cursor->session);
  g_free(cursor);
}

const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure) {
  const bson_t *document, *reply;
  bson_error_t error;
  ret_failure->class = FAILURE_NONE;
  if (mongoc_cursor_next(cursor->cursor, &document))
    return document;
  if (mongoc_cursor_error_document(cursor->cursor, &error, &reply))
    mongo_fail(&error, reply, ret_failure);
  return NULL;
}

EventCursor *outbox_find(Outbox *outbox, bson_t *filter, bson_t *options) {
  EventCursor *cursor = g_new0(EventCursor, 1);
  mongo_append_simple(options);
  cursor->cursor =
      mongoc_collection_find_with_opts(outbox_collection(outbox), filter, options, NULL);
  bson_destroy(filter);
  bson_destroy(options);
  return cursor;
}

bson_t *outbox_sorted_options(void) {
  return BCON_NEW("sort", "{", "occurred_at", BCON_INT32(1), "version", BCON_INT32(1), "_id",
                  BCON_INT32(1), "}");
}

/* A find whose pages all show one moment, which the server names. */
static bson_t *scan_command(const Outbox *outbox) {
  bson_t *command = BCON_NEW("find", BCON_UTF8(mongo_store_settings(outbox_store(outbox))->outbox),
                             "batchSize", BCON_INT32(SCAN_BATCH), "allowDiskUse", BCON_BOOL(true),
                             "readConcern", "{", "level", BCON_UTF8("snapshot"), "}");
  bson_t *order = outbox_sorted_options();
  mongo_append_simple(command);
  bson_concat(command, order);
  bson_destroy(order);
  return command;
}

/* False: the server does not name it, because the outbox is not there. */
static bool take_moment(const bson_t *reply, uint32_t *ret_seconds, uint32_t *ret_increment) {
  bson_iter_t iter, moment;
  if (!bson_iter_init(&iter, reply) ||
      !bson_iter_find_descendant(&iter, "cursor.atClusterTime", &moment) ||
      !BSON_ITER_HOLDS_TIMESTAMP(&moment))
    return false;
  bson_iter_timestamp(&moment, ret_seconds, ret_increment);
  return true;
}

/* What has come into being since: the session reads at or after the time of its last answer. */
static mongoc_cursor_t *read_after(Outbox *outbox, const mongoc_client_session_t *session,
                                   const bson_t *options, uint32_t *ret_seconds,
                                   uint32_t *ret_increment) {
  bson_t everything = BSON_INITIALIZER, *sorted = outbox_sorted_options();
  mongoc_client_session_get_operation_time(session, ret_seconds, ret_increment);
  bson_concat(sorted, options);
  mongo_append_simple(sorted);
  mongoc_cursor_t *cursor =
      mongoc_collection_find_with_opts(outbox_collection(outbox), &everything, sorted, NULL);
  bson_destroy(sorted);
  bson_destroy(&everything);
  return cursor;
}

/* The driver has to know whose cursor it is that a command's answer has opened: without that it
 * cannot end it. */
static bool append_primary(mongoc_client_t *client, bson_t *options, bson_error_t *error) {
  mongoc_server_description_t *primary = mongoc_client_select_server(client, true, NULL, error);
  if (!primary)
    return false;
  BSON_APPEND_INT32(options, "serverId", (int32_t)mongoc_server_description_id(primary));
  mongoc_server_description_destroy(primary);
  return true;
}

/* A reading of the outbox as it was at one moment, and a stream of what was inserted after it: so
 * no event is seen before one of its aggregate that was committed earlier. */
EventCursor *outbox_scan(Outbox *outbox, uint32_t *ret_seconds, uint32_t *ret_increment,
                         Failure *ret_failure) {
  g_autoptr(EventCursor) scan = g_new0(EventCursor, 1);
  bson_error_t error;
  bson_t reply, options = BSON_INITIALIZER, *command = scan_command(outbox);
  scan->session = mongoc_client_start_session(outbox_client(outbox), NULL, &error);
  if (!scan->session || !mongoc_client_session_append(scan->session, &options, &error) ||
      !append_primary(outbox_client(outbox), &options, &error)) {
    failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 0, "%s", error.message);
  } else if (!mongoc_client_command_with_opts(outbox_client(outbox),
                                              mongo_store_settings(outbox_store(outbox))->database,
                                              command, NULL, &options, &reply, &error)) {
    mongo_fail(&error, &reply, ret_failure);
    bson_destroy(&reply);
  } else if (!take_moment(&reply, ret_seconds, ret_increment)) {
    bson_destroy(&reply);
    scan->cursor = read_after(outbox, scan->session, &options, ret_seconds, ret_increment);
  } else { /* the cursor takes the reply over */
    BSON_APPEND_INT32(&options, "batchSize", SCAN_BATCH);
    scan->cursor =
        mongoc_cursor_new_from_command_reply_with_opts(outbox_client(outbox), &reply, &options);
  }
  bson_destroy(command);
  bson_destroy(&options);
  return scan->cursor ? g_steal_pointer(&scan) : NULL;
}

EventCursor *outbox_find_abandoned(Outbox *outbox, int64_t older_than_ms) {
  bson_t *filter = bson_new();
  outbox_append_abandoned(filter, outbox, older_than_ms);
  return outbox_find(
      outbox, filter,
      BCON_NEW("projection", "{", "payload", BCON_INT32(0), "metadata", BCON_INT32(0), "}"));
}

static void append_aggregate(bson_t *filter, const Aggregate *aggregate) {
  bson_append_utf8(filter, "aggregate_type", -1, aggregate->type, (int)aggregate->type_length);
  id_append_bson(&aggregate->id, filter, "aggregate_id");
}

/* Beside the comparison of the time, which the index serves, that of the whole key, which compares
 * across types as sorting does; a missing version counts as null. */
static void append_after(bson_t *filter, const OrderKey *after) {
  bson_t id = BSON_INITIALIZER;
  if (after->event_id.kind == ID_INT) /* no event id is a number: order_key_first */
    BSON_APPEND_MINKEY(&id, "$literal");
  else
    id_append_bson(&after->event_id, &id, "$literal");
  bson_t version = BSON_INITIALIZER;
  if (after->version)
    BSON_APPEND_INT64(&version, "$literal", after->version);
  else
    BSON_APPEND_NULL(&version, "$literal");
  BCON_APPEND(filter, "occurred_at", "{", "$gte", BCON_DATE_TIME(after->occurred_at), "}", "$expr",
              "{", "$gt", "[", "[", BCON_UTF8("$occurred_at"), BCON_UTF8("$version"),
              BCON_UTF8("$_id"), "]", "[", BCON_DATE_TIME(after->occurred_at),
              BCON_DOCUMENT(&version), BCON_DOCUMENT(&id), "]", "]", "}");
  bson_destroy(&version);
  bson_destroy(&id);
}

EventCursor *outbox_find_aggregate(Outbox *outbox, const Aggregate *aggregate,
                                   const OrderKey *after, int limit) {
  bson_t *filter = bson_new();
  append_aggregate(filter, aggregate);
  if (after)
    append_after(filter, after);
  bson_t *options = outbox_sorted_options();
  BSON_APPEND_INT64(options, "limit", limit);
  return outbox_find(outbox, filter, options);
}

EventCursor *outbox_find_keys(Outbox *outbox, const Aggregate *aggregate, int limit) {
  bson_t *filter = bson_new();
  append_aggregate(filter, aggregate);
  bson_t *options = outbox_sorted_options();
  BSON_APPEND_INT64(options, "limit", limit);
  BCON_APPEND(options, "projection", "{", "aggregate_type", BCON_INT32(1), "aggregate_id",
              BCON_INT32(1), "version", BCON_INT32(1), "event_type", BCON_INT32(1), "occurred_at",
              BCON_INT32(1), "payload", "{", "$cond", "[", "{", "$eq", "[", "{", "$type",
              BCON_UTF8("$payload"), "}", BCON_UTF8("object"), "]", "}", "{", "$literal", "{", "}",
              "}", BCON_NULL, "]", "}", "}");
  return outbox_find(outbox, filter, options);
}

EventCursor *outbox_find_versions(Outbox *outbox, const Aggregate *aggregate, int64_t first,
                                  int64_t last) {
  bson_t *filter =
      BCON_NEW("version", "{", "$gte", BCON_INT64(first), "$lte", BCON_INT64(last), "}");
  append_aggregate(filter, aggregate);
  return outbox_find(outbox, filter, outbox_sorted_options());
}

EventCursor *outbox_find_events(Outbox *outbox, const Id *const *ids, size_t count) {
  bson_t array = BSON_INITIALIZER;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
    id_append_bson(ids[i], &array, key);
  }
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$match", "{", "_id", "{", "$in", BCON_ARRAY(&array), "}", "}", "}",
      "{", "$set", "{", "due_in_ms", "{", "$cond", "[", "{", "$eq", "[", "{", "$type",
      BCON_UTF8("$next_attempt_at"), "}", BCON_UTF8("date"), "]", "}", "{", "$subtract", "[",
      BCON_UTF8("$next_attempt_at"), BCON_UTF8("$$NOW"), "]", "}", BCON_INT64(0), "]", "}", "}",
      "}", "{", "$unset", "[", BCON_UTF8("payload"), BCON_UTF8("metadata"), "]", "}", "]");
  bson_t *options = BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}");
  mongo_append_simple(options);
  EventCursor *cursor = g_new0(EventCursor, 1);
  cursor->cursor = mongoc_collection_aggregate(outbox_collection(outbox), MONGOC_QUERY_NONE,
                                               pipeline, options, NULL);
  bson_destroy(options);
  bson_destroy(pipeline);
  bson_destroy(&array);
  return cursor;
}

EventCursor *outbox_find_event(Outbox *outbox, const Id *id) {
  bson_t *filter = bson_new();
  id_append_bson(id, filter, "_id");
  return outbox_find(outbox, filter,
                     BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}"));
}

void outbox_append_ids(bson_t *filter, const Id *ids, size_t count) {
  bson_t array = BSON_INITIALIZER, in;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
    id_append_bson(&ids[i], &array, key);
  }
  BSON_APPEND_DOCUMENT_BEGIN(filter, "_id", &in);
  BSON_APPEND_ARRAY(&in, "$in", &array);
  bson_append_document_end(filter, &in);
  bson_destroy(&array);
}

bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure) {
  bson_t *filter = bson_new();
  outbox_append_ids(filter, (const Id *)(const void *)ids->data, ids->len);
  g_autoptr(EventCursor) cursor =
      outbox_find(outbox, filter, BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}"));
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    for (guint i = 0; i < ids->len; i++)
      if (id_equal(&g_array_index(ids, Id, i), &event->key.event_id)) {
        g_array_remove_index_fast(ids, i);
        break;
      }
  }
  return ret_failure->class == FAILURE_NONE;
}

/* outbox_lookup.c - scans, and finds events by id, aggregate and version. */
#include "projector/infra/mongo/outbox_lookup.h"

#include "projector/infra/mongo/outbox_private.h"

enum {
  SCAN_BATCH = 1000,      /* most documents in an answer */
  ANSWER_BYTES = 4 << 20, /* desired size of an answer: the driver holds a whole one in memory */
};

/* A field that the outbox's documents do not have. */
#define SORTED_BY "projector_sorted_by"

struct EventCursor {
  const EventFields *fields; /* NULL: documents are as the contract says */
  bool briefly;              /* without what is in their payloads */
  bson_t *translated;        /* the last document */
  mongoc_cursor_t *cursor;
  mongoc_client_session_t *session;
  AnswerSize size;
};

void event_cursor_free(EventCursor *cursor) {
  if (!cursor)
    return;
  if (cursor->cursor)
    mongoc_cursor_destroy(cursor->cursor);
  if (cursor->translated)
    bson_destroy(cursor->translated);
  if (cursor->session)
    mongoc_client_session_destroy(cursor->session);
  g_free(cursor);
}

static EventCursor *cursor_new(const Outbox *outbox) {
  EventCursor *cursor = g_new0(EventCursor, 1);
  cursor->fields =
      outbox_is_foreign(outbox) ? &mongo_store_settings(outbox_store(outbox))->fields : NULL;
  return cursor;
}

static const bson_t *translated(EventCursor *cursor, const bson_t *document) {
  if (!cursor->fields)
    return document;
  if (cursor->translated)
    bson_destroy(cursor->translated);
  cursor->translated = (cursor->briefly ? event_fields_translate_briefly
                                        : event_fields_translate)(cursor->fields, document);
  return cursor->translated;
}

void outbox_suit_answers(mongoc_cursor_t *cursor, AnswerSize *size, const bson_t *document) {
  uint32_t mean = size->mean_bytes ? size->mean_bytes : document->len;
  size->mean_bytes = mean = mean - mean / 4 + document->len / 4;
  uint32_t batch = CLAMP(ANSWER_BYTES / MAX(mean, 1), 1, SCAN_BATCH);
  if (batch == size->batch || (batch == SCAN_BATCH && size->batch == 0))
    return;
  size->batch = batch;
  mongoc_cursor_set_batch_size(cursor, batch);
}

const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure) {
  const bson_t *document, *reply;
  bson_error_t error;
  ret_failure->class = FAILURE_NONE;
  if (mongoc_cursor_next(cursor->cursor, &document)) {
    outbox_suit_answers(cursor->cursor, &cursor->size, document);
    return translated(cursor, document);
  }
  if (mongoc_cursor_error_document(cursor->cursor, &error, &reply))
    mongo_fail(&error, reply, ret_failure);
  return NULL;
}

EventCursor *outbox_find(Outbox *outbox, bson_t *filter, bson_t *options) {
  EventCursor *cursor = cursor_new(outbox);
  mongo_append_simple(options);
  cursor->cursor =
      mongoc_collection_find_with_opts(outbox_collection(outbox), filter, options, NULL);
  bson_destroy(filter);
  bson_destroy(options);
  return cursor;
}

/* In another outbox, fields may be nested in each other, so documents are sent whole. */
EventCursor *outbox_find_briefly(Outbox *outbox, bson_t *filter, bson_t *options) {
  if (!outbox_is_foreign(outbox))
    BCON_APPEND(options, "projection", "{", "aggregate_type", BCON_INT32(1), "aggregate_id",
                BCON_INT32(1), "version", BCON_INT32(1), "event_type", BCON_INT32(1), "occurred_at",
                BCON_INT32(1), "payload", "{", "$cond", "[", "{", "$eq", "[", "{", "$type",
                BCON_UTF8("$payload"), "}", BCON_UTF8("object"), "]", "}", "{", "$literal", "{",
                "}", "}", BCON_NULL, "]", "}", "}");
  EventCursor *cursor = outbox_find(outbox, filter, options);
  cursor->briefly = true;
  return cursor;
}

/* A server that has no sessions tells no moment. */
EventCursor *outbox_find_timed(Outbox *outbox, bson_t *filter, bson_t *options) {
  bson_error_t error;
  mongoc_client_session_t *session =
      mongoc_client_start_session(outbox_client(outbox), NULL, &error);
  if (session && !mongoc_client_session_append(session, options, &error))
    g_clear_pointer(&session, mongoc_client_session_destroy);
  EventCursor *cursor = outbox_find(outbox, filter, options);
  cursor->session = session;
  return cursor;
}

Moment event_cursor_moment(const EventCursor *cursor) {
  Moment moment = {0};
  if (cursor->session)
    mongoc_client_session_get_operation_time(cursor->session, &moment.seconds, &moment.increment);
  return moment;
}

EventCursor *outbox_find_by_time(Outbox *outbox, bson_t *filter, int direction, int limit) {
  EventCursor *cursor = cursor_new(outbox);
  g_autofree char *version = g_strconcat("$", outbox_field(outbox, FIELD_VERSION), NULL);
  bson_t *time = outbox_time(outbox);
  bson_iter_t iter;
  bson_iter_init_find(&iter, time, "e");
  bson_t *pipeline = BCON_NEW(
      "0", "{", "$match", BCON_DOCUMENT(filter), "}", "1", "{", "$set", "{", SORTED_BY, "{", "time",
      BCON_ITER(&iter), "version", BCON_UTF8(version), "}", "}", "}", "2", "{", "$sort", "{",
      SORTED_BY ".time", BCON_INT32(direction), SORTED_BY ".version", BCON_INT32(direction), "_id",
      BCON_INT32(direction), "}", "}", "3", "{", "$unset", BCON_UTF8(SORTED_BY), "}");
  if (limit)
    BCON_APPEND(pipeline, "4", "{", "$limit", BCON_INT32(limit), "}");
  bson_t *options = BCON_NEW("allowDiskUse", BCON_BOOL(true));
  mongo_append_simple(options);
  cursor->cursor = mongoc_collection_aggregate(outbox_collection(outbox), MONGOC_QUERY_NONE,
                                               pipeline, options, NULL);
  bson_destroy(options);
  bson_destroy(pipeline);
  bson_destroy(time);
  bson_destroy(filter);
  return cursor;
}

/* A find whose pages all show the same moment, which the server names. */
static bson_t *scan_command(const Outbox *outbox) {
  bson_t *command = BCON_NEW("find", BCON_UTF8(mongo_store_settings(outbox_store(outbox))->outbox),
                             "batchSize", BCON_INT32(FIRST_BATCH), "allowDiskUse", BCON_BOOL(true),
                             "readConcern", "{", "level", BCON_UTF8("snapshot"), "}");
  bson_t *order = outbox_sorted_options(outbox);
  mongo_append_simple(command);
  bson_concat(command, order);
  bson_destroy(order);
  return command;
}

/* Returns false when the server does not name the moment, because the outbox does not exist. */
static bool take_moment(const bson_t *reply, uint32_t *ret_seconds, uint32_t *ret_increment) {
  bson_iter_t iter, moment;
  if (!bson_iter_init(&iter, reply) ||
      !bson_iter_find_descendant(&iter, "cursor.atClusterTime", &moment) ||
      !BSON_ITER_HOLDS_TIMESTAMP(&moment))
    return false;
  bson_iter_timestamp(&moment, ret_seconds, ret_increment);
  return true;
}

/* What was inserted since: the session reads at or after the time of its last answer. */
static mongoc_cursor_t *read_after(Outbox *outbox, const mongoc_client_session_t *session,
                                   const bson_t *options, uint32_t *ret_seconds,
                                   uint32_t *ret_increment) {
  bson_t everything = BSON_INITIALIZER, *sorted = outbox_sorted_options(outbox);
  mongoc_client_session_get_operation_time(session, ret_seconds, ret_increment);
  bson_concat(sorted, options);
  mongo_append_simple(sorted);
  mongoc_cursor_t *cursor =
      mongoc_collection_find_with_opts(outbox_collection(outbox), &everything, sorted, NULL);
  bson_destroy(sorted);
  bson_destroy(&everything);
  return cursor;
}

/* The driver must know the server of a cursor that was opened by a command; otherwise it cannot
 * close it. */
static bool append_primary(mongoc_client_t *client, bson_t *options, bson_error_t *error) {
  mongoc_server_description_t *primary = mongoc_client_select_server(client, true, NULL, error);
  if (!primary)
    return false;
  BSON_APPEND_INT32(options, "serverId", (int32_t)mongoc_server_description_id(primary));
  mongoc_server_description_destroy(primary);
  return true;
}

/* Reads the outbox as it was at one moment, and the stream what was inserted after it: so no event
 * is seen before one of its aggregate that was committed earlier. */
EventCursor *outbox_scan(Outbox *outbox, uint32_t *ret_seconds, uint32_t *ret_increment,
                         Failure *ret_failure) {
  g_autoptr(EventCursor) scan = cursor_new(outbox);
  bson_error_t error;
  bson_t reply, options = BSON_INITIALIZER, *command = scan_command(outbox);
  scan->session = mongoc_client_start_session(outbox_client(outbox), NULL, &error);
  if (!scan->session || !mongoc_client_session_append(scan->session, &options, &error) ||
      !append_primary(outbox_client(outbox), &options, &error)) {
    mongo_fail(&error, NULL, ret_failure);
  } else if (!mongoc_client_command_with_opts(outbox_client(outbox),
                                              mongo_store_settings(outbox_store(outbox))->database,
                                              command, NULL, &options, &reply, &error)) {
    mongo_fail(&error, &reply, ret_failure);
    bson_destroy(&reply);
  } else if (!take_moment(&reply, ret_seconds, ret_increment)) {
    bson_destroy(&reply);
    scan->cursor = read_after(outbox, scan->session, &options, ret_seconds, ret_increment);
  } else { /* the cursor takes over the reply */
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
      outbox_is_foreign(outbox)
          ? bson_new()
          : BCON_NEW("projection", "{", "payload", BCON_INT32(0), "metadata", BCON_INT32(0), "}"));
}

/* Besides the comparison of the time, which the index serves, one of the whole key, which compares
 * across types as sorting does; a missing version counts as null. */
static void append_after(const Outbox *outbox, bson_t *filter, const OrderKey *after) {
  g_autofree char *version_name = g_strconcat("$", outbox_field(outbox, FIELD_VERSION), NULL);
  bson_t id = BSON_INITIALIZER, version = BSON_INITIALIZER, *time = outbox_time(outbox), right;
  id_append_bson(&after->event_id, &id, "$literal");
  if (after->version)
    BSON_APPEND_INT64(&version, "$literal", after->version);
  else
    BSON_APPEND_NULL(&version, "$literal");
  if (!outbox_is_foreign(outbox))
    BCON_APPEND(filter, "occurred_at", "{", "$gte", BCON_DATE_TIME(after->occurred_at), "}");
  bson_iter_t iter;
  bson_iter_init_find(&iter, time, "e");
  bson_init(&right);
  BCON_APPEND(&right, "0", BCON_DATE_TIME(after->occurred_at), "1", BCON_DOCUMENT(&version), "2",
              BCON_DOCUMENT(&id));
  BCON_APPEND(filter, "$expr", "{", "$gt", "[", "[", BCON_ITER(&iter), BCON_UTF8(version_name),
              BCON_UTF8("$_id"), "]", BCON_ARRAY(&right), "]", "}");
  bson_destroy(&right);
  bson_destroy(time);
  bson_destroy(&version);
  bson_destroy(&id);
}

EventCursor *outbox_find_aggregate(Outbox *outbox, const Aggregate *aggregate,
                                   const OrderKey *after, int limit) {
  bson_t *filter = bson_new();
  outbox_append_aggregate(outbox, filter, aggregate);
  if (after)
    append_after(outbox, filter, after);
  /* Page by page, in the order of what is stored, another outbox would leave some out. */
  if (outbox_is_foreign(outbox) && limit > 1)
    return outbox_find_by_time(outbox, filter, 1, limit);
  bson_t *options = outbox_sorted_options(outbox);
  BCON_APPEND(options, "limit", BCON_INT64(limit), "allowDiskUse", BCON_BOOL(true));
  return outbox_find(outbox, filter, options);
}

EventCursor *outbox_find_keys(Outbox *outbox, const Aggregate *aggregate, int limit) {
  bson_t *filter = bson_new();
  outbox_append_aggregate(outbox, filter, aggregate);
  bson_t *options = outbox_sorted_options(outbox);
  BSON_APPEND_INT64(options, "limit", limit);
  return outbox_find_briefly(outbox, filter, options);
}

EventCursor *outbox_find_newest(Outbox *outbox, const Aggregate *aggregate) {
  const char *version = outbox_field(outbox, FIELD_VERSION);
  bson_t *filter = BCON_NEW(version, "{", "$gte", BCON_INT64(1), "}");
  outbox_append_aggregate(outbox, filter, aggregate);
  bson_t *options =
      BCON_NEW("sort", "{", version, BCON_INT32(-1), "}", "batchSize", BCON_INT32(10));
  return outbox_find_briefly(outbox, filter, options);
}

EventCursor *outbox_find_versions(Outbox *outbox, const Aggregate *aggregate, int64_t first,
                                  int64_t last) {
  bson_t *filter = BCON_NEW(outbox_field(outbox, FIELD_VERSION), "{", "$gte", BCON_INT64(first),
                            "$lte", BCON_INT64(last), "}");
  outbox_append_aggregate(outbox, filter, aggregate);
  return outbox_find(outbox, filter, outbox_sorted_options(outbox));
}

EventCursor *outbox_find_events(Outbox *outbox, const Id *const *ids, size_t count) {
  bson_t array = BSON_INITIALIZER;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string((uint32_t)i, &key, buffer, sizeof buffer);
    id_append_bson(ids[i], &array, key);
  }
  static const char *const contract[] = {"payload", "metadata"}, *const nothing[] = {"-", "--"};
  const char *const *drop = outbox_is_foreign(outbox) ? nothing : contract;
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$match", "{", "_id", "{", "$in", BCON_ARRAY(&array), "}", "}", "}",
      "{", "$set", "{", "due_in_ms", "{", "$cond", "[", "{", "$eq", "[", "{", "$type",
      BCON_UTF8("$next_attempt_at"), "}", BCON_UTF8("date"), "]", "}", "{", "$subtract", "[",
      BCON_UTF8("$next_attempt_at"), BCON_UTF8("$$NOW"), "]", "}", BCON_INT64(0), "]", "}", "}",
      "}", "{", "$unset", "[", BCON_UTF8(drop[0]), BCON_UTF8(drop[1]), "]", "}", "]");
  bson_t *options = BCON_NEW("readConcern", "{", "level", BCON_UTF8("local"), "}");
  mongo_append_simple(options);
  EventCursor *cursor = cursor_new(outbox);
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

void outbox_append_ids(bson_t *filter, const char *key, const Id *ids, size_t count) {
  bson_t array = BSON_INITIALIZER;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *index;
    bson_uint32_to_string((uint32_t)i, &index, buffer, sizeof buffer);
    id_append_bson(&ids[i], &array, index);
  }
  BCON_APPEND(filter, key, "{", "$in", BCON_ARRAY(&array), "}");
  bson_destroy(&array);
}

EventCursor *outbox_find_of_any(Outbox *outbox, const Aggregate *const *aggregates, size_t count) {
  bson_t *filter = bson_new();
  g_autofree Id *ids = g_new(Id, count);
  bson_append_utf8(filter, outbox_field(outbox, FIELD_AGGREGATE_TYPE), -1, aggregates[0]->type,
                   (int)aggregates[0]->type_length);
  for (size_t i = 0; i < count; i++)
    ids[i] = aggregates[i]->id;
  outbox_append_ids(filter, outbox_field(outbox, FIELD_AGGREGATE_ID), ids, count);
  return outbox_find_briefly(outbox, filter, bson_new());
}

EventCursor *outbox_list_events(Outbox *outbox) {
  return outbox_find_briefly(outbox, bson_new(), bson_new());
}

bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure) {
  bson_t *filter = bson_new();
  outbox_append_ids(filter, "_id", (const Id *)(const void *)ids->data, ids->len);
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

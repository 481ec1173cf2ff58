/* stream.c - wraps mongoc_change_stream_t, for which false means both "nothing yet" and
 * "failed". */
#include "projector/infra/mongo/stream.h"

enum { BATCH_SIZE = 1000 };

struct Stream {
  bson_t *translated; /* the last event of a foreign outbox */
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *events;
  mongoc_change_stream_t *changes;
  mongoc_client_session_t *session; /* keeps the cluster time of the last answer; NULL: cannot */
  int64_t answered_ms;              /* time of the answer before the last */
};

Stream *stream_open(MongoStore *store, uint32_t seconds, uint32_t increment) {
  const MongoSettings *settings = mongo_store_settings(store);
  Stream *stream = g_new0(Stream, 1);
  stream->store = store;
  stream->client = mongo_store_borrow(store);
  stream->events =
      mongoc_client_get_collection(stream->client, settings->database, settings->outbox);
  /* Only inserts, filtered by the server, and the end of a dropped collection; and only the
   * document, not the whole change. */
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "operationType", "{", "$in", "[",
               BCON_UTF8("insert"), BCON_UTF8("invalidate"), "]", "}", "}", "}", "{", "$project",
               "{", "operationType", BCON_INT32(1), "clusterTime", BCON_INT32(1), "wallTime",
               BCON_INT32(1), "fullDocument", BCON_INT32(1), "}", "}", "]");
  bson_t *options =
      BCON_NEW("startAtOperationTime", BCON_TIMESTAMP(seconds, increment), "maxAwaitTimeMS",
               BCON_INT64(STREAM_AWAIT_MS), "batchSize", BCON_INT32(BATCH_SIZE));
  bson_error_t error;
  stream->session = mongoc_client_start_session(stream->client, NULL, &error);
  if (stream->session && !mongoc_client_session_append(stream->session, options, &error))
    g_clear_pointer(&stream->session, mongoc_client_session_destroy);
  stream->changes = mongoc_collection_watch(stream->events, pipeline, options);
  bson_destroy(options);
  bson_destroy(pipeline);
  return stream;
}

void stream_free(Stream *stream) {
  if (!stream)
    return;
  mongoc_change_stream_destroy(stream->changes);
  if (stream->translated)
    bson_destroy(stream->translated);
  if (stream->session)
    mongoc_client_session_destroy(stream->session);
  mongoc_collection_destroy(stream->events);
  mongo_store_return(stream->store, stream->client);
  g_free(stream);
}

/* From 6.0 on the server gives its wall clock in milliseconds; the cluster time counts seconds. */
static int64_t committed_at(const bson_t *change) {
  bson_iter_t iter;
  uint32_t seconds, increment;
  if (bson_iter_init_find(&iter, change, "wallTime") && BSON_ITER_HOLDS_DATE_TIME(&iter))
    return bson_iter_date_time(&iter);
  if (!bson_iter_init_find(&iter, change, "clusterTime") || !BSON_ITER_HOLDS_TIMESTAMP(&iter))
    return 0;
  bson_iter_timestamp(&iter, &seconds, &increment);
  return (int64_t)seconds * 1000;
}

/* An event may be committed between the server's last look for an empty answer and the answer's
 * time, so the time of the answer before it counts. */
static int64_t given_until(Stream *stream) {
  uint32_t seconds = 0, increment;
  int64_t until = stream->answered_ms;
  if (stream->session)
    mongoc_client_session_get_operation_time(stream->session, &seconds, &increment);
  stream->answered_ms = (int64_t)seconds * 1000;
  return until;
}

/* For foreign outboxes; the result lives until the next event. */
static void translate(Stream *stream, bson_t *document) {
  const EventFields *fields = &mongo_store_settings(stream->store)->fields;
  if (!fields->foreign)
    return;
  if (stream->translated)
    bson_destroy(stream->translated);
  stream->translated = event_fields_translate(fields, document);
  bson_init_static(document, bson_get_data(stream->translated), stream->translated->len);
}

StreamResult stream_next(Stream *stream, bson_t *ret_document, int64_t *ret_at_ms,
                         Failure *ret_failure) {
  const bson_t *change, *reply;
  bson_error_t error;
  bson_iter_t iter;
  if (mongoc_change_stream_next(stream->changes, &change)) {
    if (bson_iter_init_find(&iter, change, "fullDocument") && BSON_ITER_HOLDS_DOCUMENT(&iter)) {
      uint32_t length;
      const uint8_t *bytes;
      bson_iter_document(&iter, &length, &bytes);
      bson_init_static(ret_document, bytes, length);
      translate(stream, ret_document);
      *ret_at_ms = committed_at(change);
      return STREAM_EVENT;
    }
    failure_set(ret_failure, FAILURE_HISTORY, SOURCE_MONGODB, 0,
                "the outbox was dropped or renamed");
    return STREAM_LOST;
  }
  if (!mongoc_change_stream_error_document(stream->changes, &error, &reply)) {
    *ret_at_ms = given_until(stream);
    return STREAM_IDLE;
  }
  mongo_fail(&error, reply, ret_failure);
  return STREAM_LOST;
}

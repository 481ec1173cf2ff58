/* stream.c - wraps mongoc_change_stream_t, whose false means both "nothing yet" and "failed". */
#include "projector/infra/mongo/stream.h"

enum {
  AWAIT_MS = 1000, /* one getMore a second when idle; far below the socket timeout */
  BATCH_SIZE = 1000,
};

struct Stream {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *events;
  mongoc_change_stream_t *changes;
};

Stream *stream_open(MongoStore *store, uint32_t seconds, uint32_t increment) {
  const MongoSettings *settings = mongo_store_settings(store);
  Stream *stream = g_new0(Stream, 1);
  stream->store = store;
  stream->client = mongo_store_borrow(store);
  stream->events =
      mongoc_client_get_collection(stream->client, settings->database, settings->outbox);
  /* Inserts only, filtered by the server, and the end of a dropped collection; and only the
   * document, not the change around it. */
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "operationType", "{", "$in", "[",
               BCON_UTF8("insert"), BCON_UTF8("invalidate"), "]", "}", "}", "}", "{", "$project",
               "{", "operationType", BCON_INT32(1), "fullDocument", BCON_INT32(1), "}", "}", "]");
  bson_t *options =
      BCON_NEW("startAtOperationTime", BCON_TIMESTAMP(seconds, increment), "maxAwaitTimeMS",
               BCON_INT64(AWAIT_MS), "batchSize", BCON_INT32(BATCH_SIZE));
  stream->changes = mongoc_collection_watch(stream->events, pipeline, options);
  bson_destroy(options);
  bson_destroy(pipeline);
  return stream;
}

void stream_free(Stream *stream) {
  if (!stream)
    return;
  mongoc_change_stream_destroy(stream->changes);
  mongoc_collection_destroy(stream->events);
  mongo_store_return(stream->store, stream->client);
  g_free(stream);
}

StreamResult stream_next(Stream *stream, bson_t *ret_document, Failure *ret_failure) {
  const bson_t *change, *reply;
  bson_error_t error;
  bson_iter_t iter;
  if (mongoc_change_stream_next(stream->changes, &change)) {
    if (bson_iter_init_find(&iter, change, "fullDocument") && BSON_ITER_HOLDS_DOCUMENT(&iter)) {
      uint32_t length;
      const uint8_t *bytes;
      bson_iter_document(&iter, &length, &bytes);
      bson_init_static(ret_document, bytes, length);
      return STREAM_EVENT;
    }
    failure_set(ret_failure, FAILURE_HISTORY, SOURCE_MONGODB, 0,
                "the outbox was dropped or renamed");
    return STREAM_LOST;
  }
  if (!mongoc_change_stream_error_document(stream->changes, &error, &reply))
    return STREAM_IDLE;
  mongo_fail(&error, reply, ret_failure);
  return STREAM_LOST;
}

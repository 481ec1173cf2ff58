/* outbox_state.c - the outbox as a whole: how many events wait, and its indexes. */
#include "projector/infra/mongo/outbox_state.h"

#include "projector/infra/mongo/claims.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

/* No status of a document: stands for a failed event whose time is far ahead. */
#define FUTURE "the future"

static void take_count(const bson_t *group, void *data) {
  OutboxCounts *counts = data;
  bson_iter_t iter;
  const char *state = "";
  int64_t count = 0, oldest = 0;
  if (bson_iter_init_find(&iter, group, "_id") && BSON_ITER_HOLDS_UTF8(&iter))
    state = bson_iter_utf8(&iter, NULL);
  if (bson_iter_init_find(&iter, group, "count"))
    count = bson_iter_as_int64(&iter);
  if (bson_iter_init_find(&iter, group, "oldest") && BSON_ITER_HOLDS_DATE_TIME(&iter))
    oldest = bson_iter_date_time(&iter);
  if (bson_iter_init_find(&iter, group, "now") && BSON_ITER_HOLDS_DATE_TIME(&iter))
    counts->server_time = bson_iter_date_time(&iter);
  bool dead = !strcmp(state, "dead");
  if (!strcmp(state, "in_progress"))
    counts->in_progress += count;
  else if (!strcmp(state, "failed"))
    counts->failed += count;
  else if (!strcmp(state, FUTURE))
    counts->future += count;
  else if (dead)
    counts->dead += count;
  else
    counts->pending += count;
  if (!dead && oldest && (!counts->oldest_occurred_at || oldest < counts->oldest_occurred_at))
    counts->oldest_occurred_at = oldest;
}

/* Runs an aggregation and passes each result to `take`; takes over the pipeline. */
static bool aggregate(Outbox *outbox, bson_t *pipeline, void (*take)(const bson_t *, void *),
                      void *data, Failure *ret_failure) {
  bson_t options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor = mongoc_collection_aggregate(
      outbox_collection(outbox), MONGOC_QUERY_NONE, pipeline, &options, NULL);
  bson_destroy(&options);
  const bson_t *document, *reply;
  bson_error_t error;
  while (mongoc_cursor_next(cursor, &document))
    take(document, data);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  return good;
}

/* Events claimed by the batch count as in progress, whatever their documents say. */
static bool count_claimed(Outbox *outbox, OutboxCounts *counts, Failure *ret_failure) {
  g_autoptr(GHashTable) in_hand = claims_in_hand(outbox, ret_failure);
  if (!in_hand || g_hash_table_size(in_hand) == 0)
    return in_hand != NULL;
  bson_t filter = BSON_INITIALIZER, options = BSON_INITIALIZER, reply;
  bson_error_t error;
  claims_append_filter(&filter, in_hand);
  mongo_append_simple(&options);
  int64_t claimed = mongoc_collection_count_documents(outbox_collection(outbox), &filter, &options,
                                                      NULL, &reply, &error);
  if (claimed < 0)
    mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(&options);
  bson_destroy(&filter);
  int64_t moved = MIN(MAX(claimed, 0), counts->pending); /* the claim may have ended in between */
  counts->pending -= moved;
  counts->in_progress += moved;
  return claimed >= 0;
}

/* {e: whether the event is failed and its time more than that ahead}. */
static bson_t *is_of_the_future(const Outbox *outbox, int64_t future_ms) {
  bson_t *time = outbox_time(outbox);
  bson_iter_t iter;
  bson_iter_init_find(&iter, time, "e");
  bson_t *condition =
      BCON_NEW("e", "{", "$and", "[", "{", "$eq", "[", BCON_UTF8("$status"), BCON_UTF8("failed"),
               "]", "}", "{", "$gt", "[", BCON_ITER(&iter), "{", "$add", "[", BCON_UTF8("$$NOW"),
               BCON_INT64(future_ms), "]", "}", "]", "}", "]", "}");
  bson_destroy(time);
  return condition;
}

bool outbox_count(Outbox *outbox, int64_t future_ms, OutboxCounts *ret_counts,
                  Failure *ret_failure) {
  OutboxCounts counts = {0};
  bson_t *time = outbox_time(outbox), *future = is_of_the_future(outbox, future_ms);
  bson_iter_t iter, condition;
  bson_iter_init_find(&iter, time, "e");
  bson_iter_init_find(&condition, future, "e");
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$group", "{", "_id", "{", "$cond", "[", BCON_ITER(&condition),
               BCON_UTF8(FUTURE), BCON_UTF8("$status"), "]", "}", "count", "{", "$sum",
               BCON_INT32(1), "}", "oldest", "{", "$min", BCON_ITER(&iter), "}", "}", "}", "{",
               "$set", "{", "now", BCON_UTF8("$$NOW"), "}", "}", "]");
  bson_destroy(future);
  bson_destroy(time);
  if (!aggregate(outbox, pipeline, take_count, &counts, ret_failure) ||
      !count_claimed(outbox, &counts, ret_failure))
    return false;
  *ret_counts = counts;
  return true;
}

static void take_number(const bson_t *document, void *data) {
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, document, "n"))
    *(int64_t *)data = bson_iter_as_int64(&iter);
}

bool outbox_count_blocked(Outbox *outbox, int64_t future_ms, int64_t *ret_count,
                          Failure *ret_failure) {
  const char *type = outbox_field(outbox, FIELD_AGGREGATE_TYPE);
  g_autofree char *of_type = g_strconcat("$", type, NULL);
  g_autofree char *of_id = g_strconcat("$", outbox_field(outbox, FIELD_AGGREGATE_ID), NULL);
  *ret_count = 0;
  bson_t *future = is_of_the_future(outbox, future_ms);
  bson_iter_t condition;
  bson_iter_init_find(&condition, future, "e");
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "status", "{", "$in", "[", BCON_UTF8("failed"),
               BCON_UTF8("dead"), "]", "}", type, "{", "$type", BCON_UTF8("string"), "}", "$expr",
               "{", "$not", "[", BCON_ITER(&condition), "]", "}", "}", "}", "{", "$group", "{",
               "_id", "{", "t", BCON_UTF8(of_type), "i", BCON_UTF8(of_id), "}", "}", "}", "{",
               "$count", BCON_UTF8("n"), "}", "]");
  bson_destroy(future);
  return aggregate(outbox, pipeline, take_number, ret_count, ret_failure);
}

bool outbox_count_kinds(Outbox *outbox, int limit, void (*take)(const bson_t *kind, void *data),
                        void *data, Failure *ret_failure) {
  g_autofree char *event_type = g_strconcat("$", outbox_field(outbox, FIELD_EVENT_TYPE), NULL);
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "status", "{", "$in", "[", BCON_UTF8("failed"),
               BCON_UTF8("dead"), "]", "}", "}", "}", "{", "$group", "{", "_id", "{", "state",
               BCON_UTF8("$status"), "event_type", BCON_UTF8(event_type), "class",
               BCON_UTF8("$last_error.class"), "message", BCON_UTF8("$last_error.message"), "}",
               "count", "{", "$sum", BCON_INT64(1), "}", "example", "{", "$first",
               BCON_UTF8("$_id"), "}", "}", "}", "{", "$sort", "{", "count", BCON_INT32(-1), "_id",
               BCON_INT32(1), "}", "}", "{", "$limit", BCON_INT32(limit), "}", "]");
  return aggregate(outbox, pipeline, take, data, ret_failure);
}

/* An index with another collation than the simple one, which is the only one that listIndexes does
 * not show, finds no texts; the others do not find every event, or are not used. */
static bool starts_with(const bson_t *index, const char *const *fields) {
  static const char *const useless[] = {"collation", "hidden", "sparse", "partialFilterExpression"};
  bson_iter_t iter, key;
  for (size_t i = 0; i < G_N_ELEMENTS(useless); i++)
    if (bson_iter_init_find(&iter, index, useless[i]) && bson_iter_as_bool(&iter))
      return false;
  if (!bson_iter_init_find(&iter, index, "key") || !bson_iter_recurse(&iter, &key))
    return false;
  for (; *fields; fields++)
    if (!bson_iter_next(&key) || strcmp(bson_iter_key(&key), *fields) != 0)
      return false;
  return true;
}

bool outbox_has_index(Outbox *outbox, const char *const *fields, bool *ret_found,
                      Failure *ret_failure) {
  mongoc_cursor_t *cursor =
      mongoc_collection_find_indexes_with_opts(outbox_collection(outbox), NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  *ret_found = false;
  while (mongoc_cursor_next(cursor, &document))
    *ret_found |= starts_with(document, fields);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              error.code == 26 /* NamespaceNotFound: no collection, no index */ ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  return good;
}

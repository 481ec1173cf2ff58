/* feed_commands.c - what copying into feeds sends to MongoDB. */
#include "projector/infra/mongo/feeds_private.h"

#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox_identity.h"
#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

/* --- copies --------------------------------------------------------------------------------- */

bool feed_copy_into(Outbox *outbox, const char *feed, const bson_t *filter, Failure *ret_failure) {
  bson_t *sorted = outbox_sorted_options(outbox);
  bson_iter_t order;
  bson_iter_init_find(&order, sorted, "sort");
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$match", BCON_DOCUMENT(filter), "}", "{", "$match", "{", "fed_to", "{",
      "$ne", BCON_UTF8(feed), "}", "}", "}", "{", "$sort", BCON_ITER(&order), "}", "{", "$unset",
      "[", BCON_UTF8("status"), BCON_UTF8("attempts"), BCON_UTF8("next_attempt_at"),
      BCON_UTF8("claimed_by"), BCON_UTF8("claimed_at"), BCON_UTF8("last_error"),
      BCON_UTF8("fed_at"), BCON_UTF8("fed_to"), "]", "}", "{", "$merge", "{", "into",
      BCON_UTF8(feed), "whenMatched", BCON_UTF8("keepExisting"), "}", "}", "]");
  bson_destroy(sorted);
  bool good = outbox_merge(outbox, pipeline, ret_failure) ||
              failure_prefix(ret_failure, "the feed %s", feed);
  bson_destroy(pipeline);
  return good;
}

bool feed_insert(Outbox *outbox, const char *feed, const bson_t **copies, size_t count,
                 bool *ret_known, Failure *ret_failure) {
  enum { DUPLICATE_KEY = 11000 };
  mongoc_collection_t *collection = outbox_neighbour(outbox, feed);
  bson_t *options =
      BCON_NEW("ordered", BCON_BOOL(true), "writeConcern", "{", "w", BCON_UTF8("majority"), "}");
  bson_error_t error;
  bson_t reply;
  bool good = mongoc_collection_insert_many(collection, copies, count, options, &reply, &error);
  *ret_known = !good && error.code == DUPLICATE_KEY;
  if (!good && !*ret_known)
    mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(options);
  mongoc_collection_destroy(collection);
  return good;
}

/* --- events that stay in the outbox ---------------------------------------------------------- */

/* {"$or": [{"fed_to": {"$ne": feed}} …]} */
static void append_unfed(bson_t *filter, const Outbox *outbox) {
  bson_t list = BSON_INITIALIZER;
  const char *const *feeds = feeds_of(outbox_store(outbox));
  for (uint32_t i = 0; feeds[i]; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string(i, &key, buffer, sizeof buffer);
    BCON_APPEND(&list, key, "{", "fed_to", "{", "$ne", BCON_UTF8(feeds[i]), "}", "}");
  }
  BSON_APPEND_ARRAY(filter, "$or", &list);
  bson_destroy(&list);
}

bool feeds_look(Outbox *outbox, bool *ret_any, Moment *ret_moment, Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER, reply;
  append_unfed(&filter, outbox);
  const char *name = mongoc_collection_get_name(outbox_collection(outbox));
  bson_t *command =
      BCON_NEW("find", BCON_UTF8(name), "filter", BCON_DOCUMENT(&filter), "projection", "{", "_id",
               BCON_INT32(1), "}", "limit", BCON_INT32(1), "singleBatch", BCON_BOOL(true),
               "readConcern", "{", "level", BCON_UTF8("snapshot"), "}");
  mongo_append_simple(command);
  bson_error_t error;
  bool good = mongoc_collection_command_with_opts(outbox_collection(outbox), command, NULL, NULL,
                                                  &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_iter_t iter, found;
  *ret_moment = (Moment){0};
  *ret_any = false;
  if (good && bson_iter_init(&iter, &reply) &&
      bson_iter_find_descendant(&iter, "cursor.atClusterTime", &found) &&
      BSON_ITER_HOLDS_TIMESTAMP(&found))
    bson_iter_timestamp(&found, &ret_moment->seconds, &ret_moment->increment);
  if (good && bson_iter_init(&iter, &reply))
    *ret_any = bson_iter_find_descendant(&iter, "cursor.firstBatch.0", &found);
  bson_destroy(&reply);
  bson_destroy(command);
  bson_destroy(&filter);
  return good;
}

bool feeds_have_marked(Outbox *outbox, bool *ret_any, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor =
      outbox_find(outbox, BCON_NEW("fed_at", "{", "$exists", BCON_BOOL(true), "}"),
                  BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "limit", BCON_INT64(1)));
  *ret_any = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE;
}

EventCursor *feeds_find(Outbox *outbox, const Moment *moment) {
  bson_t *filter = bson_new();
  append_unfed(filter, outbox);
  bson_t *options = outbox_sorted_options(outbox);
  BCON_APPEND(options, "projection", "{", "_id", BCON_INT32(1), "}", "allowDiskUse",
              BCON_BOOL(true), "batchSize", BCON_INT32(FEED_PAGE), "readConcern", "{", "level",
              BCON_UTF8("snapshot"), "atClusterTime",
              BCON_TIMESTAMP(moment->seconds, moment->increment), "}");
  return outbox_find(outbox, filter, options);
}

void feeds_append_mark(const Outbox *outbox, bson_t *set, const char *at) {
  bson_t names = BSON_INITIALIZER;
  const char *const *feeds = feeds_of(outbox_store(outbox));
  for (uint32_t i = 0; feeds[i]; i++) {
    char buffer[16];
    const char *key;
    bson_uint32_to_string(i, &key, buffer, sizeof buffer);
    BSON_APPEND_UTF8(&names, key, feeds[i]);
  }
  /* A writer that serializes objects of a class may have written the field as null. */
  BCON_APPEND(set, "fed_at", BCON_UTF8(*feeds ? at : "$$REMOVE"), "fed_to", "{", "$cond", "[",
              BCON_BOOL(*feeds == NULL), BCON_UTF8("$$REMOVE"), "{", "$setUnion", "[", "{", "$cond",
              "[", "{", "$isArray", BCON_UTF8("$fed_to"), "}", BCON_UTF8("$fed_to"), "[", "]", "]",
              "}", "{", "$literal", BCON_ARRAY(&names), "}", "]", "}", "]", "}");
  bson_destroy(&names);
}

bool feed_mark(Outbox *outbox, const bson_t *filter, int64_t *ret_count, Failure *ret_failure) {
  bson_t marked = BSON_INITIALIZER, set = BSON_INITIALIZER;
  bson_concat(&marked, filter);
  append_unfed(&marked, outbox);
  feeds_append_mark(outbox, &set, "$$NOW");
  bson_t *update = BCON_NEW("0", "{", "$set", BCON_DOCUMENT(&set), "}");
  bool good = outbox_update_many(outbox, &marked, update, ret_count, ret_failure);
  bson_destroy(update);
  bson_destroy(&set);
  bson_destroy(&marked);
  return good;
}

/* --- views ---------------------------------------------------------------------------------- */

static bool count_events(MongoStore *store, const char *feed, int64_t *ret_count,
                         Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *collection =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, feed);
  bson_error_t error;
  bson_t reply;
  int64_t count =
      mongoc_collection_estimated_document_count(collection, NULL, NULL, &reply, &error);
  bool good = count >= 0 || mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  mongoc_collection_destroy(collection);
  mongo_store_return(store, client);
  if (good)
    *ret_count = count;
  return good;
}

static bool view_feed(MongoStore *store, const char *feed, FeedView *ret_view,
                      Failure *ret_failure) {
  FeedView view = {.reader_lag_ms = -1};
  OutboxIdentity identity;
  g_strlcpy(view.name, feed, sizeof view.name);
  if (!count_events(store, feed, &view.events, ret_failure) ||
      !outbox_identity_look_at(store, feed, &identity, ret_failure))
    return false;
  g_strlcpy(view.reader, identity.projector, sizeof view.reader);
  if (*view.reader) {
    LeaseView lease;
    if (!lease_look(store, view.reader, &lease, ret_failure))
      return false;
    view.reader_works = lease.held;
    view.reader_lag_ms = lease.held ? lease.lag_ms : -1;
  }
  *ret_view = view;
  return true;
}

bool feeds_view(MongoStore *store, FeedView ret_views[static FEEDS_MAX], unsigned *ret_count,
                Failure *ret_failure) {
  const char *const *feeds = feeds_of(store);
  *ret_count = 0;
  for (; feeds[*ret_count]; ++*ret_count)
    if (!view_feed(store, feeds[*ret_count], &ret_views[*ret_count], ret_failure))
      return false;
  return true;
}

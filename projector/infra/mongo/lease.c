/* lease.c - the lease document in the collection projector_leases. */
#include "projector/infra/mongo/lease.h"

#include <string.h>

static const char collection_name[] = "projector_leases";

struct Lease {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *leases;
  char *name, *owner;
  int64_t lease_ms;
};

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms) {
  Lease *lease = g_new0(Lease, 1);
  lease->store = store;
  lease->client = mongo_store_borrow(store);
  lease->leases = mongoc_client_get_collection(lease->client, mongo_store_settings(store)->database,
                                               collection_name);
  lease->name = g_strdup(name);
  lease->owner = g_strdup(owner);
  lease->lease_ms = lease_ms;
  return lease;
}

void lease_free(Lease *lease) {
  if (!lease)
    return;
  mongoc_collection_destroy(lease->leases);
  mongo_store_return(lease->store, lease->client);
  g_free(lease->name);
  g_free(lease->owner);
  g_free(lease);
}

/* One atomic step decides: the fields change only when the lease is free, expired or ours. */
static bson_t *acquire_update(const Lease *lease) {
  return BCON_NEW("update", "[", "{", "$set", "{", "free", "{", "$or", "[", "{", "$lte", "[", "{",
                  "$ifNull", "[", BCON_UTF8("$expires_at"), BCON_DATE_TIME(0), "]", "}",
                  BCON_UTF8("$$NOW"), "]", "}", "{", "$eq", "[", BCON_UTF8("$owner"), "{",
                  "$literal", BCON_UTF8(lease->owner), "}", "]", "}", "]", "}", "}", "}", "{",
                  "$set", "{", "owner", "{", "$cond", "[", BCON_UTF8("$free"), "{", "$literal",
                  BCON_UTF8(lease->owner), "}", BCON_UTF8("$owner"), "]", "}", "expires_at", "{",
                  "$cond", "[", BCON_UTF8("$free"), "{", "$add", "[", BCON_UTF8("$$NOW"),
                  BCON_INT64(lease->lease_ms), "]", "}", BCON_UTF8("$expires_at"), "]", "}",
                  "nudges", "{", "$ifNull", "[", BCON_UTF8("$nudges"), BCON_INT64(0), "]", "}", "}",
                  "}", "{", "$unset", BCON_UTF8("free"), "}", "]");
}

bool lease_acquire(Lease *lease, bool *ret_owned, int64_t *ret_nudges, Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(lease->name));
  bson_t *update = acquire_update(lease);
  bson_t command = BSON_INITIALIZER;
  BSON_APPEND_UTF8(&command, "findAndModify", collection_name);
  BSON_APPEND_DOCUMENT(&command, "query", filter);
  bson_concat(&command, update);
  BSON_APPEND_BOOL(&command, "upsert", true);
  BSON_APPEND_BOOL(&command, "new", true);
  bool good = mongoc_client_write_command_with_opts(
      lease->client, mongo_store_settings(lease->store)->database, &command, NULL, &reply, &error);
  bson_iter_t iter, member;
  if (!good) {
    mongo_fail(&error, &reply, ret_failure);
  } else {
    *ret_owned =
        bson_iter_init(&iter, &reply) && bson_iter_find_descendant(&iter, "value.owner", &member) &&
        BSON_ITER_HOLDS_UTF8(&member) && !strcmp(bson_iter_utf8(&member, NULL), lease->owner);
    if (bson_iter_init(&iter, &reply) && bson_iter_find_descendant(&iter, "value.nudges", &member))
      *ret_nudges = bson_iter_as_int64(&member);
  }
  bson_destroy(&reply);
  bson_destroy(&command);
  bson_destroy(update);
  bson_destroy(filter);
  return good;
}

static bool update_one(mongoc_collection_t *leases, bson_t *filter, bson_t *update, bool upsert,
                       Failure *ret_failure) {
  bson_error_t error;
  bson_t reply;
  bson_t *options = BCON_NEW("upsert", BCON_BOOL(upsert));
  bool good = mongoc_collection_update_one(leases, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(options);
  bson_destroy(filter);
  bson_destroy(update);
  return good;
}

bool lease_release(Lease *lease, Failure *ret_failure) {
  return update_one(
      lease->leases, BCON_NEW("_id", BCON_UTF8(lease->name), "owner", BCON_UTF8(lease->owner)),
      BCON_NEW("$set", "{", "expires_at", BCON_DATE_TIME(0), "}"), false, ret_failure);
}

bool lease_nudge(MongoStore *store, const char *name, Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  return update_one(lease->leases, BCON_NEW("_id", BCON_UTF8(name)),
                    BCON_NEW("$inc", "{", "nudges", BCON_INT64(1), "}"), true, ret_failure);
}

bool lease_look(MongoStore *store, const char *name, LeaseView *ret_view, Failure *ret_failure) {
  g_autoptr(Lease) lease = lease_new(store, name, "", 0);
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$match", "{", "_id", BCON_UTF8(name), "}", "}", "{", "$set",
               "{", "left", "{", "$subtract", "[", BCON_UTF8("$expires_at"), BCON_UTF8("$$NOW"),
               "]", "}", "}", "}", "]");
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(lease->leases, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
  LeaseView view = {0};
  const bson_t *document, *reply;
  bson_error_t error;
  bson_iter_t iter;
  if (mongoc_cursor_next(cursor, &document)) {
    if (bson_iter_init_find(&iter, document, "left") && BSON_ITER_HOLDS_INT(&iter))
      view.expires_in_ms = bson_iter_as_int64(&iter);
    if (bson_iter_init_find(&iter, document, "owner") && BSON_ITER_HOLDS_UTF8(&iter))
      g_strlcpy(view.owner, bson_iter_utf8(&iter, NULL), sizeof view.owner);
    view.held = view.expires_in_ms > 0;
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  if (good)
    *ret_view = view;
  return good;
}

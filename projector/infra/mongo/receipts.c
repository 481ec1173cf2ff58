/* receipts.c - inspects the indexes of <outbox>_commands. */
#include "projector/infra/mongo/receipts.h"

enum {
  UNAUTHORIZED = 13,
  NOT_FOUND = 26,
  REFUSED_S = 600, /* how long a process that was refused does not ask again: mongod logs each */
};

static gint refused_until; /* atomic; monotonic, s */

static void read_index(const bson_t *index, Receipts *receipts) {
  bson_iter_t iter, value;
  if (!bson_iter_init(&iter, index) || !bson_iter_find_descendant(&iter, "key.at", &value))
    return;
  receipts->state = RECEIPTS_FOREVER;
  if (bson_iter_init_find(&value, index, "expireAfterSeconds"))
    *receipts = (Receipts){RECEIPTS_EXPIRE, bson_iter_as_int64(&value)};
}

static char *receipts_name(const char *outbox) {
  return g_strconcat(outbox, "_commands", NULL);
}

static gint now_s(void) {
  return (gint)(g_get_monotonic_time() / G_USEC_PER_SEC);
}

bool mongo_count_receipts(MongoStore *store, int64_t *ret_count, Failure *ret_failure) {
  *ret_count = -1;
  if (now_s() < g_atomic_int_get(&refused_until))
    return true;
  g_autofree char *name = receipts_name(mongo_store_settings(store)->outbox);
  Failure failure = {0};
  if (mongo_estimate(store, name, ret_count, &failure))
    return true;
  if (failure.class == FAILURE_CONFIG) { /* a privilege, by whichever code it is denied */
    g_atomic_int_set(&refused_until, now_s() + REFUSED_S);
    return true;
  }
  *ret_failure = failure;
  return false;
}

bool mongo_look_at_receipts(MongoStore *store, const char *outbox, Receipts *ret_receipts,
                            Failure *ret_failure) {
  const MongoSettings *settings = mongo_store_settings(store);
  g_autofree char *name = receipts_name(outbox);
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *collection = mongoc_client_get_collection(client, settings->database, name);
  mongoc_cursor_t *cursor = mongoc_collection_find_indexes_with_opts(collection, NULL);
  const bson_t *index, *reply;
  bson_error_t error;
  Receipts receipts = {0};
  bool good = true;
  while (mongoc_cursor_next(cursor, &index)) {
    if (receipts.state == RECEIPTS_NONE)
      receipts.state = RECEIPTS_UNBOUND;
    read_index(index, &receipts);
  }
  if (mongoc_cursor_error_document(cursor, &error, &reply)) {
    receipts.state = error.code == UNAUTHORIZED ? RECEIPTS_HIDDEN : RECEIPTS_NONE;
    good = error.code == UNAUTHORIZED || error.code == NOT_FOUND ||
           mongo_fail(&error, reply, ret_failure);
  }
  if (good)
    *ret_receipts = receipts;
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(collection);
  mongo_store_return(store, client);
  return good;
}

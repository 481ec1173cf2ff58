/* refused.c - the document "refused:NAME" of the collection projector_leases. */
#include "projector/infra/mongo/refused.h"

#include <string.h>

static mongoc_collection_t *leases(MongoStore *store, mongoc_client_t *client) {
  return mongoc_client_get_collection(client, mongo_store_settings(store)->database,
                                      "projector_leases");
}

static bson_t *document_id(const char *name) {
  g_autofree char *id = g_strdup_printf("refused:%s", name);
  return BCON_NEW("_id", BCON_UTF8(id));
}

static void append_one(bson_t *array, uint32_t index, const Refused *one) {
  char buffer[16];
  const char *key;
  bson_t entry;
  g_autofree char *message = g_utf8_make_valid(one->failure.message, -1);
  bson_uint32_to_string(index, &key, buffer, sizeof buffer);
  BSON_APPEND_DOCUMENT_BEGIN(array, key, &entry);
  id_append_bson(&one->id, &entry, "event_id");
  BSON_APPEND_UTF8(&entry, "class", failure_class_name(one->failure.class));
  BSON_APPEND_INT32(&entry, "code", one->failure.code);
  BSON_APPEND_UTF8(&entry, "message", message);
  bson_append_document_end(array, &entry);
}

bool refused_write(MongoStore *store, const char *name, const GArray *refused,
                   Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *collection = leases(store, client);
  bson_t array = BSON_INITIALIZER, reply, *filter = document_id(name);
  bson_error_t error;
  for (guint i = 0; i < MIN(refused->len, REFUSED_MAX); i++)
    append_one(&array, i, &g_array_index(refused, Refused, i));
  bson_t *update = BCON_NEW("$set", "{", "events", BCON_ARRAY(&array), "count",
                            BCON_INT32((int32_t)refused->len), "}");
  bson_t *options = BCON_NEW("upsert", BCON_BOOL(refused->len > 0));
  mongo_append_simple(options);
  bool good = mongoc_collection_update_one(collection, filter, update, options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(options);
  bson_destroy(update);
  bson_destroy(filter);
  bson_destroy(&array);
  mongoc_collection_destroy(collection);
  mongo_store_return(store, client);
  return good;
}

static void take_member(const bson_iter_t *member, Refused *one) {
  const char *key = bson_iter_key(member);
  OrderKey kept;
  if (!strcmp(key, "event_id")) {
    OrderKey found = {0};
    if (id_from_iter(member, &found.event_id)) {
      order_key_copy(&found, &kept, one->bytes);
      one->id = kept.event_id;
    }
  } else if (!strcmp(key, "code") && BSON_ITER_HOLDS_INT(member)) {
    one->failure.code = (int)bson_iter_as_int64(member);
  } else if (!strcmp(key, "message") && BSON_ITER_HOLDS_UTF8(member)) {
    g_strlcpy(one->failure.message, bson_iter_utf8(member, NULL), sizeof one->failure.message);
  }
}

/* The class follows from the number. */
static void take_one(GHashTable *table, const bson_iter_t *entry) {
  bson_iter_t member;
  if (!BSON_ITER_HOLDS_DOCUMENT(entry) || !bson_iter_recurse(entry, &member))
    return;
  Refused *one = g_new0(Refused, 1);
  one->id.kind = ID_OTHER;
  while (bson_iter_next(&member))
    take_member(&member, one);
  one->failure.source = SOURCE_MONGODB;
  one->failure.class = failure_class_of_mongodb(one->failure.code);
  if (one->id.kind == ID_OTHER)
    g_free(one);
  else
    g_hash_table_replace(table, &one->id, one);
}

GHashTable *refused_read(MongoStore *store, const char *name, Failure *ret_failure) {
  g_autoptr(GHashTable) table = g_hash_table_new_full(id_hash_key, id_equal_key, NULL, g_free);
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *collection = leases(store, client);
  bson_t *filter = document_id(name), options = BSON_INITIALIZER;
  const bson_t *document, *reply;
  bson_error_t error;
  bson_iter_t iter, entry;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, filter, &options, NULL);
  if (mongoc_cursor_next(cursor, &document) && bson_iter_init_find(&iter, document, "events") &&
      BSON_ITER_HOLDS_ARRAY(&iter) && bson_iter_recurse(&iter, &entry))
    while (bson_iter_next(&entry))
      take_one(table, &entry);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(&options);
  bson_destroy(filter);
  mongoc_collection_destroy(collection);
  mongo_store_return(store, client);
  return good ? g_steal_pointer(&table) : NULL;
}

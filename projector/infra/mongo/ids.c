/* ids.c - reads the ids of aggregates in place. */
#include "projector/infra/mongo/ids.h"

#include <string.h>

static void ids_add(GHashTable *ids, const Id *id) {
  char text[ID_TEXT_SIZE];
  size_t length = id_text(id, text);
  if (strlen(text) != length)
    return; /* with a NUL in it: nobody could tell it from another by its text */
  guint kinds = GPOINTER_TO_UINT(g_hash_table_lookup(ids, text)) | 1U << id->kind;
  g_hash_table_insert(ids, g_strdup(text), GUINT_TO_POINTER(kinds));
}

bool mongo_ids_add(MongoStore *store, const char *collection, const char *aggregate_type,
                   int64_t limit, GHashTable *ids, Failure *ret_failure) {
  const MongoSettings *settings = mongo_store_settings(store);
  const char *const *names =
      settings->fields.foreign ? settings->fields.names : event_fields_contract.names;
  const char *field = aggregate_type ? names[FIELD_AGGREGATE_ID] : "_id";
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *from = mongoc_client_get_collection(client, settings->database, collection);
  bson_t filter = BSON_INITIALIZER;
  if (aggregate_type)
    BSON_APPEND_UTF8(&filter, names[FIELD_AGGREGATE_TYPE], aggregate_type);
  bson_t *options =
      BCON_NEW("projection", "{", field, BCON_INT32(1), "}", "limit", BCON_INT64(limit));
  mongo_append_simple(options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(from, &filter, options, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  while (mongoc_cursor_next(cursor, &document)) {
    bson_iter_t iter, found;
    Id id;
    if (bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, field, &found) &&
        aggregate_id_from_iter(&found, &id))
      ids_add(ids, &id);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(options);
  bson_destroy(&filter);
  mongoc_collection_destroy(from);
  mongo_store_return(store, client);
  return good;
}

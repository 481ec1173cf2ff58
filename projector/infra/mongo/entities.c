/* entities.c - queries on a collection of entities. */
#include "projector/infra/mongo/entities.h"

#include "projector/infra/mongo/outbox_private.h"

#include <string.h>

/* Documents kept at a time, in bytes; at least one document. */
enum { BYTES_MAX = 4 * 1024 * 1024 };

struct Entities {
  MongoStore *store;
  mongoc_client_t *client;
  mongoc_collection_t *collection;
  bson_t *fields;
};

Entities *entities_open(MongoStore *store, const char *collection, const bson_t *fields) {
  Entities *entities = g_new0(Entities, 1);
  entities->store = store;
  entities->client = mongo_store_borrow(store);
  entities->collection = mongoc_client_get_collection(
      entities->client, mongo_store_settings(store)->database, collection);
  entities->fields = fields ? bson_copy(fields) : NULL;
  return entities;
}

void entities_close(Entities *entities) {
  if (!entities)
    return;
  mongoc_collection_destroy(entities->collection);
  mongo_store_return(entities->store, entities->client);
  if (entities->fields)
    bson_destroy(entities->fields);
  g_free(entities);
}

bson_t *entity_mark(const bson_t *document) {
  bson_t *mark = bson_new();
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, document, "_id"))
    bson_append_iter(mark, "_id", -1, &iter);
  return mark;
}

static bool is_at(const bson_t *document, const bson_t *mark) {
  bson_t *other = entity_mark(document);
  bool equal = bson_equal(other, mark);
  bson_destroy(other);
  return equal;
}

/* Takes over the cursor; leaves out the document at `except`, and those beyond the limit. */
static bool take(mongoc_cursor_t *cursor, const bson_t *except, size_t limit, GPtrArray *documents,
                 Failure *ret_failure) {
  const bson_t *document, *reply;
  bson_error_t error;
  size_t bytes = 0;
  while (bytes < limit && mongoc_cursor_next(cursor, &document))
    if (!except || !is_at(document, except)) {
      g_ptr_array_add(documents, bson_copy(document));
      bytes += document->len;
    }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  return good;
}

static void append_fields(const Entities *entities, bson_t *options) {
  if (entities->fields)
    BSON_APPEND_DOCUMENT(options, "projection", entities->fields);
}

/* In the order of the index of _id, which is that of the collection's collation. `min` instead of
 * $gt, which would see ids of one type only; it includes its own document. The cursor is read until
 * it ends or the page is full: a server's reply ends at 16 MB, and one that contains only the
 * document at `after` does not mean the end. */
bool entities_page(Entities *entities, const bson_t *after, unsigned limit, GPtrArray *documents,
                   Failure *ret_failure) {
  bson_t all = BSON_INITIALIZER;
  bson_t *options = BCON_NEW(
      "sort", "{", "_id", BCON_INT32(1), "}", "hint", "{", "_id", BCON_INT32(1), "}", "limit",
      BCON_INT64((int64_t)limit + (after != NULL)), "batchSize", BCON_INT64((int64_t)limit + 1));
  if (after)
    BSON_APPEND_DOCUMENT(options, "min", after);
  append_fields(entities, options);
  mongoc_cursor_t *cursor =
      mongoc_collection_find_with_opts(entities->collection, &all, options, NULL);
  bson_destroy(options);
  return take(cursor, after, BYTES_MAX, documents, ret_failure);
}

bool entities_sample(Entities *entities, int64_t size, GPtrArray *documents, Failure *ret_failure) {
  bson_t *pipeline =
      BCON_NEW("pipeline", "[", "{", "$sample", "{", "size", BCON_INT64(size), "}", "}", "]");
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(entities->collection, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
  bson_destroy(pipeline);
  return take(cursor, NULL, BYTES_MAX, documents, ret_failure);
}

/* Ids are looked up with the collection's own collation, because only then the index of _id is
 * used. With any but the simple collation that index has "zz" or "ZZ", never both; so the results
 * are compared with what was asked for. */
static bool is_one_of(const bson_t *document, const Id *ids, size_t count) {
  bson_iter_t iter;
  Id id;
  if (!bson_iter_init_find(&iter, document, "_id") || !id_from_iter(&iter, &id))
    return false;
  for (size_t i = 0; i < count; i++)
    if (id_equal(&id, &ids[i]))
      return true;
  return false;
}

bool outbox_read_entity(Outbox *outbox, const char *collection, const Id *id, bson_t **ret_entity,
                        Failure *ret_failure) {
  mongoc_collection_t *entities = outbox_neighbour(outbox, collection);
  bson_t filter = BSON_INITIALIZER;
  id_append_bson(id, &filter, "_id");
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(entities, &filter, NULL, NULL);
  const bson_t *document = NULL, *reply;
  bson_error_t error;
  mongoc_cursor_next(cursor, &document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  if (good)
    *ret_entity = document && is_one_of(document, id, 1) ? bson_copy(document) : NULL;
  mongoc_cursor_destroy(cursor);
  bson_destroy(&filter);
  mongoc_collection_destroy(entities);
  return good;
}

bool entities_find(Entities *entities, const Id *ids, size_t count, GPtrArray *documents,
                   Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER, options = BSON_INITIALIZER;
  outbox_append_ids(&filter, "_id", ids, count);
  append_fields(entities, &options);
  mongoc_cursor_t *cursor =
      mongoc_collection_find_with_opts(entities->collection, &filter, &options, NULL);
  bson_destroy(&options);
  bson_destroy(&filter);
  guint first = documents->len;
  if (!take(cursor, NULL, SIZE_MAX, documents, ret_failure))
    return false;
  for (guint i = documents->len; i-- > first;)
    if (!is_one_of(documents->pdata[i], ids, count))
      g_ptr_array_remove_index(documents, i);
  return true;
}

bool entities_estimate(Entities *entities, int64_t *ret_count, Failure *ret_failure) {
  return mongo_estimate(entities->store, mongoc_collection_get_name(entities->collection),
                        ret_count, ret_failure);
}

static bool exists(mongoc_client_t *client, MongoStore *store, const char *collection,
                   bool *ret_exist, Failure *ret_failure) {
  Failure failure = {0};
  bool may;
  bson_t *entry = mongo_find_collection(client, mongo_store_settings(store)->database, collection,
                                        true, &may, &failure);
  *ret_exist = entry || !may;
  if (entry)
    bson_destroy(entry);
  if (!may || failure.class == FAILURE_NONE)
    return true;
  *ret_failure = failure;
  return false;
}

bool entities_exist(MongoStore *store, const char *collection, bool *ret_exist,
                    Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  bool good = exists(client, store, collection, ret_exist, ret_failure);
  mongo_store_return(store, client);
  return good;
}

bool outbox_entities_exist(Outbox *outbox, const char *collection, bool *ret_exist,
                           Failure *ret_failure) {
  return exists(outbox_client(outbox), outbox_store(outbox), collection, ret_exist, ret_failure);
}

/* outbox_identity.c - the document of an outbox in the collection projector_leases. */
#include "projector/infra/mongo/outbox_identity.h"

#include "projector/infra/mongo/lease.h"

#include <string.h>

static const char collection_name[] = "projector_leases";

static void read_text(const bson_t *document, const char *path, char ret_text[static 65]) {
  bson_iter_t iter, member;
  if (bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member) &&
      BSON_ITER_HOLDS_UTF8(&member))
    g_strlcpy(ret_text, bson_iter_utf8(&member, NULL), 65);
}

static char *key_of(const char *outbox) {
  return g_strconcat("outbox:", outbox, NULL);
}

bool outbox_identity_look_at(MongoStore *store, const char *outbox, OutboxIdentity *ret_identity,
                             Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  g_autofree char *key = key_of(outbox);
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(key)), options = BSON_INITIALIZER;
  mongo_append_simple(&options);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(leases, filter, &options, NULL);
  OutboxIdentity identity = {0};
  const bson_t *document, *reply;
  bson_error_t error;
  if (mongoc_cursor_next(cursor, &document)) {
    read_text(document, "projector", identity.projector);
    read_text(document, "source", identity.source);
    read_text(document, "mapping", identity.mapping);
    read_text(document, "inherits", identity.inherits);
  }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(&options);
  bson_destroy(filter);
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  if (good)
    *ret_identity = identity;
  return good;
}

bool outbox_identity_look(MongoStore *store, OutboxIdentity *ret_identity, Failure *ret_failure) {
  return outbox_identity_look_at(store, mongo_store_settings(store)->outbox, ret_identity,
                                 ret_failure);
}

/* With the change of name, of which the ledger knows the events. A name that was itself renamed
 * before it had inherited has nothing to pass on. */
static bson_t *inheritance(const char *name, const char *taken_from) {
  bool changes = *taken_from && strcmp(taken_from, name) != 0;
  return BCON_NEW("inherits", "{", "$cond", "[", "{", "$eq", "[", BCON_UTF8("$projector"), "{",
                  "$literal", BCON_UTF8(changes ? taken_from : ""), "}", "]", "}", "{", "$ifNull",
                  "[", BCON_UTF8("$inherits"), "{", "$literal", BCON_UTF8(taken_from), "}", "]",
                  "}", BCON_UTF8("$inherits"), "]", "}");
}

/* One atomic step. `taken_from` is the name from which it may be taken, "" for none. */
static bson_t *take_command(const char *key, const char *name, const char *mapping,
                            const char *taken_from) {
  g_autofree char *source = g_uuid_string_random();
  bson_t *first = BCON_NEW(
      "projector", "{", "$cond", "[", "{", "$in", "[", "{", "$ifNull", "[", BCON_UTF8("$projector"),
      BCON_UTF8(""), "]", "}", "[", BCON_UTF8(""), "{", "$literal", BCON_UTF8(taken_from), "}", "]",
      "]", "}", "{", "$literal", BCON_UTF8(name), "}", BCON_UTF8("$projector"), "]", "}", "source",
      "{", "$ifNull", "[", BCON_UTF8("$source"), BCON_UTF8(source), "]", "}");
  bson_t *inherits = inheritance(name, taken_from);
  bson_concat(first, inherits);
  bson_t *is_ours =
      BCON_NEW("$eq", "[", BCON_UTF8("$projector"), "{", "$literal", BCON_UTF8(name), "}", "]");
  bson_t *then =
      BCON_NEW("mapping_before", "{", "$cond", "[", BCON_DOCUMENT(is_ours), "{", "$ifNull", "[",
               BCON_UTF8("$mapping"), BCON_UTF8(""), "]", "}", BCON_UTF8("$mapping_before"), "]",
               "}", "mapping", "{", "$cond", "[", BCON_DOCUMENT(is_ours), BCON_UTF8(mapping),
               BCON_UTF8("$mapping"), "]", "}");
  bson_t *command =
      BCON_NEW("findAndModify", BCON_UTF8(collection_name), "query", "{", "_id", BCON_UTF8(key),
               "}", "update", "[", "{", "$set", BCON_DOCUMENT(first), "}", "{", "$set",
               BCON_DOCUMENT(then), "}", "]", "upsert", BCON_BOOL(true), "new", BCON_BOOL(true));
  mongo_append_simple(command);
  bson_destroy(first);
  bson_destroy(inherits);
  bson_destroy(is_ours);
  bson_destroy(then);
  return command;
}

static bool take(MongoStore *store, bson_t *command, OutboxIdentity *ret_identity,
                 Failure *ret_failure) {
  bson_t reply;
  bson_error_t error;
  mongoc_client_t *client = mongo_store_borrow(store);
  bool good = mongoc_client_write_command_with_opts(client, mongo_store_settings(store)->database,
                                                    command, NULL, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  if (good) {
    *ret_identity = (OutboxIdentity){0};
    read_text(&reply, "value.projector", ret_identity->projector);
    read_text(&reply, "value.source", ret_identity->source);
    read_text(&reply, "value.mapping_before", ret_identity->mapping);
    read_text(&reply, "value.inherits", ret_identity->inherits);
  }
  bson_destroy(&reply);
  mongo_store_return(store, client);
  return good;
}

bool outbox_identity_take(MongoStore *store, const char *name, const char *mapping, bool adopt,
                          OutboxIdentity *ret_identity, Failure *ret_failure) {
  OutboxIdentity now = {0};
  if (adopt && !outbox_identity_look(store, &now, ret_failure))
    return false;
  if (*now.projector && strcmp(now.projector, name) != 0) {
    LeaseView view;
    if (!lease_look(store, now.projector, &view, ret_failure))
      return false;
    if (view.held)
      return failure_refuse(ret_failure,
                            "the projector \"%s\" works on this outbox at this moment (%s): stop "
                            "it before another name takes the outbox over",
                            now.projector, view.owner);
  }
  g_autofree char *key = key_of(mongo_store_settings(store)->outbox);
  bson_t *command = take_command(key, name, mapping, now.projector);
  bool good = take(store, command, ret_identity, ret_failure);
  bson_destroy(command);
  return good;
}

bool outbox_identity_settle(MongoStore *store, const char *name, Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *leases =
      mongoc_client_get_collection(client, mongo_store_settings(store)->database, collection_name);
  g_autofree char *key = key_of(mongo_store_settings(store)->outbox);
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(key), "projector", BCON_UTF8(name)), reply;
  bson_t *update = BCON_NEW("$unset", "{", "inherits", BCON_UTF8(""), "}");
  bson_t options = BSON_INITIALIZER;
  bson_error_t error;
  mongo_append_simple(&options);
  bool good = mongoc_collection_update_one(leases, filter, update, &options, &reply, &error) ||
              mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  bson_destroy(&options);
  bson_destroy(update);
  bson_destroy(filter);
  mongoc_collection_destroy(leases);
  mongo_store_return(store, client);
  return good;
}

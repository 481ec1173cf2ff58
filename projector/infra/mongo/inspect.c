/* inspect.c - clocks, majority, oplog, privileges: for `check`. */
#include "projector/infra/mongo/inspect.h"

#include <string.h>

/* Takes over the command. */
static bool run(mongoc_client_t *client, bson_t *command, bson_t *ret_reply, Failure *ret_failure) {
  bson_error_t error;
  bool good = mongoc_client_command_simple(client, "admin", command, NULL, ret_reply, &error) ||
              mongo_fail(&error, ret_reply, ret_failure);
  bson_destroy(command);
  return good;
}

static bool find(const bson_t *document, const char *path, bson_iter_t *ret_value) {
  bson_iter_t iter;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, ret_value);
}

static int64_t date_at(const bson_t *document, const char *path) {
  bson_iter_t value;
  return find(document, path, &value) && BSON_ITER_HOLDS_DATE_TIME(&value)
             ? bson_iter_date_time(&value)
             : 0;
}

static unsigned count(const bson_t *reply, const char *list) {
  bson_iter_t value, member;
  unsigned found = 0;
  if (find(reply, list, &value) && bson_iter_recurse(&value, &member))
    while (bson_iter_next(&member))
      found++;
  return found;
}

static void copy_text(const bson_t *reply, const char *key, char *ret_text, size_t size) {
  bson_iter_t value;
  bool found = find(reply, key, &value) && BSON_ITER_HOLDS_UTF8(&value);
  g_strlcpy(ret_text, found ? bson_iter_utf8(&value, NULL) : "", size);
}

/* A driver that looks for the set knows all members as soon as it has found the primary. */
static void look_at_members(mongoc_client_t *client, const bson_t *reply, MongoFacts *facts) {
  size_t known = 0;
  bson_iter_t value;
  mongoc_server_descriptions_destroy_all(mongoc_client_get_server_descriptions(client, &known),
                                         known);
  copy_text(reply, "setName", facts->set, sizeof facts->set);
  copy_text(reply, "me", facts->member, sizeof facts->member);
  facts->members = count(reply, "hosts") + count(reply, "passives") + count(reply, "arbiters");
  facts->is_primary = find(reply, "isWritablePrimary", &value) && bson_iter_as_bool(&value);
  facts->pinned = facts->members > 1 && known == 1;
}

static bool ask_hello(mongoc_client_t *client, MongoFacts *facts, Failure *ret_failure) {
  bson_t reply;
  int64_t before = g_get_real_time();
  bool good = run(client, BCON_NEW("hello", BCON_INT32(1)), &reply, ret_failure);
  if (good) {
    facts->clock_ahead_ms =
        date_at(&reply, "localTime") - (before + (g_get_real_time() - before) / 2) / 1000;
    int64_t newest = date_at(&reply, "lastWrite.lastWriteDate"),
            majority = date_at(&reply, "lastWrite.majorityWriteDate");
    facts->majority_lag_ms = newest && majority ? newest - majority : -1;
    look_at_members(client, &reply, facts);
  }
  bson_destroy(&reply);
  return good;
}

/* --- oplog ---------------------------------------------------------------------------------- */

static int64_t oplog_end_s(mongoc_collection_t *oplog, int direction) {
  bson_t *filter = bson_new();
  bson_t *options = BCON_NEW("sort", "{", "$natural", BCON_INT32(direction), "}", "limit",
                             BCON_INT64(1), "projection", "{", "ts", BCON_INT32(1), "}");
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(oplog, filter, options, NULL);
  const bson_t *document;
  bson_iter_t value;
  uint32_t seconds = 0, increment;
  if (mongoc_cursor_next(cursor, &document) && find(document, "ts", &value) &&
      BSON_ITER_HOLDS_TIMESTAMP(&value))
    bson_iter_timestamp(&value, &seconds, &increment);
  mongoc_cursor_destroy(cursor);
  bson_destroy(filter);
  bson_destroy(options);
  return seconds;
}

static bool oplog_is_full(mongoc_collection_t *oplog) {
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$collStats", "{", "storageStats", "{", "}", "}", "}", "{", "$match",
      "{", "$expr", "{", "$gte", "[", BCON_UTF8("$storageStats.size"), "{", "$multiply", "[",
      BCON_UTF8("$storageStats.maxSize"), BCON_DOUBLE(0.9), "]", "}", "]", "}", "}", "}", "]");
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(oplog, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
  const bson_t *document;
  bool full = mongoc_cursor_next(cursor, &document);
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  return full;
}

static void look_at_oplog(mongoc_client_t *client, MongoFacts *facts) {
  mongoc_collection_t *oplog = mongoc_client_get_collection(client, "local", "oplog.rs");
  mongoc_read_concern_t *local = mongoc_read_concern_new();
  mongoc_read_concern_set_level(local, MONGOC_READ_CONCERN_LEVEL_LOCAL);
  mongoc_collection_set_read_concern(oplog, local);
  mongoc_read_concern_destroy(local);
  int64_t first = oplog_end_s(oplog, 1), last = oplog_end_s(oplog, -1);
  facts->oplog_ms = first > 0 ? (last - first) * 1000 : -1;
  facts->oplog_full = first > 0 && oplog_is_full(oplog);
  mongoc_collection_destroy(oplog);
}

/* --- the user ------------------------------------------------------------------------------- */

static bool ask_user(mongoc_client_t *client, bson_t *ret_reply, bool *ret_has_user,
                     Failure *ret_failure) {
  bson_iter_t user;
  bool good =
      run(client, BCON_NEW("connectionStatus", BCON_INT32(1), "showPrivileges", BCON_BOOL(true)),
          ret_reply, ret_failure);
  *ret_has_user = good && find(ret_reply, "authInfo.authenticatedUsers.0", &user);
  return good;
}

static bool has_text(const bson_iter_t *object, const char *key, const char *wanted) {
  bson_iter_t member;
  return bson_iter_recurse(object, &member) && bson_iter_find(&member, key) &&
         BSON_ITER_HOLDS_UTF8(&member) &&
         (!*bson_iter_utf8(&member, NULL) || !strcmp(bson_iter_utf8(&member, NULL), wanted));
}

/* {db, collection}, where "" means any; or {anyResource: true}. */
static bool covers(const bson_iter_t *resource, const char *database, const char *collection) {
  bson_iter_t any;
  return (bson_iter_recurse(resource, &any) && bson_iter_find(&any, "anyResource")) ||
         (has_text(resource, "db", database) && has_text(resource, "collection", collection));
}

static bool gives(const bson_iter_t *privilege, const char *action) {
  bson_iter_t member, actions;
  if (!bson_iter_recurse(privilege, &member) || !bson_iter_find(&member, "actions") ||
      !bson_iter_recurse(&member, &actions))
    return false;
  while (bson_iter_next(&actions))
    if (BSON_ITER_HOLDS_UTF8(&actions) && (!strcmp(bson_iter_utf8(&actions, NULL), action) ||
                                           !strcmp(bson_iter_utf8(&actions, NULL), "anyAction")))
      return true;
  return false;
}

static bool may(const bson_t *status, const char *database, const char *collection,
                const char *action) {
  bson_iter_t privileges, privilege, resource;
  if (!find(status, "authInfo.authenticatedUserPrivileges", &privileges) ||
      !bson_iter_recurse(&privileges, &privilege))
    return false;
  while (bson_iter_next(&privilege))
    if (bson_iter_recurse(&privilege, &resource) && bson_iter_find(&resource, "resource") &&
        covers(&resource, database, collection) && gives(&privilege, action))
      return true;
  return false;
}

GPtrArray *mongo_missing_actions(MongoStore *store, const char *collection,
                                 const char *const *actions, Failure *ret_failure) {
  bson_t status;
  bool has_user;
  mongoc_client_t *client = mongo_store_borrow(store);
  bool good = ask_user(client, &status, &has_user, ret_failure);
  GPtrArray *missing = good ? g_ptr_array_new() : NULL;
  for (; good && has_user && *actions; actions++)
    if (!may(&status, mongo_store_settings(store)->database, collection, *actions))
      g_ptr_array_add(missing, (gpointer)*actions);
  bson_destroy(&status);
  mongo_store_return(store, client);
  return missing;
}

/* -------------------------------------------------------------------------------------------- */

bool mongo_inspect(MongoStore *store, MongoFacts *ret_facts, Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  const mongoc_uri_t *uri = mongoc_client_get_uri(client);
  MongoFacts facts = {.tls = mongoc_uri_get_tls(uri),
                      .local = mongo_uri_is_local(uri),
                      .weakness = mongo_uri_weakness(uri)};
  bson_t status;
  bool good = ask_hello(client, &facts, ret_failure);
  if (good) {
    good = ask_user(client, &status, &facts.has_user, ret_failure);
    bson_destroy(&status);
    look_at_oplog(client, &facts);
  }
  mongo_store_return(store, client);
  if (good)
    *ret_facts = facts;
  return good;
}

/* shape.c - examines an outbox's options and indexes, and tests its validator with a query. */
#include "projector/infra/mongo/shape.h"

#include <string.h>

enum { UNAUTHORIZED = 13, NOT_FOUND = 26 };

typedef struct Look {
  mongoc_client_t *client;
  mongoc_collection_t *outbox;
  const char *database, *name;
  bool feeds; /* there are feeds, and events are marked */
  GPtrArray *findings;
} Look;

/* --- options -------------------------------------------------------------------------------- */

/* The collection's entry in listCollections; NULL: it does not exist. A user who may not list
 * everything sees only the name and type of what it may use. Free with bson_destroy. */
static bson_t *find_entry(const Look *look, bool brief, bool *ret_may, Failure *ret_failure) {
  mongoc_database_t *database = mongoc_client_get_database(look->client, look->database);
  bson_t *options = BCON_NEW("filter", "{", "name", BCON_UTF8(look->name), "}", "nameOnly",
                             BCON_BOOL(brief), "authorizedCollections", BCON_BOOL(brief));
  mongoc_cursor_t *cursor = mongoc_database_find_collections_with_opts(database, options);
  const bson_t *document = NULL, *reply;
  bson_error_t error;
  bson_t *entry = mongoc_cursor_next(cursor, &document) ? bson_copy(document) : NULL;
  *ret_may = true;
  if (mongoc_cursor_error_document(cursor, &error, &reply)) {
    *ret_may = error.code != UNAUTHORIZED;
    mongo_fail(&error, reply, ret_failure);
  }
  mongoc_cursor_destroy(cursor);
  bson_destroy(options);
  mongoc_database_destroy(database);
  return entry;
}

static bool has(const bson_t *entry, const char *path, bson_iter_t *ret_value) {
  bson_iter_t iter;
  return bson_iter_init(&iter, entry) && bson_iter_find_descendant(&iter, path, ret_value);
}

/* Returns false when it is not a collection that a change stream or an update could work on. */
static bool check_type(const Look *look, const bson_t *entry) {
  bson_iter_t value;
  const char *type = has(entry, "type", &value) && BSON_ITER_HOLDS_UTF8(&value)
                         ? bson_iter_utf8(&value, NULL)
                         : "collection";
  if (!strcmp(type, "collection"))
    return true;
  finding_add(look->findings, true,
              "%s.%s is a %s: it must be an ordinary collection, which can be watched "
              "and whose events can be changed; `outbox init` makes one",
              look->database, look->name, type);
  return false;
}

static void check_options(const Look *look, const bson_t *entry) {
  bson_iter_t value;
  if (has(entry, "options.capped", &value) && bson_iter_as_bool(&value))
    finding_add(look->findings, true,
                "%s.%s is capped: when it is full, MongoDB drops events before they are "
                "applied; copy it into an ordinary collection",
                look->database, look->name);
  if (has(entry, "options.collation", &value))
    finding_add(look->findings, false,
                "%s.%s has a collation of its own: events whose _id is a text are found "
                "only by reading all of it; create it again without one",
                look->database, look->name);
}

/* --- TTL indexes ---------------------------------------------------------------------------- */

static bool check_indexes(const Look *look, Failure *ret_failure) {
  mongoc_cursor_t *cursor = mongoc_collection_find_indexes_with_opts(look->outbox, NULL);
  const bson_t *index, *reply;
  bson_error_t error;
  bson_iter_t value;
  while (mongoc_cursor_next(cursor, &index))
    if (has(index, "expireAfterSeconds", &value))
      finding_add(look->findings, true,
                  "%s.%s has the TTL index %s: MongoDB deletes events before they are "
                  "applied; db.%s.dropIndex(\"%s\")",
                  look->database, look->name,
                  has(index, "name", &value) ? bson_iter_utf8(&value, NULL) : "", look->name,
                  has(index, "name", &value) ? bson_iter_utf8(&value, NULL) : "");
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) || error.code == NOT_FOUND ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  return good;
}

/* --- the validator -------------------------------------------------------------------------- */

/* Matches an event that is valid now, but not with the fields that the projector adds. */
static bson_t *refused_by(const Look *look, const bson_t *validator) {
  bson_t fed = BSON_INITIALIZER;
  BSON_APPEND_INT32(&fed, "attempts", 1);
  if (look->feeds)
    BCON_APPEND(&fed, "fed_at", BCON_UTF8("$$NOW"), "fed_to", "[", BCON_UTF8("an example"), "]");
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$match", BCON_DOCUMENT(validator), "}", "{", "$limit", BCON_INT64(1),
      "}", "{", "$set", "{", "status", BCON_UTF8("failed"), "claimed_by", BCON_UTF8("projector"),
      "claimed_at", BCON_UTF8("$$NOW"), "next_attempt_at", BCON_UTF8("$$NOW"), "last_error", "{",
      "class", BCON_UTF8("data"), "code", BCON_INT32(0), "message", BCON_UTF8("an example"), "at",
      BCON_UTF8("$$NOW"), "}", "}", "}", "{", "$set", BCON_DOCUMENT(&fed), "}", "{", "$match", "{",
      "$nor", "[", BCON_DOCUMENT(validator), "]", "}", "}", "]");
  bson_destroy(&fed);
  return pipeline;
}

static bool check_validator(const Look *look, const bson_t *entry, Failure *ret_failure) {
  bson_iter_t value;
  const uint8_t *bytes;
  uint32_t length;
  bson_t validator;
  if ((has(entry, "options.validationAction", &value) && BSON_ITER_HOLDS_UTF8(&value) &&
       !strcmp(bson_iter_utf8(&value, NULL), "warn")) ||
      !has(entry, "options.validator", &value) || !BSON_ITER_HOLDS_DOCUMENT(&value))
    return true;
  bson_iter_document(&value, &length, &bytes);
  bson_init_static(&validator, bytes, length);
  if (bson_empty(&validator))
    return true;
  bson_t *pipeline = refused_by(look, &validator);
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(look->outbox, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  bool refused = mongoc_cursor_next(cursor, &document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  if (good)
    finding_add(look->findings, refused,
                refused
                    ? "the validator of %s.%s refuses what the projector writes into an event "
                      "(status, attempts, claimed_by, claimed_at, next_attempt_at, last_error%s): "
                      "allow these fields, with collMod"
                    : "%s.%s has a validator: it has to allow the projector's fields (status, "
                      "attempts, claimed_by, claimed_at, next_attempt_at, last_error%s)",
                look->database, look->name, look->feeds ? ", fed_at, fed_to" : "");
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  return good;
}

/* -------------------------------------------------------------------------------------------- */

static bool check_entry(const Look *look, const bson_t *entry, Failure *ret_failure) {
  if (!check_type(look, entry))
    return true;
  check_options(look, entry);
  return check_indexes(look, ret_failure) && check_validator(look, entry, ret_failure);
}

static bool check(MongoStore *store, Look *look, bool *ret_seen, Failure *ret_failure) {
  look->client = mongo_store_borrow(store);
  look->database = mongo_store_settings(store)->database;
  look->outbox = mongoc_client_get_collection(look->client, look->database, look->name);
  Failure failure = {0};
  bool may;
  bson_t *entry = find_entry(look, false, &may, &failure);
  if (ret_seen)
    *ret_seen = may;
  if (!may) {
    failure = (Failure){0};
    entry = find_entry(look, true, &may, &failure);
  }
  bool good = failure.class == FAILURE_NONE && (!entry || check_entry(look, entry, &failure));
  if (entry)
    bson_destroy(entry);
  mongoc_collection_destroy(look->outbox);
  mongo_store_return(store, look->client);
  if (!good)
    *ret_failure = failure;
  return good;
}

bool mongo_check_outbox(MongoStore *store, GPtrArray *findings, bool *ret_seen,
                        Failure *ret_failure) {
  const MongoSettings *settings = mongo_store_settings(store);
  Look look = {
      .name = settings->outbox, .feeds = settings->feeds && *settings->feeds, .findings = findings};
  return check(store, &look, ret_seen, ret_failure);
}

bool mongo_check_feed(MongoStore *store, const char *feed, GPtrArray *findings,
                      Failure *ret_failure) {
  Look look = {.name = feed, .findings = findings};
  return check(store, &look, NULL, ret_failure);
}

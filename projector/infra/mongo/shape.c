/* shape.c - examines the options and indexes of an outbox, its archive and feeds, and tests their
 * validators with a query. */
#include "projector/infra/mongo/shape.h"

#include <string.h>

enum { UNAUTHORIZED = 13, NOT_FOUND = 26 };

/* What a collection is for. */
typedef enum Purpose { FOR_OUTBOX, FOR_FEED, FOR_ARCHIVE } Purpose;

typedef struct Look {
  Purpose purpose;
  mongoc_client_t *client;
  mongoc_collection_t *outbox; /* the collection that is examined, whatever its purpose */
  const char *database, *name;
  bool feeds;       /* there are feeds, and events are marked */
  bool copied_only; /* nothing is changed there: its reader is another projector */
  bool by_id;       /* must be sharded by `_id`, if it is */
  GPtrArray *findings;
} Look;

/* --- options -------------------------------------------------------------------------------- */

static bool has(const bson_t *entry, const char *path, bson_iter_t *ret_value) {
  bson_iter_t iter;
  return bson_iter_init(&iter, entry) && bson_iter_find_descendant(&iter, path, ret_value);
}

/* "collection", "view" or "timeseries". */
static const char *type_of(const bson_t *entry) {
  bson_iter_t value;
  return has(entry, "type", &value) && BSON_ITER_HOLDS_UTF8(&value) ? bson_iter_utf8(&value, NULL)
                                                                    : "collection";
}

/* Returns false when it is not a collection that a change stream or an update could work on. */
static bool check_type(const Look *look, const bson_t *entry) {
  const char *type = type_of(entry);
  if (!strcmp(type, "collection"))
    return true;
  finding_add(look->findings, true,
              "%s.%s is a %s: it must be an ordinary collection, %s; `outbox init%s` makes one",
              look->database, look->name, type,
              look->purpose == FOR_ARCHIVE ? "into which applied events can be moved"
                                           : "which can be watched and whose events can be changed",
              look->purpose == FOR_ARCHIVE ? " --archive" : "");
  return false;
}

static void check_options(const Look *look, const bson_t *entry) {
  bson_iter_t value;
  if (has(entry, "options.capped", &value) && bson_iter_as_bool(&value))
    finding_add(look->findings, true,
                "%s.%s is capped: when it is full, MongoDB drops %s; copy it into an ordinary "
                "collection",
                look->database, look->name,
                look->purpose == FOR_ARCHIVE ? "the oldest events"
                                             : "events before they are applied");
  if (!has(entry, "options.collation", &value))
    return;
  if (look->purpose == FOR_OUTBOX)
    finding_add(look->findings, false,
                "%s.%s has a collation of its own: events whose _id is a text are found "
                "only by reading all of it; create it again without one",
                look->database, look->name);
  else
    finding_add(
        look->findings, true,
        "%s.%s has a collation of its own: two events whose _id it takes for equal, such as "
        "zz and ZZ, cannot both be copied into it; create it again without one",
        look->database, look->name);
}

/* --- TTL indexes ---------------------------------------------------------------------------- */

static bool check_indexes(const Look *look, Failure *ret_failure) {
  mongoc_cursor_t *cursor = mongoc_collection_find_indexes_with_opts(look->outbox, NULL);
  const bson_t *index, *reply;
  bson_error_t error;
  bson_iter_t value;
  while (mongoc_cursor_next(cursor, &index))
    if (has(index, "expireAfterSeconds", &value)) {
      const char *name = has(index, "name", &value) ? bson_iter_utf8(&value, NULL) : "";
      if (look->purpose == FOR_ARCHIVE) /* some want just this */
        finding_add(look->findings, false,
                    "%s.%s has the TTL index %s: MongoDB deletes archived events, and `replay` and "
                    "`projector events` do not have them any more",
                    look->database, look->name, name);
      else
        finding_add(look->findings, true,
                    "%s.%s has the TTL index %s: MongoDB deletes events before they are "
                    "applied; db.%s.dropIndex(\"%s\")",
                    look->database, look->name, name, look->name, name);
    }
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) || error.code == NOT_FOUND ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  return good;
}

/* --- the shard key -------------------------------------------------------------------------- */

static bool is_id(const bson_t *key) {
  return bson_count_keys(key) == 1 && bson_has_field(key, "_id");
}

static void judge_key(const Look *look, const bson_t *entry) {
  bson_iter_t value, unsplit;
  bson_t key;
  const uint8_t *bytes;
  uint32_t length;
  bool whole = has(entry, "unsplittable", &unsplit) && bson_iter_as_bool(&unsplit);
  if (whole || !has(entry, "key", &value) || !BSON_ITER_HOLDS_DOCUMENT(&value))
    return;
  bson_iter_document(&value, &length, &bytes);
  if (!bson_init_static(&key, bytes, length) || is_id(&key))
    return;
  char *text = bson_as_relaxed_extended_json(&key, NULL);
  finding_add(look->findings, false,
              "%s.%s is sharded by %s: a feed has to be unsharded or sharded by _id, by which its "
              "events are found and second copies known; reshardCollection to {_id: \"hashed\"}",
              look->database, look->name, text);
  bson_free(text);
}

/* By the cluster's own list; who may not read it has the manual. */
static bool check_shard_key(const Look *look, Failure *ret_failure) {
  g_autofree char *name = g_strdup_printf("%s.%s", look->database, look->name);
  mongoc_collection_t *list = mongoc_client_get_collection(look->client, "config", "collections");
  bson_t *filter = BCON_NEW("_id", BCON_UTF8(name));
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(list, filter, NULL, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  while (mongoc_cursor_next(cursor, &document))
    judge_key(look, document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) || error.code == UNAUTHORIZED ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(filter);
  mongoc_collection_destroy(list);
  return good;
}

/* --- the validator -------------------------------------------------------------------------- */

/* Whether it refuses anything at all. */
static bool is_in_force(const bson_t *entry, bson_t *ret_validator) {
  bson_iter_t value;
  const uint8_t *bytes;
  uint32_t length;
  if ((has(entry, "options.validationAction", &value) && BSON_ITER_HOLDS_UTF8(&value) &&
       !strcmp(bson_iter_utf8(&value, NULL), "warn")) ||
      (has(entry, "options.validationLevel", &value) && BSON_ITER_HOLDS_UTF8(&value) &&
       !strcmp(bson_iter_utf8(&value, NULL), "off")) ||
      !has(entry, "options.validator", &value) || !BSON_ITER_HOLDS_DOCUMENT(&value))
    return false;
  bson_iter_document(&value, &length, &bytes);
  bson_init_static(ret_validator, bytes, length);
  return !bson_empty(ret_validator);
}

/* Matches an event that is valid now, but not with the fields that the projector adds, in one of
 * the states that it writes. */
static bson_t *refused_marks(const Look *look, const bson_t *validator) {
  bson_t fed = BSON_INITIALIZER;
  BSON_APPEND_INT32(&fed, "attempts", 1);
  if (look->feeds)
    BCON_APPEND(&fed, "fed_at", BCON_UTF8("$$NOW"), "fed_to", "[", BCON_UTF8("an example"), "]");
  bson_t *pipeline = BCON_NEW(
      "pipeline", "[", "{", "$match", BCON_DOCUMENT(validator), "}", "{", "$limit", BCON_INT64(1),
      "}", "{", "$set", "{", "status", "[", BCON_UTF8("pending"), BCON_UTF8("in_progress"),
      BCON_UTF8("failed"), BCON_UTF8("dead"), "]", "claimed_by", BCON_UTF8("projector"),
      "claimed_at", BCON_UTF8("$$NOW"), "next_attempt_at", BCON_UTF8("$$NOW"), "last_error", "{",
      "class", BCON_UTF8("data"), "code", BCON_INT32(0), "message", BCON_UTF8("an example"), "at",
      BCON_UTF8("$$NOW"), "}", "}", "}", "{", "$set", BCON_DOCUMENT(&fed), "}", "{", "$unwind",
      BCON_UTF8("$status"), "}", "{", "$match", "{", "$nor", "[", BCON_DOCUMENT(validator), "]",
      "}", "}", "]");
  bson_destroy(&fed);
  return pipeline;
}

static bool any_refused(mongoc_collection_t *collection, bson_t *pipeline, bool *ret_refused,
                        Failure *ret_failure) {
  mongoc_cursor_t *cursor =
      mongoc_collection_aggregate(collection, MONGOC_QUERY_NONE, pipeline, NULL, NULL);
  const bson_t *document, *reply;
  bson_error_t error;
  *ret_refused = mongoc_cursor_next(cursor, &document);
  bool good = !mongoc_cursor_error_document(cursor, &error, &reply) ||
              mongo_fail(&error, reply, ret_failure);
  mongoc_cursor_destroy(cursor);
  bson_destroy(pipeline);
  return good;
}

static bool check_marks(const Look *look, const bson_t *validator, Failure *ret_failure) {
  bool refused;
  if (!any_refused(look->outbox, refused_marks(look, validator), &refused, ret_failure))
    return false;
  finding_add(look->findings, refused,
              refused
                  ? "the validator of %s.%s refuses what the projector writes into an event "
                    "(status: pending, in_progress, failed or dead; attempts, claimed_by, "
                    "claimed_at, next_attempt_at, last_error%s): allow these fields, with collMod"
                  : "%s.%s has a validator: it has to allow the projector's fields (status, "
                    "attempts, claimed_by, claimed_at, next_attempt_at, last_error%s)",
              look->database, look->name, look->feeds ? ", fed_at, fed_to" : "");
  return true;
}

/* Other events may be refused, or none of those that are there now. */
static void check_archive_validator(const Look *look) {
  finding_add(look->findings, false,
              "%s.%s has a validator: an event that it refuses, with applied_at, skipped_at and "
              "seq, cannot leave the outbox after it was applied",
              look->database, look->name);
}

static bool check_validator(const Look *look, const bson_t *entry, Failure *ret_failure) {
  bson_t validator;
  if (!is_in_force(entry, &validator))
    return true;
  if (look->copied_only)
    return true;
  if (look->purpose != FOR_ARCHIVE)
    return check_marks(look, &validator, ret_failure);
  check_archive_validator(look);
  return true;
}

/* -------------------------------------------------------------------------------------------- */

static bool check_entry(const Look *look, const bson_t *entry, Failure *ret_failure) {
  if (!check_type(look, entry))
    return true;
  check_options(look, entry);
  return check_indexes(look, ret_failure) && (!look->by_id || check_shard_key(look, ret_failure)) &&
         check_validator(look, entry, ret_failure);
}

static bool check(MongoStore *store, Look *look, bool *ret_seen, Failure *ret_failure) {
  look->client = mongo_store_borrow(store);
  look->database = mongo_store_settings(store)->database;
  look->outbox = mongoc_client_get_collection(look->client, look->database, look->name);
  Failure failure = {0};
  bool may;
  bson_t *entry =
      mongo_find_collection(look->client, look->database, look->name, false, &may, &failure);
  if (ret_seen)
    *ret_seen = may;
  if (!may) {
    failure = (Failure){0};
    entry = mongo_find_collection(look->client, look->database, look->name, true, &may, &failure);
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
  Look look = {.purpose = FOR_FEED,
               .name = feed,
               .by_id = mongo_store_is_sharded(store),
               .findings = findings};
  return check(store, &look, NULL, ret_failure);
}

/* A user without the privilege to look at indexes does not see all; that is no failure. */
static bool check_as_far_as_seen(MongoStore *store, Look *look, Failure *ret_failure) {
  Failure failure = {0};
  if (check(store, look, NULL, &failure) || failure.class == FAILURE_CONFIG)
    return true;
  *ret_failure = failure;
  return false;
}

bool mongo_check_archive(MongoStore *store, GPtrArray *findings, Failure *ret_failure) {
  g_autofree char *name = mongo_archive_name(mongo_store_settings(store)->outbox);
  Look look = {.purpose = FOR_ARCHIVE, .name = name, .findings = findings};
  return check_as_far_as_seen(store, &look, ret_failure);
}

bool mongo_check_copies(MongoStore *store, GPtrArray *findings, Failure *ret_failure) {
  const MongoSettings *settings = mongo_store_settings(store);
  for (unsigned i = 0; settings->feeds && settings->feeds[i]; i++) {
    Look look = {
        .purpose = FOR_FEED, .name = settings->feeds[i], .copied_only = true, .findings = findings};
    if (!check_as_far_as_seen(store, &look, ret_failure))
      return false;
  }
  return !settings->archive || mongo_check_archive(store, findings, ret_failure);
}

bool mongo_check_entities(MongoStore *store, const char *collection, GPtrArray *findings,
                          Failure *ret_failure) {
  const char *database = mongo_store_settings(store)->database;
  mongoc_client_t *client = mongo_store_borrow(store);
  Failure failure = {0};
  bool may;
  bson_t *entry = mongo_find_collection(client, database, collection, true, &may, &failure);
  if (entry && strcmp(type_of(entry), "collection") != 0)
    finding_add(findings, true,
                "%s.%s, which \"entities\" names, is a %s: reconcile, rebuild and refresh need an "
                "ordinary collection; name the one that the application writes to",
                database, collection, type_of(entry));
  if (entry)
    bson_destroy(entry);
  mongo_store_return(store, client);
  if (failure.class != FAILURE_NONE)
    *ret_failure = failure;
  return failure.class == FAILURE_NONE;
}

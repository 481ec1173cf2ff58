// liboutbox: asks the server what it can do, and creates what is missing.
#include "outbox/internal.h"

#include <limits.h>

static bool run_command(mongoc_client_t *client, const char *database, const bson_t *command,
                        bson_t *ret_reply, bson_error_t *ret_cause) {
  return mongoc_client_command_simple(client, database, command, NULL, ret_reply, ret_cause);
}

bool outbox_check(outbox_t *outbox, outbox_error_t *error) {
  mongoc_client_t *client = outbox_take_client(outbox);
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_t *hello = BCON_NEW("hello", BCON_INT32(1));
  bson_error_t cause;
  bson_iter_t iter;
  bool good = run_command(client, "admin", hello, &reply, &cause);
  if (!good) {
    outbox_fail_mongoc(error, &cause, &reply, "MongoDB");
  } else if (!bson_iter_init_find(&iter, &reply, "setName") &&
             !bson_iter_init_find(&iter, &reply, "msg")) { // "isdbgrid": mongos
    good = outbox_fail(error, OUTBOX_UNSUPPORTED,
                       "MongoDB: this mongod is not a member of a replica set, so it has no "
                       "transactions and no change streams; start it with --replSet and initiate "
                       "the set");
  }
  bson_destroy(hello);
  outbox_give_client(outbox, client);
  return good;
}

static bool create_collection(mongoc_client_t *client, const char *database, const char *name,
                              outbox_error_t *error) {
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_t *command = BCON_NEW("create", BCON_UTF8(name), "writeConcern", "{", "w", "majority", "}");
  bson_error_t cause;
  bool good = run_command(client, database, command, &reply, &cause);
  bson_destroy(command);
  const uint32_t namespace_exists = 48;
  return good || cause.code == namespace_exists || outbox_fail_mongoc(error, &cause, &reply, name);
}

bool outbox_create_collection(outbox_t *outbox, const char *collection, outbox_error_t *error) {
  if (!outbox_check_name(outbox, collection, "one for entities", error)) {
    return false;
  }
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, collection, error);
  outbox_give_client(outbox, client);
  return good;
}

// No index holds `in_progress`: its entry would move with every claim, which costs 15% of the
// throughput. Failed and dead events are few, so theirs is partial and costs nothing.
// The projector compares texts byte by byte, so the indexes sort them so, whatever the collection's
// own collation. If that is another one, an index of the same name may exist with it: ours then
// needs another name.
#define SIMPLE ", \"collation\": {\"locale\": \"simple\"}"
#define INDEXES(suffix)                                                                            \
  "[{\"name\": \"order" suffix                                                                     \
  "\", \"key\": {\"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"                      \
  " {\"name\": \"aggregate_order" suffix                                                           \
  "\", \"key\": {\"aggregate_type\": 1, \"aggregate_id\": 1,"                                      \
  "  \"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"                                  \
  " {\"name\": \"failed" suffix "\", \"key\": {\"status\": 1, \"next_attempt_at\": 1},"            \
  "  \"partialFilterExpression\": {\"status\": {\"$in\": [\"failed\", \"dead\"]}}" SIMPLE "}]"

static bool create_indexes_of(mongoc_client_t *client, const char *database, const char *collection,
                              const char *json, uint32_t *ret_code, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_error_t cause = {0};
  bson_t *indexes = bson_new_from_json((const uint8_t *)json, -1, &cause);
  bson_t *command = BCON_NEW("createIndexes", BCON_UTF8(collection), "indexes", BCON_ARRAY(indexes),
                             "writeConcern", "{", "w", "majority", "}");
  bool good = run_command(client, database, command, &reply, &cause) ||
              outbox_fail_mongoc(error, &cause, &reply, collection);
  *ret_code = cause.code;
  bson_destroy(command);
  bson_destroy(indexes);
  return good;
}

static bool create_indexes(mongoc_client_t *client, const char *database, const char *collection,
                           outbox_error_t *error) {
  const uint32_t index_key_specs_conflict = 86;
  uint32_t code = 0;
  return create_indexes_of(client, database, collection, INDEXES(""), &code, error) ||
         (code == index_key_specs_conflict &&
          create_indexes_of(client, database, collection, INDEXES("_simple"), &code, error));
}

bool outbox_init_feed(outbox_t *outbox, const char *feed, outbox_error_t *error) {
  if (!outbox_check_feed(outbox, feed, error)) {
    return false;
  }
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, feed, error) &&
              create_indexes(client, outbox->database, feed, error);
  outbox_give_client(outbox, client);
  return good;
}

// Queries on an archive: events in order, one aggregate's events, and events in the order of their
// numbers.
#define ARCHIVE_INDEXES                                                                            \
  "[{\"name\": \"order\", \"key\": {\"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"   \
  " {\"name\": \"aggregate_order\", \"key\": {\"aggregate_type\": 1, \"aggregate_id\": 1,"         \
  "  \"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"                                  \
  " {\"name\": \"seq\", \"key\": {\"seq\": 1}" SIMPLE "}]"

bool outbox_init_archive(outbox_t *outbox, outbox_error_t *error) {
  uint32_t code = 0;
  char *archive = bson_strdup_printf("%s_archive", outbox->events);
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, archive, error) &&
              create_indexes_of(client, outbox->database, archive, ARCHIVE_INDEXES, &code, error);
  outbox_give_client(outbox, client);
  bson_free(archive);
  return good;
}

// ---- The receipts of executed commands ----

enum { COMMANDS_TTL_S = 30 * 86400 };

// The index on `at`: its name, and the seconds after which it removes a receipt.
typedef struct {
  bool found;
  char name[128];
  int64_t ttl_s; // OUTBOX_COMMANDS_FOREVER: it removes none
} expiry_t;

static void read_expiry(const bson_t *index, expiry_t *expiry) {
  bson_iter_t iter, key;
  if (!bson_iter_init(&iter, index) || !bson_iter_find_descendant(&iter, "key.at", &key) ||
      !bson_iter_init_find(&iter, index, "name") || !BSON_ITER_HOLDS_UTF8(&iter)) {
    return;
  }
  *expiry = (expiry_t){.found = true, .ttl_s = OUTBOX_COMMANDS_FOREVER};
  bson_strncpy(expiry->name, bson_iter_utf8(&iter, NULL), sizeof expiry->name);
  if (bson_iter_init_find(&iter, index, "expireAfterSeconds")) {
    expiry->ttl_s = bson_iter_as_int64(&iter);
  }
}

static bool look_at_expiry(mongoc_client_t *client, const outbox_t *outbox, expiry_t *ret_expiry,
                           outbox_error_t *error) {
  OUTBOX_SCOPED_COLLECTION commands =
      mongoc_client_get_collection(client, outbox->database, outbox->commands);
  mongoc_cursor_t *cursor = mongoc_collection_find_indexes_with_opts(commands, NULL);
  const bson_t *index, *reply = NULL;
  bson_error_t cause;
  *ret_expiry = (expiry_t){0};
  while (!ret_expiry->found && mongoc_cursor_next(cursor, &index)) {
    read_expiry(index, ret_expiry);
  }
  bool good = !mongoc_cursor_error_document(cursor, &cause, &reply) ||
              outbox_fail_mongoc(error, &cause, reply, outbox->commands);
  mongoc_cursor_destroy(cursor);
  return good;
}

// Takes over the command.
static bool change_index(mongoc_client_t *client, const outbox_t *outbox, bson_t *command,
                         outbox_error_t *error) {
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_error_t cause;
  BCON_APPEND(command, "writeConcern", "{", "w", "majority", "}");
  bool good = run_command(client, outbox->database, command, &reply, &cause);
  bson_destroy(command);
  return good || outbox_fail_mongoc(error, &cause, &reply, outbox->commands);
}

static bool create_expiry(mongoc_client_t *client, const outbox_t *outbox, int64_t ttl_s,
                          outbox_error_t *error) {
  OUTBOX_SCOPED_BSON index = BSON_INITIALIZER;
  BCON_APPEND(&index, "name", "at", "key", "{", "at", BCON_INT32(1), "}");
  if (ttl_s != OUTBOX_COMMANDS_FOREVER) {
    BSON_APPEND_INT64(&index, "expireAfterSeconds", ttl_s);
  }
  return change_index(client, outbox,
                      BCON_NEW("createIndexes", BCON_UTF8(outbox->commands), "indexes", "[",
                               BCON_DOCUMENT(&index), "]"),
                      error);
}

// `ttl_s` 0: an existing index stays as it is.
static bool set_expiry(mongoc_client_t *client, const outbox_t *outbox, int64_t ttl_s,
                       outbox_error_t *error) {
  expiry_t expiry;
  if (!look_at_expiry(client, outbox, &expiry, error)) {
    return false;
  }
  if (!expiry.found) {
    return create_expiry(client, outbox, ttl_s ? ttl_s : COMMANDS_TTL_S, error);
  }
  if (ttl_s == 0 || ttl_s == expiry.ttl_s) {
    return true;
  }
  if (ttl_s != OUTBOX_COMMANDS_FOREVER) {
    return change_index(client, outbox,
                        BCON_NEW("collMod", BCON_UTF8(outbox->commands), "index", "{", "name",
                                 BCON_UTF8(expiry.name), "expireAfterSeconds", BCON_INT64(ttl_s),
                                 "}"),
                        error);
  }
  return change_index(
             client, outbox,
             BCON_NEW("dropIndexes", BCON_UTF8(outbox->commands), "index", BCON_UTF8(expiry.name)),
             error) &&
         create_expiry(client, outbox, ttl_s, error);
}

bool outbox_init_with(outbox_t *outbox, const outbox_init_options_t *options,
                      outbox_error_t *error) {
  if (options->commands_ttl_s < OUTBOX_COMMANDS_FOREVER || options->commands_ttl_s > INT_MAX) {
    return outbox_fail(error, OUTBOX_INVALID, "commands_ttl_s: expected 1 to %d", INT_MAX);
  }
  if (!outbox_check(outbox, error)) {
    return false;
  }
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, outbox->events, error) &&
              create_collection(client, outbox->database, outbox->tombstones, error) &&
              create_indexes(client, outbox->database, outbox->events, error) &&
              (options->no_commands ||
               (create_collection(client, outbox->database, outbox->commands, error) &&
                set_expiry(client, outbox, options->commands_ttl_s, error)));
  outbox_commands_forget(outbox);
  outbox_give_client(outbox, client);
  return good;
}

bool outbox_init(outbox_t *outbox, outbox_error_t *error) {
  return outbox_init_with(outbox, &(outbox_init_options_t){0}, error);
}

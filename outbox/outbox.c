// liboutbox: opening, preparing the database, and writes in the caller's transaction.
#include "outbox/internal.h"

enum { DEFAULT_TIMEOUT_MS = 60000 };

static outbox_t *open_with(mongoc_client_pool_t *pool, mongoc_client_t *client,
                           const outbox_options_t *options, outbox_error_t *error) {
  if (!options || !options->database || !*options->database) {
    outbox_fail(error, OUTBOX_INVALID, "database: expected a name, found nothing");
    return NULL;
  }
  outbox_t *outbox = bson_malloc0(sizeof *outbox);
  const char *events = options->outbox && *options->outbox ? options->outbox : "outbox";
  outbox->pool = pool;
  outbox->client = client;
  outbox->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
  outbox->database = bson_strdup(options->database);
  outbox->events = bson_strdup(events);
  outbox->tombstones = bson_strdup_printf("%s_deleted", events);
  return outbox;
}

outbox_t *outbox_new_from_pool(mongoc_client_pool_t *pool, const outbox_options_t *options,
                               outbox_error_t *error) {
  return open_with(pool, NULL, options, error);
}

outbox_t *outbox_new_from_client(mongoc_client_t *client, const outbox_options_t *options,
                                 outbox_error_t *error) {
  return open_with(NULL, client, options, error);
}

outbox_t *outbox_new_from_uri(const mongoc_uri_t *uri, const outbox_options_t *options,
                              outbox_error_t *error) {
  mongoc_client_pool_t *pool = mongoc_client_pool_new(uri);
  if (!pool) {
    outbox_fail(error, OUTBOX_INVALID,
                "uri: cannot be used (TLS or a DNS seed list this driver cannot resolve?)");
    return NULL;
  }
  mongoc_client_pool_set_error_api(pool, MONGOC_ERROR_API_VERSION_2);
  outbox_t *outbox = outbox_new_from_pool(pool, options, error);
  if (!outbox) {
    mongoc_client_pool_destroy(pool);
    return NULL;
  }
  outbox->owns_pool = true;
  return outbox;
}

outbox_t *outbox_new(const char *uri, const outbox_options_t *options, outbox_error_t *error) {
  mongoc_uri_t *parsed = mongoc_uri_new_with_error(uri, NULL);
  if (!parsed) {
    // The driver's message may repeat the string, and with it a password.
    outbox_fail(error, OUTBOX_INVALID, "uri: not a valid MongoDB connection string");
    return NULL;
  }
  outbox_t *outbox = outbox_new_from_uri(parsed, options, error);
  mongoc_uri_destroy(parsed);
  return outbox;
}

void outbox_destroy(outbox_t *outbox) {
  if (!outbox) {
    return;
  }
  if (outbox->owns_pool) {
    mongoc_client_pool_destroy(outbox->pool);
  }
  bson_free(outbox->database);
  bson_free(outbox->events);
  bson_free(outbox->tombstones);
  bson_free(outbox);
}

mongoc_client_t *outbox_take_client(outbox_t *outbox) {
  return outbox->pool ? mongoc_client_pool_pop(outbox->pool) : outbox->client;
}

void outbox_give_client(outbox_t *outbox, mongoc_client_t *client) {
  if (outbox->pool) {
    mongoc_client_pool_push(outbox->pool, client);
  }
}

// ---- Preparing the database ----

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
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, collection, error);
  outbox_give_client(outbox, client);
  return good;
}

// No index holds `in_progress`: its entry would move with every claim, which costs 15% of the
// throughput. Failed and dead events are few, so theirs is partial and costs nothing.
// The projector compares texts byte by byte, so that is how they are sorted, whatever the
// collection's own collation. Where that is another one, an index of the same name may be there
// with it: ours then needs another name.
#define SIMPLE ", \"collation\": {\"locale\": \"simple\"}"
#define INDEXES(suffix)                                                                            \
  "[{\"name\": \"order" suffix                                                                     \
  "\", \"key\": {\"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"                      \
  " {\"name\": \"aggregate_order" suffix                                                           \
  "\", \"key\": {\"aggregate_type\": 1, \"aggregate_id\": 1,"                                      \
  "  \"occurred_at\": 1, \"version\": 1, \"_id\": 1}" SIMPLE "},"                                  \
  " {\"name\": \"failed" suffix "\", \"key\": {\"status\": 1, \"next_attempt_at\": 1},"            \
  "  \"partialFilterExpression\": {\"status\": {\"$in\": [\"failed\", \"dead\"]}}" SIMPLE "}]"

static bool create_indexes_of(mongoc_client_t *client, const outbox_t *outbox, const char *json,
                              uint32_t *ret_code, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_error_t cause = {0};
  bson_t *indexes = bson_new_from_json((const uint8_t *)json, -1, &cause);
  bson_t *command = BCON_NEW("createIndexes", BCON_UTF8(outbox->events), "indexes",
                             BCON_ARRAY(indexes), "writeConcern", "{", "w", "majority", "}");
  bool good = run_command(client, outbox->database, command, &reply, &cause) ||
              outbox_fail_mongoc(error, &cause, &reply, "indexes of the outbox");
  *ret_code = cause.code;
  bson_destroy(command);
  bson_destroy(indexes);
  return good;
}

static bool create_indexes(mongoc_client_t *client, const outbox_t *outbox, outbox_error_t *error) {
  const uint32_t index_key_specs_conflict = 86;
  uint32_t code = 0;
  return create_indexes_of(client, outbox, INDEXES(""), &code, error) ||
         (code == index_key_specs_conflict &&
          create_indexes_of(client, outbox, INDEXES("_simple"), &code, error));
}

bool outbox_init(outbox_t *outbox, outbox_error_t *error) {
  if (!outbox_check(outbox, error)) {
    return false;
  }
  mongoc_client_t *client = outbox_take_client(outbox);
  bool good = create_collection(client, outbox->database, outbox->events, error) &&
              create_collection(client, outbox->database, outbox->tombstones, error) &&
              create_indexes(client, outbox, error);
  outbox_give_client(outbox, client);
  return good;
}

// ---- Writing ----

bson_value_t outbox_event_id(const outbox_event_t *event, uint8_t bytes[16]) {
  if (event->id) {
    return *event->id;
  }
  outbox_uuid7(bytes);
  return outbox_id_uuid(bytes);
}

bool outbox_write_validate(const outbox_t *outbox, const outbox_change_t *change,
                           const outbox_event_t *event, outbox_error_t *error) {
  if (event->version || event->occurred_at_ms) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: set by outbox_write, expected none",
                       event->version ? "version" : "occurred_at");
  }
  if (!outbox_event_validate(event, error) || !outbox_change_validate(change, error)) {
    return false;
  }
  // An entity there would be taken for an event that nobody can read.
  if (strcmp(change->collection, outbox->events) == 0 ||
      strcmp(change->collection, outbox->tombstones) == 0) {
    return outbox_fail(error, OUTBOX_INVALID, "collection: expected one for entities, found %s",
                       change->collection);
  }
  return true;
}

bool outbox_write_in(outbox_t *outbox, mongoc_client_session_t *session,
                     const outbox_change_t *change, const outbox_event_t *event,
                     outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  uint8_t bytes[16];
  outbox_error_t unused;
  error = error ? error : &unused;
  if (!outbox_write_validate(outbox, change, event, error)) {
    return false;
  }
  bson_value_t id = outbox_event_id(event, bytes);
  return outbox_change_run(outbox, session, change, event, &id, ret_receipt, error);
}

bool outbox_append(outbox_t *outbox, mongoc_client_session_t *session, const outbox_event_t *event,
                   outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  uint8_t bytes[16];
  outbox_error_t unused;
  error = error ? error : &unused;
  if (!outbox_event_validate(event, error)) {
    return false;
  }
  bson_value_t id = outbox_event_id(event, bytes);
  int64_t occurred_at_ms = event->occurred_at_ms ? *event->occurred_at_ms : outbox_now_ms();
  mongoc_client_t *client =
      session ? mongoc_client_session_get_client(session) : outbox_take_client(outbox);
  bool good = outbox_event_insert(outbox, client, session, event, &id, event->version,
                                  occurred_at_ms, ret_receipt, error);
  if (!session) {
    outbox_give_client(outbox, client);
  }
  return good;
}

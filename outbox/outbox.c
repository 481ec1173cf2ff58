// liboutbox: opening, and writes in the caller's transaction.
#include "outbox/internal.h"

#include <string.h>

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
  outbox->commands = bson_strdup_printf("%s_commands", events);
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
    // The driver's message may repeat the string, password included.
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
  bson_free(outbox->commands);
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

// ---- Writing ----

// The event's id: the caller's, or a new one that lives in `bytes`.
static bson_value_t event_id(const outbox_event_t *event, uint8_t bytes[16]) {
  if (event->id) {
    return *event->id;
  }
  outbox_uuid7(bytes);
  return outbox_id_uuid(bytes);
}

// Whether the name is that of the outbox with a suffix.
static bool is_beside(const outbox_t *outbox, const char *name, const char *suffix) {
  size_t length = strlen(outbox->events);
  return strncmp(name, outbox->events, length) == 0 && strcmp(name + length, suffix) == 0;
}

bool outbox_check_name(const outbox_t *outbox, const char *name, const char *expected,
                       outbox_error_t *error) {
  static const char *const suffixes[] = {"", "_archive", "_deleted", "_commands"};
  static const char *const projectors[] = {"projector_claims", "projector_leases"};
  bool taken = false;
  for (size_t i = 0; i < sizeof projectors / sizeof *projectors; i++) {
    taken = taken || strcmp(name, projectors[i]) == 0;
  }
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
    taken = taken || is_beside(outbox, name, suffixes[i]);
  }
  return !taken ||
         outbox_fail(error, OUTBOX_INVALID,
                     "collection: expected %s, found %s, which belongs to the outbox or to "
                     "the projector",
                     expected, name);
}

bool outbox_check_feed(const outbox_t *outbox, const char *name, outbox_error_t *error) {
  static const char expected[] = "one for a feed", prefix[] = "projector_";
  if (!outbox_check_name(outbox, name, expected, error)) {
    return false;
  }
  return strncmp(name, prefix, strlen(prefix)) != 0 ||
         outbox_fail(error, OUTBOX_INVALID,
                     "collection: expected %s, found %s; names that begin with %s are kept for "
                     "the projector's own collections",
                     expected, name, prefix);
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
  return outbox_check_name(outbox, change->collection, "one for entities", error);
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
  bson_value_t id = event_id(event, bytes);
  outbox_command_t command = {
      .outbox = outbox, .session = session, .change = change, .event = event, .id = &id};
  if (session) {
    command.client = mongoc_client_session_get_client(session);
    return outbox_command_run(&command, ret_receipt, error);
  }
  command.client = outbox_take_client(outbox);
  bool good = outbox_command_transact(&command, ret_receipt, error);
  outbox_give_client(outbox, command.client);
  return good;
}

bool outbox_write(outbox_t *outbox, const outbox_change_t *change, const outbox_event_t *event,
                  outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  return outbox_write_in(outbox, NULL, change, event, ret_receipt, error);
}

bool outbox_append(outbox_t *outbox, mongoc_client_session_t *session, const outbox_event_t *event,
                   outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  uint8_t bytes[16];
  outbox_error_t unused;
  error = error ? error : &unused;
  if (!outbox_event_validate(event, error)) {
    return false;
  }
  bson_value_t id = event_id(event, bytes);
  outbox_command_t command = {.outbox = outbox, .session = session, .event = event, .id = &id};
  if (session) {
    command.client = mongoc_client_session_get_client(session);
    return outbox_command_run(&command, ret_receipt, error);
  }
  command.client = outbox_take_client(outbox);
  // The transaction asks again if there is no answer.
  bool kept, known = outbox_commands_are_kept(outbox, command.client, &kept, error);
  bool good = known && !kept ? outbox_command_append(&command, ret_receipt, error)
                             : outbox_command_transact(&command, ret_receipt, error);
  outbox_give_client(outbox, command.client);
  return good;
}

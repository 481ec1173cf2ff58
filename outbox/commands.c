// Commands once: a receipt of every executed command in "<outbox>_commands", written in the
// transaction of the command. A repeated command finds it and changes nothing.
#include "outbox/internal.h"

#include <string.h>

// How often the collection's existence is checked; within this time it is noticed that init has
// created it or an operator has dropped it.
enum { ASK_MS = 10000 };

// ---- Whether receipts are kept ----

void outbox_commands_forget(outbox_t *outbox) {
  __atomic_store_n(&outbox->commands_asked, 0, __ATOMIC_RELAXED);
}

// Without the privilege to list collections, only those are listed on which the user has some.
static bool ask(outbox_t *outbox, mongoc_client_t *client, bool *ret_kept, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_error_t cause;
  bson_iter_t iter, first;
  bson_t *command = BCON_NEW("listCollections", BCON_INT32(1), "nameOnly", BCON_BOOL(true),
                             "authorizedCollections", BCON_BOOL(true), "filter", "{", "name",
                             BCON_UTF8(outbox->commands), "}");
  bool good = mongoc_client_command_simple(client, outbox->database, command, NULL, &reply, &cause);
  bson_destroy(command);
  if (!good) {
    outbox_fail_mongoc(error, &cause, &reply, outbox->commands);
    error->transient = error->kind == OUTBOX_UNAVAILABLE;
    return false;
  }
  *ret_kept = bson_iter_init(&iter, &reply) &&
              bson_iter_find_descendant(&iter, "cursor.firstBatch.0", &first);
  return true;
}

bool outbox_commands_are_kept(outbox_t *outbox, mongoc_client_t *client, bool *ret_kept,
                              outbox_error_t *error) {
  // Time and answer in one number, because threads share it.
  int64_t now_ms = outbox_monotonic_ms();
  int64_t asked = __atomic_load_n(&outbox->commands_asked, __ATOMIC_RELAXED);
  if (asked != 0 && now_ms - asked / 2 < ASK_MS) {
    *ret_kept = asked % 2 != 0;
    return true;
  }
  if (!ask(outbox, client, ret_kept, error)) {
    return false;
  }
  __atomic_store_n(&outbox->commands_asked, now_ms * 2 + *ret_kept, __ATOMIC_RELAXED);
  return true;
}

// ---- The receipt of a command that was executed before ----

// Reads the document with the command's id. *ret_found: it is there, copied to *ret_document.
static bool find(const outbox_command_t *command, const char *name, const bson_t *options,
                 bson_t *ret_document, bool *ret_found, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON query = BSON_INITIALIZER;
  OUTBOX_SCOPED_COLLECTION collection =
      mongoc_client_get_collection(command->client, command->outbox->database, name);
  const bson_t *document, *reply = NULL;
  bson_error_t cause;
  bool good = true;
  BSON_APPEND_VALUE(&query, "_id", command->id);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, &query, options, NULL);
  *ret_found = mongoc_cursor_next(cursor, &document);
  if (*ret_found) {
    bson_copy_to(document, ret_document);
  } else if (mongoc_cursor_error_document(cursor, &cause, &reply)) {
    good = outbox_fail_mongoc(error, &cause, reply, name);
  }
  mongoc_cursor_destroy(cursor);
  return good;
}

static const char *text_of(const bson_t *document, const char *field) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, field) && BSON_ITER_HOLDS_UTF8(&iter)
             ? bson_iter_utf8(&iter, NULL)
             : "";
}

static bool is_of_aggregate(const bson_t *known, const outbox_event_t *event) {
  bson_iter_t iter;
  return strcmp(text_of(known, "aggregate_type"), event->aggregate_type) == 0 &&
         bson_iter_init_find(&iter, known, "aggregate_id") &&
         outbox_id_equal(bson_iter_value(&iter), event->aggregate_id);
}

// A receipt has the digest, an event its contents. A receipt that another program wrote may have
// no digest: then the aggregate has to suffice.
static bool has_content(const bson_t *known, const outbox_event_t *event) {
  uint8_t digest[OUTBOX_SHA256_BYTES], known_digest[OUTBOX_SHA256_BYTES];
  const uint8_t *data;
  uint32_t length;
  bson_subtype_t subtype;
  bson_t payload;
  bson_iter_t iter;
  outbox_content(event->event_type, event->payload, digest);
  if (bson_iter_init_find(&iter, known, "content") && BSON_ITER_HOLDS_BINARY(&iter)) {
    bson_iter_binary(&iter, &subtype, &length, &data);
    return length == sizeof digest && memcmp(digest, data, sizeof digest) == 0;
  }
  if (!bson_iter_init_find(&iter, known, "payload") || !BSON_ITER_HOLDS_DOCUMENT(&iter)) {
    return true;
  }
  bson_iter_document(&iter, &length, &data);
  if (!bson_init_static(&payload, data, length)) {
    return false;
  }
  outbox_content(text_of(known, "event_type"), &payload, known_digest);
  return memcmp(digest, known_digest, sizeof digest) == 0;
}

static bool check_same(const bson_t *known, const outbox_event_t *event, const char *id,
                       outbox_error_t *error) {
  bson_iter_t iter;
  if (!is_of_aggregate(known, event)) {
    char *before = bson_iter_init_find(&iter, known, "aggregate_id")
                       ? outbox_id_text(bson_iter_value(&iter))
                       : bson_strdup("?");
    outbox_fail(error, OUTBOX_INVALID,
                "_id: %s is the id of an earlier command, on %s %s: expected a new id for this one",
                id, text_of(known, "aggregate_type"), before);
    bson_free(before);
    return false;
  }
  return has_content(known, event) ||
         outbox_fail(error, OUTBOX_INVALID,
                     "_id: %s is the id of an earlier command on this aggregate, with another "
                     "event_type or payload: expected a new id for this one",
                     id);
}

// Looks for an executed command with this event's id. OUTBOX_INVALID if it is another command.
static bool find_executed(const outbox_command_t *command, bool *ret_found,
                          outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  const outbox_t *outbox = command->outbox;
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON known = BSON_INITIALIZER;
  outbox_receipt_t receipt = {.repeated = true};
  bson_error_t cause;
  bson_iter_t iter;
  if (!mongoc_client_session_append(command->session, &options, &cause)) {
    return outbox_fail_mongoc(error, &cause, NULL, "session");
  }
  // The event may be older than the collection of receipts, or have outlived its receipt.
  if (!find(command, outbox->commands, &options, &known, ret_found, error) ||
      (!*ret_found && !find(command, outbox->events, &options, &known, ret_found, error))) {
    return false;
  }
  if (!*ret_found) {
    return true;
  }
  outbox_event_id_text(command->id, receipt.event_id);
  if (bson_iter_init_find(&iter, &known, "version")) {
    receipt.version = bson_iter_as_int64(&iter);
  }
  if (bson_iter_init_find(&iter, &known, "occurred_at") && BSON_ITER_HOLDS_DATE_TIME(&iter)) {
    receipt.occurred_at_ms = bson_iter_date_time(&iter);
  }
  if (!check_same(&known, command->event, receipt.event_id, error)) {
    return false;
  }
  *ret_receipt = receipt;
  return true;
}

// ---- The receipt of a command that is being executed ----

static bool insert_receipt(const outbox_command_t *command, const outbox_receipt_t *receipt,
                           outbox_error_t *error) {
  const outbox_t *outbox = command->outbox;
  const outbox_event_t *event = command->event;
  OUTBOX_SCOPED_BSON query = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON update = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  OUTBOX_SCOPED_COLLECTION commands =
      mongoc_client_get_collection(command->client, outbox->database, outbox->commands);
  uint8_t digest[OUTBOX_SHA256_BYTES];
  bson_error_t cause;
  bson_t fields;
  if (!mongoc_client_session_append(command->session, &options, &cause)) {
    return outbox_fail_mongoc(error, &cause, NULL, "session");
  }
  outbox_content(event->event_type, event->payload, digest);
  // An upsert, because only updates know the server's time. It matches no document, so that an
  // existing receipt is a duplicate key.
  BSON_APPEND_VALUE(&query, "_id", command->id);
  BCON_APPEND(&query, "at", "{", "$exists", BCON_BOOL(false), "}");
  BCON_APPEND(&update, "$currentDate", "{", "at", BCON_BOOL(true), "}");
  BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &fields);
  BSON_APPEND_UTF8(&fields, "aggregate_type", event->aggregate_type);
  BSON_APPEND_VALUE(&fields, "aggregate_id", event->aggregate_id);
  if (receipt->version) {
    BSON_APPEND_INT64(&fields, "version", receipt->version);
  }
  BSON_APPEND_DATE_TIME(&fields, "occurred_at", receipt->occurred_at_ms);
  BSON_APPEND_BINARY(&fields, "content", BSON_SUBTYPE_BINARY, digest, sizeof digest);
  bson_append_document_end(&update, &fields);
  BSON_APPEND_BOOL(&options, "upsert", true);
  if (mongoc_collection_update_one(commands, &query, &update, &options, &reply, &cause)) {
    return true;
  }
  outbox_fail_mongoc(error, &cause, &reply, outbox->commands);
  // The same command runs elsewhere at this moment: the next attempt finds its receipt.
  error->transient = error->transient || error->kind == OUTBOX_DUPLICATE;
  return false;
}

// ---- A command ----

bool outbox_command_append(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                           outbox_error_t *error) {
  const int64_t *at_ms = command->event->occurred_at_ms;
  return outbox_event_insert(command, command->event->version, at_ms ? *at_ms : outbox_now_ms(),
                             ret_receipt, error);
}

bool outbox_command_run(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                        outbox_error_t *error) {
  outbox_receipt_t receipt = {0};
  bool kept, repeated = false;
  if (!outbox_commands_are_kept(command->outbox, command->client, &kept, error)) {
    return false;
  }
  // An id that was just generated cannot be a repeat.
  if (kept && command->event->id && !find_executed(command, &repeated, &receipt, error)) {
    return false;
  }
  if (!repeated) {
    bool done = command->change ? outbox_change_run(command, &receipt, error)
                                : outbox_command_append(command, &receipt, error);
    if (!done || (kept && !insert_receipt(command, &receipt, error))) {
      return false;
    }
  }
  if (ret_receipt) {
    *ret_receipt = receipt;
  }
  return true;
}

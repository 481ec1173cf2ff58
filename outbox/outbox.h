// liboutbox: the write side. Stores an entity change and its event in one MongoDB transaction.
//
// An application calls outbox_write() wherever it would have updated its entity. The event ends up
// in the outbox collection, from where a projector takes it; nothing here knows of the projector.
//
//   outbox_error_t error;
//   outbox_t *outbox = outbox_new(uri, &(outbox_options_t){.database = "bank"}, &error);
//   ...
//   bson_value_t id = outbox_id_string("acc-1");
//   bson_t *payload = BCON_NEW("name", "Ada");
//   bson_t *change = BCON_NEW("$set", "{", "name", "Ada", "}");
//   outbox_receipt_t receipt;
//   if (!outbox_write(outbox,
//                     &(outbox_change_t){.collection = "accounts",
//                                        .kind = OUTBOX_UPDATE,
//                                        .document = change},
//                     &(outbox_event_t){.aggregate_type = "account",
//                                       .aggregate_id = &id,
//                                       .event_type = "AccountRenamed",
//                                       .payload = payload},
//                     &receipt, &error)) {
//     fprintf(stderr, "not renamed: %s\n", error.message);
//   }
//
// Needs libmongoc (1.23 or newer, 2.x included), a replica set or a sharded cluster (a standalone
// mongod has no transactions), and MongoDB 6.0 or newer for outbox_init(). mongoc_init() must have
// been called.
//
// Threads: an outbox_t over a pool (outbox_new, ..._from_uri, ..._from_pool) may be used by any
// number of threads at once; over a single client (outbox_new_from_client) by one thread at a time,
// as the client itself. Nothing here logs, exits, or keeps global state besides the last event id.
// (libmongoc itself warns on stderr of every transaction it aborts, the retried ones included,
// unless the application calls mongoc_log_set_handler().)
#ifndef OUTBOX_H
#define OUTBOX_H

#include <mongoc/mongoc.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Limits of the event document.
#define OUTBOX_TYPE_MAX_BYTES 128         // aggregate_type, event_type
#define OUTBOX_AGGREGATE_ID_MAX_BYTES 255 // aggregate_id when it is a string
#define OUTBOX_EVENT_ID_MAX_BYTES 64      // _id when it is a string
// A change stream wraps the event in a document of its own, which must stay below 16 MiB too.
#define OUTBOX_EVENT_MAX_BYTES (16 * 1024 * 1024 - 64 * 1024)

// ---- Errors ----

// What the caller can do about it. Except after OUTBOX_UNKNOWN nothing was written.
typedef enum {
  OUTBOX_OK = 0,
  OUTBOX_INVALID,   // an argument breaks the contract; the message begins with the field's name
  OUTBOX_MISSING,   // update, replace or delete of an entity that is not there
  OUTBOX_EXISTS,    // insert of an entity that is there, or a unique index of the entities objects
  OUTBOX_CONFLICT,  // the entity's version is not the expected one
  OUTBOX_DUPLICATE, // an event with this id is in the outbox already
  OUTBOX_REFUSED,   // the server refuses: privileges, validation, update operators ...
  OUTBOX_UNSUPPORTED, // the server has no transactions (standalone mongod) or is too old
  OUTBOX_UNAVAILABLE, // not reached, no primary, or too many conflicting writers: try again later
  OUTBOX_UNKNOWN,     // it may be stored or not, as an answer was lost: see outbox_write()
} outbox_error_kind_t;

typedef struct {
  outbox_error_kind_t kind;
  uint32_t domain; // of bson_error_t when the driver or the server reported it, else 0
  uint32_t code;   // the same
  bool transient;  // carries the label TransientTransactionError: run the whole transaction again
  char message[512];
} outbox_error_t;

// Every function takes NULL for `error` when the caller does not care why.

// The error as the reply document that a callback of mongoc_client_session_with_transaction() has
// to hand back, so that the driver retries what can be retried. The caller destroys the result.
bson_t *outbox_error_reply(const outbox_error_t *error);

// ---- Open and close ----

typedef struct {
  const char *database; // required
  const char *outbox;   // collection of the events; NULL: "outbox"
  // Neither a new attempt at a transaction nor at its commit begins after this; 0: 60000. One
  // attempt lasts as long as the URI's socketTimeoutMS (by default five minutes) and
  // serverSelectionTimeoutMS let it.
  int64_t timeout_ms;
} outbox_options_t;

typedef struct outbox outbox_t;

// Opens a pool of its own. `uri`: a MongoDB connection string.
outbox_t *outbox_new(const char *uri, const outbox_options_t *options, outbox_error_t *error);

outbox_t *outbox_new_from_uri(const mongoc_uri_t *uri, const outbox_options_t *options,
                              outbox_error_t *error);

// Borrows the application's pool or client, which must outlive the outbox_t.
outbox_t *outbox_new_from_pool(mongoc_client_pool_t *pool, const outbox_options_t *options,
                               outbox_error_t *error);
outbox_t *outbox_new_from_client(mongoc_client_t *client, const outbox_options_t *options,
                                 outbox_error_t *error);

// NULL is fine.
void outbox_destroy(outbox_t *outbox);

// Asks the server whether it can run transactions. OUTBOX_UNSUPPORTED: it is a standalone mongod.
// OUTBOX_UNAVAILABLE: not reached.
bool outbox_check(outbox_t *outbox, outbox_error_t *error);

// Creates what is missing: the outbox, the collection of the tombstones (see OUTBOX_DELETE), that
// of the executed commands (see outbox_write()), and the indexes. May be run any number of times.
bool outbox_init(outbox_t *outbox, outbox_error_t *error);

#define OUTBOX_COMMANDS_FOREVER (-1)

typedef struct {
  // How long an executed command is remembered, in seconds, at most INT32_MAX;
  // OUTBOX_COMMANDS_FOREVER: without an end. 0: what is set stays as it is; for a new collection it
  // is 30 days. Longer than the longest time after which a command may be sent again.
  int64_t commands_ttl_s;
  bool no_commands; // do not create the collection; one that is there stays, and in use
} outbox_init_options_t;

bool outbox_init_with(outbox_t *outbox, const outbox_init_options_t *options,
                      outbox_error_t *error);

// Creates a feed, which is an outbox for another projector, with the indexes of an outbox.
// OUTBOX_INVALID: the name belongs to this outbox (with _archive, _deleted, _commands) or begins
// with projector_.
bool outbox_init_feed(outbox_t *outbox, const char *feed, outbox_error_t *error);

// Creates the archive of this outbox, with the indexes that it is searched by.
bool outbox_init_archive(outbox_t *outbox, outbox_error_t *error);

// Creates a collection (of entities) unless it exists. OUTBOX_INVALID: the name belongs to this
// outbox, or is projector_claims or projector_leases.
bool outbox_create_collection(outbox_t *outbox, const char *collection, outbox_error_t *error);

// ---- Events ----

// One event. Everything is borrowed for the duration of the call.
typedef struct {
  const bson_value_t *id; // UUID, ObjectId or string of 1..64 bytes; NULL: a new UUIDv7
  const char *aggregate_type;
  const bson_value_t *aggregate_id; // string, UUID (binary subtype 4), ObjectId, int32 or int64
  const char *event_type;
  const bson_t *payload;
  const bson_t *metadata; // NULL: none
  // Only for outbox_append(); outbox_write() sets both and wants 0 and NULL here.
  int64_t version;               // 0: none
  const int64_t *occurred_at_ms; // milliseconds since 1970 UTC; NULL: now
} outbox_event_t;

// What was written.
typedef struct {
  char event_id[OUTBOX_EVENT_ID_MAX_BYTES + 1]; // UUID and ObjectId in their usual text form
  int64_t version;                              // 0: none
  int64_t occurred_at_ms;                       // 0: not known, of a repeated command
  // The command was executed before and nothing was changed now; the rest is of then.
  bool repeated;
} outbox_receipt_t;

// Values for `id` and `aggregate_id` that point to the caller's memory: do not bson_value_destroy()
// them.
bson_value_t outbox_id_string(const char *text);
bson_value_t outbox_id_uuid(const uint8_t bytes[16]);
bson_value_t outbox_id_int64(int64_t number);

// A new UUIDv7 (RFC 9562): rises from call to call within the process, whatever the clock does; its
// random part comes from getrandom(2). For callers who want to know the event id before they write.
void outbox_uuid7(uint8_t ret_bytes[16]);

// ---- Write ----

// What happens to the entity, which is the document of `collection` whose _id is the event's
// aggregate_id. Its fields `_id`, `version` (int64) and `last_event_at` (date) are liboutbox's and
// must not be named in `document`; an entity from before, without the two, begins at version 1 with
// its first event.
typedef enum {
  OUTBOX_INSERT, // document: the entity's fields
  // document: update operators ({$set: ..., $inc: ...}); NULL or empty: only version and time move
  OUTBOX_UPDATE,
  OUTBOX_REPLACE, // document: the entity's new fields, all of them
  // document: NULL. A tombstone stays in the collection "<outbox>_deleted", {_id: {aggregate_type,
  // aggregate_id}, version, deleted_at}, so that an entity inserted under the same id later
  // continues with the next version and a later time. Where ids are never used again, tombstones
  // may be removed.
  OUTBOX_DELETE,
} outbox_change_kind_t;

typedef struct {
  const char *collection; // in the outbox's database
  outbox_change_kind_t kind;
  const bson_t *document;
  // Optimistic concurrency: OUTBOX_CONFLICT unless the entity is at this version; 0: any.
  int64_t expected_version;
} outbox_change_t;

// Changes the entity and stores its event, both or neither, in one transaction with read and write
// concern majority. The entity's version rises by 1 and becomes the event's; the event's
// occurred_at is outbox_occurred_at(now, the entity's last_event_at) and is stored there again. For
// the events of one entity time order, version order and commit order are therefore the same.
//
// Transient errors (a conflicting writer, an election) are retried, and so is a commit whose answer
// was lost. What is still undecided at the end is OUTBOX_UNKNOWN: the change may have been stored
// or not. Call again with the same event id.
//
// A command is executed once. Where the collection "<outbox>_commands" is there (outbox_init()
// creates it), the transaction also stores a receipt in it: {_id: the event's id, at: the server's
// time, aggregate_type, aggregate_id, version, occurred_at, content: SHA-256 of event_type and
// payload}. A call with an event id that has a receipt, or whose event is in the outbox, changes
// nothing and succeeds, and `ret_receipt->repeated` says so. When it names another aggregate,
// event_type or payload, the id was used twice: OUTBOX_INVALID. A command that fails leaves no
// receipt. Writers notice within ten seconds that the collection was created or dropped; a user
// without any privilege on it writes as if it were not there.
//
// Without that collection a repeat may store the change twice; with `expected_version` it cannot:
// it answers OUTBOX_CONFLICT when the first one was stored.
bool outbox_write(outbox_t *outbox, const outbox_change_t *change, const outbox_event_t *event,
                  outbox_receipt_t *ret_receipt, outbox_error_t *error);

// The same inside the caller's own transaction, for several entities in one or for other
// collections with them. `session` has a transaction in progress; after an error the caller aborts
// it, and runs it again when error->transient. Commit with write concern majority. When the receipt
// says `repeated`, what else the transaction changes for this command was stored before too: abort
// it.
bool outbox_write_in(outbox_t *outbox, mongoc_client_session_t *session,
                     const outbox_change_t *change, const outbox_event_t *event,
                     outbox_receipt_t *ret_receipt, outbox_error_t *error);

// Stores an event alone. `session`: the caller's transaction, or NULL for a write of its own
// (majority), after which OUTBOX_UNKNOWN means the same. Version and time are the caller's affair.
// Executed once, as outbox_write(). Without "<outbox>_commands" a repeat is OUTBOX_DUPLICATE while
// the event is in the outbox.
bool outbox_append(outbox_t *outbox, mongoc_client_session_t *session, const outbox_event_t *event,
                   outbox_receipt_t *ret_receipt, outbox_error_t *error);

// The rule for occurred_at: max(now, last + 1 ms); `last_ms` NULL when the entity has no event yet.
int64_t outbox_occurred_at(int64_t now_ms, const int64_t *last_ms);

#ifdef __cplusplus
}
#endif

#endif

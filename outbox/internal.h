// What the files of liboutbox share and its users do not see.
#ifndef OUTBOX_INTERNAL_H
#define OUTBOX_INTERNAL_H

#include "outbox/outbox.h"
#include "outbox/sha256.h"

// Scope cleanup: the variable must be initialised where it is declared. A bson_t that is still
// BSON_INITIALIZER owns no memory, so a function may initialise over it.
static inline void outbox_clean_bson(bson_t *bson) {
  bson_destroy(bson);
}
static inline void outbox_clean_collection(mongoc_collection_t **collection) {
  mongoc_collection_destroy(*collection);
}
#define OUTBOX_SCOPED_BSON __attribute__((cleanup(outbox_clean_bson))) bson_t
#define OUTBOX_SCOPED_COLLECTION                                                                   \
  __attribute__((cleanup(outbox_clean_collection))) mongoc_collection_t *

struct outbox {
  mongoc_client_pool_t *pool; // or
  mongoc_client_t *client;
  bool owns_pool;
  int64_t timeout_ms;
  char *database;
  char *events;     // name of the outbox collection
  char *tombstones; // "<outbox>_deleted"
  char *commands;   // "<outbox>_commands"
  // Atomic: when it was asked whether `commands` is there, monotonic ms, times 2, plus the answer;
  // 0: not yet.
  int64_t commands_asked;
};

// Times.
int64_t outbox_now_ms(void);
int64_t outbox_monotonic_ms(void);

// Fills `error` (NULL is fine) and returns false, so that callers can `return outbox_fail(...)`.
bool outbox_fail(outbox_error_t *error, outbox_error_kind_t kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The same from what the driver reported. `reply` may be NULL; `what` says what was being done.
bool outbox_fail_mongoc(outbox_error_t *error, const bson_error_t *cause, const bson_t *reply,
                        const char *what);
bool outbox_is_duplicate_key(const bson_error_t *cause);
// The server's own answer, not a failure to reach it.
bool outbox_is_from_server(const bson_error_t *cause);

// UUIDv7 from its inputs: the generator's state, the clock and fresh random bytes.
typedef struct {
  int64_t last_ms;
  uint8_t last[16];
} outbox_uuid7_state_t;
void outbox_uuid7_next(outbox_uuid7_state_t *state, int64_t now_ms, const uint8_t random[10],
                       uint8_t ret_bytes[16]);
void outbox_random(void *ret_bytes, size_t length);

// Options of an insert: in the session, or (NULL) with write concern majority of its own.
bool outbox_insert_options(mongoc_client_session_t *session, bson_t *ret_options,
                           outbox_error_t *error);

// Clients: borrowed from the pool for one call.
mongoc_client_t *outbox_take_client(outbox_t *outbox);
void outbox_give_client(outbox_t *outbox, mongoc_client_t *client);

// What a caller wants done. Everything has been validated.
typedef struct {
  outbox_t *outbox;
  mongoc_client_t *client;
  mongoc_client_session_t *session; // with a transaction in progress; NULL: none
  const outbox_change_t *change;    // NULL: the event alone
  const outbox_event_t *event;
  const bson_value_t *id; // the event's
} outbox_command_t;

// Events.
bool outbox_event_validate(const outbox_event_t *event, outbox_error_t *error);
// Text form of an event id that outbox_event_validate() has passed.
void outbox_event_id_text(const bson_value_t *id, char ret_text[OUTBOX_EVENT_ID_MAX_BYTES + 1]);
// The outbox document, fields in the order of the contract. `version` 0 is left out.
bool outbox_event_document(const outbox_event_t *event, const bson_value_t *id, int64_t version,
                           int64_t occurred_at_ms, bson_t *ret_document, outbox_error_t *error);
// Inserts the command's event.
bool outbox_event_insert(const outbox_command_t *command, int64_t version, int64_t occurred_at_ms,
                         outbox_receipt_t *ret_receipt, outbox_error_t *error);

// Text form of an id; the caller frees it.
char *outbox_id_text(const bson_value_t *id);
// An int32 and an int64 of one value are the same id.
bool outbox_id_equal(const bson_value_t *a, const bson_value_t *b);

// SHA-256 of the BSON document {event_type, payload}, the payload's fields sorted by name (bytes
// first to last) at every level. Metadata, version and time are left out: they may differ when a
// command is sent again.
void outbox_content(const char *event_type, const bson_t *payload,
                    uint8_t ret_digest[OUTBOX_SHA256_BYTES]);

// Executes the command in its session, unless the receipts say that it was executed before. `error`
// is not NULL.
bool outbox_command_run(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                        outbox_error_t *error);
// The same in a transaction of its own, tried again as long as that can help.
bool outbox_command_transact(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                             outbox_error_t *error);
// The event alone, without a receipt. `session` may be NULL.
bool outbox_command_append(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                           outbox_error_t *error);
// Whether the collection of receipts is there; asked every ten seconds.
bool outbox_commands_are_kept(outbox_t *outbox, mongoc_client_t *client, bool *ret_kept,
                              outbox_error_t *error);
// Has it asked again.
void outbox_commands_forget(outbox_t *outbox);

// Whether a collection may have that name: not one of the outbox's, nor of the projector's, which
// would read what lies there as events, tombstones or receipts.
bool outbox_check_name(const outbox_t *outbox, const char *name, const char *expected,
                       outbox_error_t *error);
// The same for a feed, which is a new collection: the projector may have more of its own one day,
// and refuses the prefix of their names in "feeds".
bool outbox_check_feed(const outbox_t *outbox, const char *name, outbox_error_t *error);

// Changes.
bool outbox_write_validate(const outbox_t *outbox, const outbox_change_t *change,
                           const outbox_event_t *event, outbox_error_t *error);
bool outbox_change_validate(const outbox_change_t *change, outbox_error_t *error);
// The operators of `operators` (NULL: none) with `$inc: {version: 1}` and `$max: {last_event_at:
// now}` among them.
void outbox_change_update(const bson_t *operators, int64_t now_ms, bson_t *ret_update);
// Runs the change and stores the event.
bool outbox_change_run(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                       outbox_error_t *error);

#endif

// outbox_write(): the transaction around a command; retries transaction and commit as long as that
// can help.
//
// It does not use mongoc_client_session_with_transaction(): in 1.23 that gives up when a commit is
// repeated while its server shuts down (the failed handshake carries no label), and it ends after
// 120 s, not when the caller wants.
#include "outbox/internal.h"

#include <time.h>

enum { BACKOFF_MAX_MS = 64 };

// One command.
typedef struct {
  outbox_command_t command;
  int64_t deadline_ms; // monotonic
  outbox_receipt_t receipt;
  bool looked_again; // after a refusal
} write_t;

typedef enum {
  DONE,
  FAILED,
  AGAIN, // nothing was stored, and another attempt may succeed
} outcome_t;

static bool is_late(const write_t *write) {
  return outbox_monotonic_ms() >= write->deadline_ms;
}

// Writers that collided on an entity try again at different times.
static void back_off(int attempt) {
  uint32_t random;
  outbox_random(&random, sizeof random);
  uint32_t limit_ms = attempt < 6 ? 1U << attempt : BACKOFF_MAX_MS;
  struct timespec pause = {.tv_nsec = (long)(random % (limit_ms * 1000)) * 1000};
  nanosleep(&pause, NULL);
}

static mongoc_transaction_opt_t *transaction_options(int64_t timeout_ms) {
  mongoc_transaction_opt_t *options = mongoc_transaction_opts_new();
  mongoc_read_concern_t *read_concern = mongoc_read_concern_new();
  mongoc_write_concern_t *write_concern = mongoc_write_concern_new();
  mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
  mongoc_read_concern_set_level(read_concern, MONGOC_READ_CONCERN_LEVEL_MAJORITY);
  mongoc_write_concern_set_w(write_concern, MONGOC_WRITE_CONCERN_W_MAJORITY);
  mongoc_transaction_opts_set_read_concern(options, read_concern);
  mongoc_transaction_opts_set_write_concern(options, write_concern);
  mongoc_transaction_opts_set_read_prefs(options, primary);
  mongoc_transaction_opts_set_max_commit_time_ms(options, timeout_ms);
  mongoc_read_concern_destroy(read_concern);
  mongoc_write_concern_destroy(write_concern);
  mongoc_read_prefs_destroy(primary);
  return options;
}

static bool fail_commit(const write_t *write, const bson_error_t *cause, const bson_t *reply,
                        bool unknown, outbox_error_t *error) {
  char id[OUTBOX_EVENT_ID_MAX_BYTES + 1];
  char what[OUTBOX_EVENT_ID_MAX_BYTES + 64];
  outbox_event_id_text(write->command.id, id);
  bson_snprintf(what, sizeof what, "commit of the event %s%s", id,
                unknown ? " (whether it was stored is not known)" : "");
  outbox_fail_mongoc(error, cause, reply, what);
  if (unknown) {
    error->kind = OUTBOX_UNKNOWN;
    error->transient = false;
  }
  return false;
}

// A commit may be sent any number of times. The server says how it ended: it is done, or
// (TransientTransactionError) the transaction is gone without a trace. Any other answer may be the
// second one: the driver sends a commit twice, and does not tell that the first answer was lost.
static outcome_t commit(const write_t *write, mongoc_client_session_t *session,
                        outbox_error_t *error) {
  for (int attempt = 1;; attempt++) {
    OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
    bson_error_t cause;
    if (mongoc_client_session_commit_transaction(session, &reply, &cause)) {
      return DONE;
    }
    if (mongoc_error_has_label(&reply, "TransientTransactionError")) {
      fail_commit(write, &cause, &reply, false, error);
      return AGAIN;
    }
    bool lost = mongoc_error_has_label(&reply, "UnknownTransactionCommitResult") ||
                !outbox_is_from_server(&cause);
    if (!lost || is_late(write)) {
      fail_commit(write, &cause, &reply, true, error);
      return FAILED;
    }
    back_off(attempt);
  }
}

// MongoDB does not promise one moment for all shards: each may be read as of the transaction's
// first statement there. So the receipt may have been looked for before the same command, sent
// twice at once, was committed, and the entity read after that. A second transaction finds the
// receipt. (8.2 was only seen to report a write conflict in this case, which is retried anyway.)
static bool may_be_executed_meanwhile(write_t *write, const outbox_error_t *error) {
  bool refused = error->kind == OUTBOX_EXISTS || error->kind == OUTBOX_MISSING ||
                 error->kind == OUTBOX_CONFLICT;
  bool first = refused && write->command.event->id && !write->looked_again;
  write->looked_again |= refused;
  return first;
}

static outcome_t attempt_once(write_t *write, mongoc_client_session_t *session,
                              const mongoc_transaction_opt_t *options, outbox_error_t *error) {
  bson_error_t cause;
  if (!mongoc_client_session_start_transaction(session, options, &cause)) {
    outbox_fail_mongoc(error, &cause, NULL, "transaction");
    return error->kind == OUTBOX_UNAVAILABLE ? AGAIN : FAILED;
  }
  if (!outbox_command_run(&write->command, &write->receipt, error)) {
    // If this does not reach the server, it ends the transaction by itself.
    mongoc_client_session_abort_transaction(session, NULL);
    return error->transient || may_be_executed_meanwhile(write, error) ? AGAIN : FAILED;
  }
  return commit(write, session, error);
}

static bool write_with(write_t *write, outbox_error_t *error) {
  bson_error_t cause;
  mongoc_client_session_t *session =
      mongoc_client_start_session(write->command.client, NULL, &cause);
  if (!session) {
    return outbox_fail_mongoc(error, &cause, NULL, "session");
  }
  mongoc_transaction_opt_t *options = transaction_options(write->command.outbox->timeout_ms);
  write->command.session = session;
  outcome_t outcome;
  for (int attempt = 1; (outcome = attempt_once(write, session, options, error)) == AGAIN;
       attempt++) {
    if (is_late(write)) {
      error->transient = false;
      break;
    }
    back_off(attempt);
  }
  mongoc_transaction_opts_destroy(options);
  mongoc_client_session_destroy(session);
  return outcome == DONE;
}

bool outbox_command_transact(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                             outbox_error_t *error) {
  write_t write = {.command = *command,
                   .deadline_ms = outbox_monotonic_ms() + command->outbox->timeout_ms};
  bool good = write_with(&write, error);
  if (good && ret_receipt) {
    *ret_receipt = write.receipt;
  }
  return good;
}

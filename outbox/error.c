// Errors as values: filled where they happen, classified by one function.
#include "outbox/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool outbox_fail(outbox_error_t *error, outbox_error_kind_t kind, const char *format, ...) {
  if (!error) {
    return false;
  }
  memset(error, 0, sizeof *error);
  error->kind = kind;
  va_list args;
  va_start(args, format);
  vsnprintf(error->message, sizeof error->message, format, args);
  va_end(args);
  return false;
}

bool outbox_is_from_server(const bson_error_t *cause) {
  return cause->domain == MONGOC_ERROR_SERVER || cause->domain == MONGOC_ERROR_QUERY ||
         cause->domain == MONGOC_ERROR_COMMAND || cause->domain == MONGOC_ERROR_WRITE_CONCERN ||
         cause->domain == MONGOC_ERROR_COLLECTION;
}

bool outbox_is_duplicate_key(const bson_error_t *cause) {
  return outbox_is_from_server(cause) && (cause->code == 11000 || cause->code == 11001);
}

// Server codes that are about the server's state, not about the request.
static bool server_is_unavailable(uint32_t code) {
  static const uint32_t codes[] = {
      6,     7,     // HostUnreachable, HostNotFound
      50,    64,    // MaxTimeMSExpired, WriteConcernTimeout
      89,    91,    // NetworkTimeout, ShutdownInProgress
      112,          // WriteConflict
      133,   134,   // FailedToSatisfyReadPreference, ReadConcernMajorityNotAvailableYet
      189,   202,   // PrimarySteppedDown, NetworkInterfaceExceededTimeLimit
      225,   234,   // TransactionTooOld, RetryChangeStream
      246,   251,   // SnapshotUnavailable, NoSuchTransaction
      262,   317,   // ExceededTimeLimit, ConnectionPoolExpired
      358,   371,   // InternalTransactionNotSupported, UserWritesBlocked
      384,   9001,  // ConnectionError, SocketException
      10058, 10107, // NotWritablePrimary
      11600, 11602, // InterruptedAtShutdown, InterruptedDueToReplStateChange
      13388,        // StaleConfig
      13435, 13436, // NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
      50915,        // BackupCursorOpenConflictWithCheckpoint
  };
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    if (codes[i] == code) {
      return true;
    }
  }
  return false;
}

static outbox_error_kind_t classify(const bson_error_t *cause, const bson_t *reply) {
  if (reply && mongoc_error_has_label(reply, "UnknownTransactionCommitResult")) {
    return OUTBOX_UNKNOWN;
  }
  switch (cause->domain) {
  case MONGOC_ERROR_STREAM:
  case MONGOC_ERROR_SERVER_SELECTION: return OUTBOX_UNAVAILABLE;
  case MONGOC_ERROR_BSON: return OUTBOX_INVALID;
  default: break;
  }
  if (outbox_is_from_server(cause)) {
    // 20 also means a transaction where none is possible, which this library does not try.
    if (cause->code == 20 || cause->code == 263) {
      return OUTBOX_UNSUPPORTED;
    }
    if (outbox_is_duplicate_key(cause)) {
      return OUTBOX_DUPLICATE;
    }
    if (server_is_unavailable(cause->code)) {
      return OUTBOX_UNAVAILABLE;
    }
  }
  if (reply && mongoc_error_has_label(reply, "TransientTransactionError")) {
    return OUTBOX_UNAVAILABLE;
  }
  return OUTBOX_REFUSED;
}

bool outbox_fail_mongoc(outbox_error_t *error, const bson_error_t *cause, const bson_t *reply,
                        const char *what) {
  if (!error) {
    return false;
  }
  outbox_error_kind_t kind = classify(cause, reply);
  bool standalone = kind == OUTBOX_UNSUPPORTED && cause->code == 20;
  outbox_fail(error, kind, "%s: %s", what,
              standalone ? "this mongod is not a member of a replica set, so it has no transactions"
                         : cause->message);
  error->domain = cause->domain;
  error->code = cause->code;
  // Within a transaction, an unreachable server means starting again, with or without the label:
  // 1.23 forgets the label when a new connection fails.
  error->transient = cause->domain == MONGOC_ERROR_STREAM ||
                     cause->domain == MONGOC_ERROR_SERVER_SELECTION ||
                     (reply && mongoc_error_has_label(reply, "TransientTransactionError"));
  return false;
}

bson_t *outbox_error_reply(const outbox_error_t *error) {
  return error->transient ? BCON_NEW("errorLabels", "[", "TransientTransactionError", "]")
                          : bson_new();
}

/* failure.h - errors as values: what failed, where, and what kind of failure it is.
 *
 * A Failure is filled where something goes wrong and is passed up by value; callers prepend context
 * to its message. Filling one cannot fail. The class alone decides what happens next
 * (docs/operations.md has the table); the message is for humans.
 *
 * What only a bug can cause is not a failure: it is asserted, in every build (g_assert). A process
 * that finds itself wrong ends at once, and the next owner begins with what is committed. */
#pragma once

#ifdef G_DISABLE_ASSERT
#error "the assertions are a part of the program"
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum FailureClass {
  FAILURE_NONE,
  FAILURE_UNAVAILABLE, /* the store is down, failing over or read-only: wait, use up no attempt */
  FAILURE_CONFLICT,    /* deadlock or lock wait: retry the same transaction */
  FAILURE_DATA,        /* one event is at fault: find it, mark it, continue with the others */
  FAILURE_MAPPING,     /* the table or column does not match the mapping: the projection's events
                        * fail */
  FAILURE_CONFIG,      /* credentials or privileges: no event can succeed, stop with status 2 */
  FAILURE_SPACE,       /* disk or table full: wait longer, use up no attempt */
  FAILURE_SIZE,        /* statement larger than the server accepts: halve the batch */
  FAILURE_FENCED,      /* another projector owns this name now: stop working at once */
  FAILURE_HISTORY,     /* the change stream cannot continue: scan the outbox again */
  FAILURE_UNKNOWN,     /* unknown code: blame.h attributes it */
} FailureClass;

/* The store cannot work now, whoever asks it. */
static inline bool failure_class_is_outage(FailureClass class) {
  return class == FAILURE_UNAVAILABLE || class == FAILURE_SPACE;
}

typedef enum FailureSource {
  SOURCE_EVENT,
  SOURCE_MYSQL,
  SOURCE_MONGODB,
  SOURCE_PROJECTOR,
} FailureSource;

/* The steps of a transaction that carries events into MySQL, in their order. */
typedef enum TransactionStep {
  STEP_NONE, /* no such transaction */
  STEP_CONNECT,
  STEP_BEGIN,
  STEP_ENTER,     /* the fence, and the positions that are read and locked */
  STEP_LEDGER,    /* the events' ids */
  STEP_ROWS,      /* the events' own rows */
  STEP_POSITIONS, /* written */
  STEP_COMMIT,
} TransactionStep;

typedef struct Failure {
  FailureClass class;
  FailureSource source;
  int code; /* the store's own error number, 0 when there is none */
  TransactionStep
      step; /* set by the caller of the steps; used by blame.h to attribute the failure */
  char message[480];
} Failure;

/* Fills `failure` (NULL is allowed) and returns false, so that a leaf can `return
 * failure_set(…)`. */
bool failure_set(Failure *failure, FailureClass class, FailureSource source, int code,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

/* A failure that the operator fixes in the configuration or the command. */
#define failure_refuse(failure, ...)                                                               \
  failure_set((failure), FAILURE_CONFIG, SOURCE_PROJECTOR, 0, __VA_ARGS__)

/* Records the step if it failed; returns `good`. */
bool failure_at(Failure *failure, TransactionStep step, bool good);

/* Prepends context to the message: "context: message". Returns false. */
bool failure_prefix(Failure *failure, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The failure as it may be logged: without the values that MySQL quotes from a row or a statement,
 * and those of the event itself, which are in quotes after ", found ". Names of tables, columns and
 * keys stay. */
Failure failure_without_values(const Failure *failure);

/* Replaces everything from the first quote to the last with "…", in a buffer of `size`. The end of
 * a message like "Duplicate entry 'x' for key 'by_name'" stays: what is quoted there is a name. */
void text_hide_quoted(char *text, size_t size);

/* Lower-case names as used in `last_error.class`, logs and metrics. */
const char *failure_class_name(FailureClass class);

/* The class of a server's error number. The tables are in failure.c, with their sources. */
FailureClass failure_class_of_mysql(int code);
FailureClass failure_class_of_mongodb(int code);
/* The same with the server's text, without which some numbers do not reveal that the disk was
 * full. */
FailureClass failure_class_of_mysql_text(int code, const char *message);
FailureClass failure_class_of_mongodb_text(int code, const char *message);

/* A store answers, and refuses this write of MongoDB's: the document would exceed its limit, a
 * validator or a unique index rejects it. Another document may be accepted. */
bool failure_is_refusal(const Failure *failure);

enum {
  BACKOFF_MAX_MS = 300000
}; /* a failed event waits no longer than this for its next attempt */

/* Delay before attempt number `attempts` + 1: `base_ms` doubled per attempt so far, at most
 * `max_ms`, with full jitter: uniform in [1, that]. `random` is any 32 random bits. */
int64_t backoff_delay_ms(int attempts, int64_t base_ms, int64_t max_ms, uint32_t random);

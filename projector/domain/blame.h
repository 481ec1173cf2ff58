/* blame.h - attributes a failed transaction to an event, a table or the store.
 *
 * The error number alone says little: a server that refuses to work, an oversized or slow statement
 * and a locked table may all look like a lost connection. The step that failed says more, and so
 * does a probe: a transaction without events, on a separate connection, that writes and commits.
 * Only a statement on the events' own rows can make a failure theirs at once. When the ledger
 * insert or the COMMIT fails, the transaction as a whole may be too large: an event that fails
 * there repeatedly, alone, while probes succeed, is the cause. A failure at the fence or the
 * positions is never attributed to an event. */
#pragma once

#include "projector/domain/failure.h"

enum {
  BREAKS_MAX =
      3, /* so many failures alone, each with a successful probe, are attributed to the event */
};

/* How the probe ended. */
typedef enum ProbeResult { PROBE_NONE, PROBE_GOOD, PROBE_BAD } ProbeResult;

typedef struct Case {
  const Failure *failure; /* its step too */
  size_t open;            /* events in the transaction that may be the cause */
  int tries;              /* attempts of the transaction so far, from 1 */
  int64_t tried_ms;       /* since its batch was first tried */
  ProbeResult probe;
  int breaks;      /* of the event when it is alone: earlier failures that counted */
  int64_t full_ms; /* since when a lack of space keeps coming back */
} Case;

typedef enum Ruling {
  RULING_RETRY,      /* the same transaction again, after a pause */
  RULING_PROBE,      /* probe the server first, then decide with the result */
  RULING_SPLIT,      /* halve the batch */
  RULING_PROJECTION, /* the table is not what the mapping says: all its events wait */
  RULING_EVENT,      /* this event's own failure: it uses up an attempt */
  RULING_WAIT,       /* the event waits for another session's lock; no attempt is used up */
  RULING_COUNT, /* the event waits without using up an attempt, but the failure counts as evidence
                   against it */
  RULING_STORE, /* the server, or this owner, cannot continue: no attempt is used up */
} Ruling;

Ruling blame_rule(const Case *the_case);

/* The connection broke, or no answer came: the server is unreachable, or the statement caused
 * it. */
bool blame_is_break(const Failure *failure);
/* The statement waited for a lock for too long. */
bool blame_is_lock_wait(const Failure *failure);
/* An event's own failure as it is reported: with the matching class and the evidence. */
Failure blame_report(const Failure *failure, int breaks);

/* blame.h - whose fault a failed transaction is.
 *
 * The number of an error says little about that: a server that refuses to work, a statement that is
 * too big or too slow and a locked table may all look like a lost connection. What was being done
 * says more, and so does a probe: a transaction without anybody's events, on a connection of its
 * own, that writes and commits. Only a statement on the events' own rows can make a failure theirs
 * at once. Where the ledger is written or the transaction ends, the whole of it may be too large:
 * an event that fails there again and again, alone, while probes succeed, is the reason. Fence and
 * positions are ours: what fails there is never an event's. */
#pragma once

#include "projector/domain/failure.h"

enum {
  BREAKS_MAX = 3, /* failures alone, each with a good probe, that make a failure an event's own */
};

/* What the server did without the events. */
typedef enum Probe { PROBE_NONE, PROBE_GOOD, PROBE_BAD } Probe;

typedef struct Case {
  const Failure *failure; /* its step too */
  size_t open;            /* events in the transaction that may be the reason */
  int replays;            /* how often the transaction was tried, from 1 */
  int64_t tried_ms;       /* since its batch was tried first */
  Probe probe;
  int breaks; /* of the event when it is alone: earlier failures that counted */
} Case;

typedef enum Ruling {
  RULING_REPLAY,     /* the same transaction again, after a pause */
  RULING_PROBE,      /* ask the server first, then again with the answer */
  RULING_SPLIT,      /* halve the batch */
  RULING_PROJECTION, /* the table is not what the mapping says: all its events wait */
  RULING_EVENT,      /* this event's own failure: it pays with an attempt */
  RULING_WAIT,       /* the event waits for somebody's lock; it does not pay */
  RULING_COUNT,      /* the event waits and does not pay, but this is remembered against it */
  RULING_STORE,      /* the server, or this owner, cannot continue: no event pays */
} Ruling;

Ruling blame_rule(const Case *the_case);

/* The connection ended, or no answer came: the server is away, or it was the statement. */
bool blame_is_break(const Failure *failure);
/* The statement waited for a lock for too long. */
bool blame_is_lock_wait(const Failure *failure);
/* An event's own failure as it is told: with a class that says so, and with what was found out. */
Failure blame_told(const Failure *failure, int breaks);

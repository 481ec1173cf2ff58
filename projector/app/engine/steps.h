/* steps.h - what the files of the pipeline share. worker.c calls the steps in claim.c,
 * transaction.c, late.c and settle.c; ruling.c, items.c and hand_back.c serve all of them. */
#pragma once

#include "projector/app/engine/event_reports.h"
#include "projector/app/engine/hand.h"
#include "projector/app/engine/metrics.h"
#include "projector/app/engine/worker.h"
#include "projector/domain/blame.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/claims.h"
#include "projector/infra/mysql/apply.h"
#include "projector/infra/pulse.h"

struct Worker {
  const Config *config;
  const Ledger *ledger;
  const Lanes *lanes;
  unsigned number;
  Lane *lane; /* its own: of all events that it takes */
  Acker *acker;
  Stop *stop;
  Outbox *outbox;
  Hand *hand;            /* events claimed by the batch and not committed */
  bool claims_apart;     /* it may not write there */
  bool claims_batch;     /* its document in projector_claims names events in hand */
  int64_t stalled_until; /* events read before this are looked up again; monotonic, us */
  Session *session;      /* NULL: to be opened */
  Arena *arena;          /* of the batch in hand */
  unsigned long hung;    /* number of a session that broke; 0: none, or it was ended */
  bool hurried;          /* the session's lock waits are shorter than usual */
  bool refused;          /* MySQL caused the last failure: it is probed before work continues */
  int64_t full_since;    /* lack of space at the rows, first and last; monotonic, us; 0: none */
  int64_t full_at;
  Id broke; /* the event that was alone when it broke; of length 0: none */
  uint8_t broke_bytes[EVENT_ID_MAX];
  GRand *random;
  QueuedEvent **taken; /* room for a batch */
  gint failures;       /* atomic; of a store, one after the other */
  Pulse pulse;         /* at work: has a batch */
  GThread *thread;
  GMutex lock; /* of the counters */
  Counters counters;
  Failure trouble;  /* under the lock: what it waits for */
  Metrics *metrics; /* NULL: nobody counts */
};

enum {
  UNCOUNTED_RETRY_MS = 5000, /* an event that waits for a change elsewhere, not for a store */
};

/* --- items.c --- */

void fail_item(Worker *worker, Item *item, const Failure *failure);
/* The same for an event that waits for a change elsewhere and keeps its attempt. */
void hold_item(Worker *worker, Item *item, const Failure *failure);
/* Whether the item is still to be decided, or applied. */
bool is_open(const Item *item);
size_t count_open(const Item *items, size_t count);

/* --- hand_back.c --- */

ClaimKey claim_key(const Worker *worker);
/* Call before any event of the batch is marked or released: from then on a kill counts no attempt.
 * Retries until it succeeds or the worker has to stop. */
void leave_claim(Worker *worker);
/* After a mark has failed: logs it and pauses. Returns false for one that is not retried: what
 * MongoDB refuses, or what a stop interrupts, is left to the sweeper. */
bool pause_before_marking_again(Worker *worker, const Failure *failure);
/* Releases events unchanged: in the outbox, and into the queue if nothing holds their aggregate. */
void give_back(Worker *worker, QueuedEvent *const *events, size_t count);

/* --- claim.c --- */

/* Claims the events and makes items of those that were won and may be applied now; the others leave
 * the worker. Returns false when a store failed, and the events are in the queue again. */
bool claim(Worker *worker, QueuedEvent **events, size_t count, Item *items, size_t *ret_count,
           Failure *ret_failure);
/* The worker ends. */
void end_claims(Worker *worker);

/* --- transaction.c --- */

/* A session that works, opened when there is none. */
bool ensure_session(Worker *worker, Failure *ret_failure);
/* Applies the items in as many transactions as needed: good ones are applied, the causes of
 * failures found by halving. Returns false when the store or this owner cannot continue; undecided
 * items have VERDICT_NONE then. */
bool apply(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* Call after a COMMIT that was answered: a new session asks whether its server has these. */
void note_commit(Worker *worker, const Item *items, size_t count);
/* Call after a failure that breaks the session. A statement that may still run there keeps its
 * locks, so the next probe kills it. */
void part_with_session(Worker *worker, const Failure *failure);
/* Pauses before a transaction is retried. Returns false when the worker has to stop. */
bool retry_pause(Worker *worker, int tries);

/* --- ruling.c --- */

typedef struct Tries {
  int count;     /* attempts of the transaction so far, from 1 */
  int64_t begun; /* when its batch was tried first; monotonic, us */
} Tries;

/* Decides what the failure of a transaction of these items means, probing the server if necessary;
 * never RULING_PROBE. A store's fault gets the matching class. */
Ruling rule(Worker *worker, const Item *items, size_t count, Tries tries, Failure *failure);
/* Whether the server works, tested on a separate connection. */
bool ask_server(Worker *worker, Failure *ret_failure);
/* After a lock wait: if the whole table is locked, its events wait (true), and for a while later
 * ones are not tried. */
bool hold_locked_table(Worker *worker, Item *items, size_t count, const Projection *projection,
                       const Failure *failure);
/* After a missing privilege at the rows: if other tables work, this one's events wait (true), so
 * that a trigger whose definer has lost its rights does not stop all of them. */
bool hold_forbidden_table(Worker *worker, Item *items, size_t count, const Projection *projection,
                          const Failure *failure);
/* One event failed alone at the rows. Returns true when several aggregates of the projection did;
 * then it is not this event's fault, and the others are not tried for a while. */
bool tally(Worker *worker, const Item *one, const Projection *projection, const Failure *failure);
/* Before a batch: events of a locked table wait. */
void hold_behind_gates(Worker *worker, Item *items, size_t count);
/* After it: the event that tested whether a table accepts events again has done so, or another
 * may. */
void end_trials(Worker *worker, const Item *items, size_t count);
/* Before a batch: events whose time is far ahead of MongoDB's clock wait. */
void hold_early(Worker *worker, Item *items, size_t count);
/* Clears the evidence against applied events and their tables. */
void acquit(Worker *worker, const Item *items, size_t count);

/* --- late.c --- */

/* Refreshes the aggregates of late updates (VERDICT_REFRESH). Returns false when a store failed on
 * the way. */
bool refresh_late(Worker *worker, Item *items, size_t count, Failure *ret_failure);

/* --- settle.c --- */

/* Every event of the batch leaves the worker here. Returns false when a store failed on the way;
 * undecided events have been released. */
bool settle(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* A store is unreachable: unapplied events are marked so in the outbox, and keep their attempt and
 * their place in the queue. */
void settle_outage(Worker *worker, Item *items, size_t count, const Failure *failure);

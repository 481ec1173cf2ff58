/* steps.h - what the files of the pipeline share: worker.c calls the steps in claim.c,
 * transaction.c and settle.c. */
#pragma once

#include "projector/app/engine/hand.h"
#include "projector/app/engine/metrics.h"
#include "projector/app/engine/worker.h"
#include "projector/domain/blame.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/claims.h"
#include "projector/infra/mysql/apply.h"

struct Worker {
  const Config *config;
  const Ledger *ledger;
  const Lanes *lanes;
  unsigned number; /* of its own lane */
  Acker *acker;
  Stop *stop;
  Outbox *outbox;
  Hand *hand;            /* what is claimed by the batch and not committed */
  bool claims_apart;     /* it may not write there */
  bool claims_batch;     /* its document in projector_claims names events in hand */
  int64_t stalled_until; /* what was read before is looked at again; monotonic, us */
  Session *session;      /* NULL: to be opened */
  Arena *arena;          /* of the batch in hand */
  unsigned long hung;    /* number of a session that broke; 0: none, or it was ended */
  bool hurried;          /* the session waits for locks for a shorter time than usual */
  bool refused; /* MySQL was the reason of the last failure: it is asked before work continues */
  Id broke;     /* the event that was alone when it became that; of length 0: none */
  uint8_t broke_bytes[EVENT_ID_MAX];
  GRand *random;
  QueuedEvent **taken; /* room for a batch */
  gint failures;       /* atomic; of a store, one after the other */
  int moves;           /* atomic; see worker.h */
  GThread *thread;
  GMutex lock; /* of the counters */
  Counters counters;
  Failure trouble;  /* under the lock: what it waits for */
  Metrics *metrics; /* NULL: nobody counts */
};

enum {
  UNBURNT_RETRY_MS = 5000, /* an event that waits for something else to change, not for a store */
};

static inline Lane *home_of(const Worker *worker, const Event *event) {
  return lane_of(worker->lanes, event->aggregate_hash);
}

/* --- items.c --- */

void fail_item(Worker *worker, Item *item, const Failure *failure);
/* The same for an event that waits for something else, and does not pay. */
void hold_item(Worker *worker, Item *item, const Failure *failure);
/* Whether the item is still to be decided, or applied. */
bool is_open(const Item *item);
size_t count_open(const Item *items, size_t count);

/* --- hand_back.c --- */

ClaimKey claim_key(const Worker *worker);
/* Before anything of the batch is marked or given back: a kill from now on counts no attempt for
 * it. Tries until it works or the worker is to stop. */
void leave_claim(Worker *worker);
/* MongoDB answers, and will not have the mark: the document would grow beyond its limit, or a
 * validator is against it. */
bool is_refusal(const Failure *failure);
/* After a mark that failed: whether to try it again. One that MongoDB refuses, or that it is too
 * late for, is left to the sweeper. */
bool mark_again(Worker *worker, const Failure *failure);
/* Gives events back unharmed: to the outbox, and to the queue when nothing holds their aggregate.
 */
void give_back(Worker *worker, QueuedEvent *const *events, size_t count);
/* What repeats for an event is told once in ten seconds, with a count. */
void log_event(Worker *worker, LogLevel level, const char *message, const Event *event,
               const Failure *failure);
/* MongoDB will not have the event's mark: told in the log, by `list` and by the page. */
void tell_refused(Worker *worker, const Event *event, const Failure *failure);

/* --- claim.c --- */

/* Claims the events and makes items of those that are ours and may be applied now; the others leave
 * the worker. Returns false when a store failed, and the events are in the queue again. */
bool claim(Worker *worker, QueuedEvent **events, size_t count, Item *items, size_t *ret_count,
           Failure *ret_failure);
/* The worker ends. */
void end_claims(Worker *worker);

/* --- transaction.c --- */

/* A session that works, opened when there is none. */
bool ensure_session(Worker *worker, Failure *ret_failure);
/* Applies the items, in as many transactions as it takes: the good ones are applied, the culprits
 * of failures found by halving. What is left undecided has VERDICT_NONE: after false, when the
 * store or this owner cannot continue, or when events of other workers met a lock. */
bool apply(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* Whether the events are all of the worker's own lane. */
bool all_own(const Worker *worker, const Item *items, size_t count);
/* After a failure of the items. Whoever keeps a row or a table locked makes everything wait that is
 * taken together with it: so for a while their lanes are not, and those that the worker has
 * without events of them are free. True: the batch has events of other workers, and what is not
 * done is to be given back. */
bool part_at_lock(Worker *worker, const Item *items, size_t count, bool batch_is_own,
                  const Failure *failure);
/* After a failure that leaves no session to continue with. What may still run in one that broke is
 * ended by the next probe: it keeps its locks. */
void part_with_session(Worker *worker, const Failure *failure);
/* Pauses before a transaction is tried for another time. Returns false when it is to stop. */
bool replay_pause(Worker *worker, int replays);

/* --- ruling.c --- */

typedef struct Tries {
  int replays;   /* how often the transaction was tried, from 1 */
  int64_t begun; /* when its batch was tried first; monotonic, us */
} Tries;

/* Says what the failure of a transaction of these items means, asking the server when it has to;
 * never RULING_PROBE. What is the store's fault gets a class that says so. */
Ruling rule(Worker *worker, const Item *items, size_t count, Tries tries, Failure *failure);
/* Whether the server works, on a connection of its own. */
bool ask_server(Worker *worker, Failure *ret_failure);
/* After a lock wait: if the whole table is locked, its events wait (true), and for a while later
 * ones are not tried. */
bool hold_locked_table(Worker *worker, Item *items, size_t count, const Projection *projection,
                       const Failure *failure);
/* One event failed alone at the rows. True: several aggregates of the projection did; it is not
 * this event's fault, and for a while the others are not tried. */
bool tally(Worker *worker, const Item *one, const Projection *projection, const Failure *failure);
/* Before a batch: what belongs to a locked table waits. */
void hold_behind_gates(Worker *worker, Item *items, size_t count);
/* After it: what was to show whether a table takes events again has done so, or another may. */
void end_trials(Worker *worker, const Item *items, size_t count);
/* Before a batch: what has a time that is far ahead of MongoDB's clock waits for it. */
void hold_early(Worker *worker, Item *items, size_t count);
/* Nothing is held against what was applied, nor against its tables. */
void acquit(Worker *worker, const Item *items, size_t count);

/* --- settle.c --- */

/* Every event of the batch leaves the worker here. Returns false when a store failed under way;
 * what could not be decided has been given back. */
bool settle(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* A store is away: what was not applied says so in the outbox, and keeps its attempt and its place
 * in the queue. */
void settle_outage(Worker *worker, Item *items, size_t count, const Failure *failure);

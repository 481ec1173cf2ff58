/* worker.h - what the files of the pipeline share: pipeline.c calls the steps in claim.c,
 * transaction.c and settle.c. */
#pragma once

#include "projector/app/metrics.h"
#include "projector/app/pipeline.h"
#include "projector/infra/log.h"

struct Worker {
  const Config *config;
  const Ledger *ledger;
  const Shards *shards;
  unsigned number; /* of its own shard */
  Acker *acker;
  Stop *stop;
  Outbox *outbox;
  Session *session; /* NULL: to be opened */
  Arena *arena;     /* of the batch in hand */
  GRand *random;
  Event **taken; /* room for a batch */
  gint failures; /* atomic; of a store, one after the other */
  int moves;     /* atomic; see pipeline.h */
  GThread *thread;
  GMutex lock; /* of the counters */
  Counters counters;
  Metrics *metrics; /* NULL: nobody counts */
};

enum {
  UNBURNT_RETRY_MS = 5000, /* an event that waits for something else to change, not for a store */
};

static inline Shard *home_of(const Worker *worker, const Event *event) {
  return shard_of(worker->shards, event->aggregate_hash);
}

/* --- claim.c --- */

/* Claims the events and makes items of those that are ours and may be applied now; the others leave
 * the worker. False: a store failed, and the events are in the queue again. */
bool claim(Worker *worker, Event **events, size_t count, Item *items, size_t *ret_count,
           Failure *ret_failure);
/* MongoDB answers, and will not have the mark: the document would grow beyond its limit, or a
 * validator is against it. */
bool is_refusal(const Failure *failure);

/* --- transaction.c --- */

/* A session that works, opened when there is none. */
bool ensure_session(Worker *worker, Failure *ret_failure);
/* Applies the items, in as many transactions as it takes: the good ones are applied, the culprits
 * of failures found by halving. What is left undecided has VERDICT_NONE: after false, when the
 * store or this owner cannot go on, or when events of other workers met a lock. */
bool apply(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* Whether the events are all of the worker's own shard. */
bool all_own(const Worker *worker, const Item *items, size_t count);
/* After a failure of the items. Whoever keeps a row or a table locked makes everything wait that is
 * taken together with it: so for a while their shards are not, and those that the worker has
 * without events of them are free. True: the batch has events of other workers, and what is not
 * done is to be given back. */
bool part_at_lock(Worker *worker, const Item *items, size_t count, bool batch_is_own,
                  const Failure *failure);
void fail_item(Worker *worker, Item *item, const Failure *failure);
/* Pauses before a transaction is tried for another time. False: it is to stop. */
bool replay_pause(Worker *worker, int replays);
/* Whether a transaction of that failure, first tried at `begun` (monotonic, us), is tried again. */
bool is_worth_a_replay(const Failure *failure, int replays, int64_t begun);

/* --- settle.c --- */

/* Every event of the batch leaves the worker here. False: a store failed under way; what could not
 * be decided has been given back. */
bool settle(Worker *worker, Item *items, size_t count, Failure *ret_failure);
/* A store is away: what was not applied says so in the outbox, and keeps its attempt and its place
 * in the queue. */
void settle_outage(Worker *worker, Item *items, size_t count, const Failure *failure);
/* Gives events back unharmed: to the outbox, and to the queue when nothing holds their aggregate.
 */
void give_back(Worker *worker, Event *const *events, size_t count);
void log_event(LogLevel level, const char *message, const Event *event, int attempt,
               const Failure *failure);

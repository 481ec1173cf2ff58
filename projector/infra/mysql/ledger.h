/* ledger.h - the projector's own tables: what was applied, how far, and who may.
 *
 * All calls but ledger_take_fence run inside the transaction that also changes the rows. The tables
 * are in sql/. */
#pragma once

#include "projector/domain/plan.h"
#include "projector/infra/mysql/session.h"

typedef struct Ledger {
  const char *projector; /* name of the mapping file: letters, digits, - _ . */
  int64_t epoch;         /* of this owner; 0: a command beside the owner, works exclusively */
} Ledger;

/* Becomes the owner: raises the epoch, which shuts every earlier owner out. Its own transaction. */
bool ledger_take_fence(Session *session, const char *projector, const char *owner,
                       int64_t *ret_epoch, Failure *ret_failure);

/* First in every transaction. The owner: FAILURE_FENCED when another owner has raised the epoch,
 * else a shared lock on it until the transaction ends, so that the next owner waits for us. A
 * command: an exclusive lock, so that the owner's transactions wait for it, whoever that is. */
bool ledger_enter(Session *session, const Ledger *ledger, Failure *ret_failure);

/* Fills and locks the positions of the set's aggregates. Event ids go into the arena. */
bool ledger_read_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                           Arena *arena, Failure *ret_failure);
bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure);

/* Inserts the items whose verdict belongs there. `*ret_repeated` tells that at least one id is
 * there already; the transaction must then be rolled back. */
bool ledger_insert(Session *session, const Ledger *ledger, const Item *items, size_t count,
                   bool *ret_repeated, Failure *ret_failure);
/* Sets VERDICT_KNOWN on the items that the ledger has. */
bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure);

/* --- pruning --- */

typedef struct LedgerIds {
  Arena *arena;
  GArray *ids; /* of Id */
} LedgerIds;

/* Up to `limit` ids that were applied longer ago than that, the oldest first. */
bool ledger_find_old(Session *session, const Ledger *ledger, int64_t older_than_s, unsigned limit,
                     LedgerIds *ids, Failure *ret_failure);
/* Forgets the ids. The caller has made sure that their events cannot come again. */
bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids, Failure *ret_failure);

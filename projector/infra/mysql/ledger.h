/* ledger.h - the projector's own tables: applied events, positions, and the fence.
 *
 * All writes except ledger_forget run inside the transaction that also changes the rows. The tables
 * are in sql/. */
#pragma once

#include "projector/domain/plan.h"
#include "projector/infra/mysql/positions.h"
#include "projector/infra/mysql/session.h"

typedef struct Ledger {
  const char *projector; /* name of the mapping file: letters, digits, - _ . */
  int64_t epoch;         /* of this owner; 0: a command beside the owner, with the exclusive lock */
  bool held;             /* another session of this command holds the fence for it */
} Ledger;

/* First in every transaction: the fence, then the positions of the set's aggregates, which are
 * filled in and locked; event ids go into the arena.
 *
 * The owner: FAILURE_FENCED when another owner has raised the epoch, FAILURE_CONFIG when it has
 * fallen back; otherwise a shared lock on it until the transaction ends, so that the next owner
 * waits for us. A command: an exclusive lock, so that any owner's transactions wait for it. */
bool ledger_enter(Session *session, const Ledger *ledger, AggregateSet *aggregates, Arena *arena,
                  Failure *ret_failure);
/* Fills in the positions without a lock, outside a transaction too. */
bool ledger_look_at_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                              Arena *arena, Failure *ret_failure);
bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure);

/* Inserts the items whose verdict is recorded there. `*ret_repeated`: at least one id already
 * exists, and the transaction must be rolled back. */
bool ledger_insert(Session *session, const Ledger *ledger, const Item *items, size_t count,
                   bool *ret_repeated, Failure *ret_failure);
/* Sets VERDICT_KNOWN on the items that the ledger contains, and `skipped` on their events. */
bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure);

/* The server's time in the form of applied_at. */
enum { LEDGER_TIME_SIZE = 32 };

typedef struct LedgerEntry {
  const char *outcome; /* static; NULL: the ledger does not have the event */
  char applied_at[LEDGER_TIME_SIZE];
} LedgerEntry;

/* The ledger entry of each item, whose verdicts do not change: `ret_entries` has as many zeroed
 * elements. */
bool ledger_find_entries(Session *session, const Ledger *ledger, const Item *items, size_t count,
                         LedgerEntry *ret_entries, Failure *ret_failure);

/* --- pruning --- */

typedef struct LedgerIds {
  Arena *arena;
  GArray *ids; /* of Id */
} LedgerIds;

/* What counts as old. MySQL wrote the times by its own clock; if that was put ahead since then,
 * `now_ms` (since 1970) tells that less time has passed. */
typedef struct LedgerAge {
  int64_t now_ms, older_than_s;
} LedgerAge;

/* Up to `limit` ids of that age, the oldest first, without the first `skip`. */
bool ledger_find_old(Session *session, const Ledger *ledger, const LedgerAge *age, unsigned skip,
                     unsigned limit, LedgerIds *ids, Failure *ret_failure);
/* Deletes the entries. The caller guarantees that their events cannot appear again. */
bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids, Failure *ret_failure);

/* --- size --- */

/* How many entries the ledger has, of all names, as the server estimates it. */
bool ledger_estimate_rows(Session *session, int64_t *ret_rows, Failure *ret_failure);
/* --- replays: a ledger of their own (`scope`) beside that of the projector (`live`) --- */

/* The time at a moment when no transaction of the owner is open: entries with an earlier applied_at
 * are committed, later ones get this time or a later one. ledger_mark takes the fence's exclusive
 * lock for the moment, ledger_hold until the session's transaction ends. */
bool ledger_hold(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure);
bool ledger_mark(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure);
/* How long ago that time was. */
bool ledger_age_ms(Session *session, const char *time, int64_t *ret_ms, Failure *ret_failure);

/* Sets the items' verdicts from the ledger: VERDICT_KNOWN, VERDICT_SKIPPED, or VERDICT_WAIT when it
 * recorded the event at `since` or later. */
bool ledger_judge(Session *session, const Ledger *live, const char *since, Item *items,
                  size_t count, Failure *ret_failure);

typedef struct LedgerSpan {
  const char *since; /* inclusive, */
  int64_t margin_s;  /* less so many seconds */
  const char *until; /* exclusive */
} LedgerSpan;

/* Ids that the live ledger recorded in that span and the scope lacks, without skipped ones. */
bool ledger_find_due(Session *session, const Ledger *live, const Ledger *scope,
                     const LedgerSpan *span, LedgerIds *ids, Failure *ret_failure);
/* `until`, or an earlier time when more than `limit` entries lie between. */
bool ledger_page_end(Session *session, const Ledger *live, const char *since, const char *until,
                     unsigned limit, char ret_end[static LEDGER_TIME_SIZE], Failure *ret_failure);

/* The aggregates whose row was refreshed to a version above the highest that the scope has; at most
 * `limit` at a time. */
PositionWalk *ledger_walk_refreshed(const Ledger *live, const Ledger *scope,
                                    const char *aggregate_type, unsigned limit);
/* Those of which the scope has no position. */
PositionWalk *ledger_walk_unshared(const Ledger *live, const Ledger *scope,
                                   const char *aggregate_type, unsigned limit);
/* Deletes the whole ledger and its fence, in small steps. */
bool ledger_clear(Session *session, const char *projector, Failure *ret_failure);

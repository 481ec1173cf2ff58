/* ledger.h - the projector's own tables: what was applied, how far, and who may.
 *
 * What writes runs inside the transaction that also changes the rows, but for ledger_forget. The
 * tables are in sql/. */
#pragma once

#include "projector/domain/plan.h"
#include "projector/infra/mysql/session.h"

typedef struct Ledger {
  const char *projector; /* name of the mapping file: letters, digits, - _ . */
  int64_t epoch;         /* of this owner; 0: a command beside the owner, works exclusively */
  bool held;             /* another session of this command holds the fence for it */
} Ledger;

/* First in every transaction: the fence, then the positions of the set's aggregates, which are
 * filled in and locked; event ids go into the arena.
 *
 * The owner: FAILURE_FENCED when another owner has raised the epoch, FAILURE_CONFIG when it has
 * fallen back, else a shared lock on it until
 * the transaction ends, so that the next owner waits for us. A command: an exclusive lock, so that
 * the owner's transactions wait for it, whoever that is. */
bool ledger_enter(Session *session, const Ledger *ledger, AggregateSet *aggregates, Arena *arena,
                  Failure *ret_failure);
/* Fills in the positions without a lock, outside a transaction too. */
bool ledger_look_at_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                              Arena *arena, Failure *ret_failure);
bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure);

/* Inserts the items whose verdict belongs there. `*ret_repeated` tells that at least one id is
 * there already; the transaction must then be rolled back. */
bool ledger_insert(Session *session, const Ledger *ledger, const Item *items, size_t count,
                   bool *ret_repeated, Failure *ret_failure);
/* Sets VERDICT_KNOWN on the items that the ledger has, and `skipped` on their events. */
bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure);

/* The server's time as it stands in applied_at. */
enum { LEDGER_TIME_SIZE = 32 };

typedef struct LedgerEntry {
  const char *outcome; /* static; NULL: the ledger does not have the event */
  char applied_at[LEDGER_TIME_SIZE];
} LedgerEntry;

/* What the ledger says of each item, whose verdicts stay: `ret_entries` has as many, of zeros. */
bool ledger_find_entries(Session *session, const Ledger *ledger, const Item *items, size_t count,
                         LedgerEntry *ret_entries, Failure *ret_failure);

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

/* --- size --- */

/* How many entries the ledger has, of all names, as the server estimates it. */
bool ledger_estimate_rows(Session *session, int64_t *ret_rows, Failure *ret_failure);
/* --- replays: a ledger of their own (`scope`) beside that of the projector (`live`) --- */

/* The time at a moment when no transaction of the owner is open: what has an earlier applied_at is
 * committed, what comes later has this one or a later. Inside a transaction under the fence's
 * exclusive lock; ledger_mark takes that for the moment, ledger_hold until the session's
 * transaction ends. */
bool ledger_time(Session *session, char ret_time[static LEDGER_TIME_SIZE], Failure *ret_failure);
bool ledger_hold(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure);
bool ledger_mark(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure);
/* How long ago that time was. */
bool ledger_age_ms(Session *session, const char *time, int64_t *ret_ms, Failure *ret_failure);

/* What the ledger says of the items: VERDICT_KNOWN, VERDICT_SKIPPED, or VERDICT_WAIT when it got
 * the event at `mark` or later. */
bool ledger_judge(Session *session, const Ledger *live, const char *mark, Item *items, size_t count,
                  Failure *ret_failure);

typedef struct LedgerSpan {
  const char *since; /* inclusive, */
  int64_t margin_s;  /* less so many seconds */
  const char *until; /* exclusive */
} LedgerSpan;

/* Ids that the live ledger got in that span and that the scope has not; skipped ones left out. */
bool ledger_find_due(Session *session, const Ledger *live, const Ledger *scope,
                     const LedgerSpan *span, LedgerIds *ids, Failure *ret_failure);
/* `until`, or an earlier time when more than `limit` entries lie between. */
bool ledger_page_end(Session *session, const Ledger *live, const char *since, const char *until,
                     unsigned limit, char ret_end[static LEDGER_TIME_SIZE], Failure *ret_failure);

/* Aggregates of the type whose rows were refreshed to a version above the highest that the scope
 * has; the arena gets them. */
typedef struct RefreshedTo {
  Aggregate aggregate;
  int64_t version;
} RefreshedTo;

bool ledger_find_refreshed(Session *session, const Ledger *live, const Ledger *scope,
                           const char *aggregate_type, Arena *arena, GArray *refreshed,
                           Failure *ret_failure);
/* Forgets all that the ledger has, its fence too; in small steps. */
bool ledger_clear(Session *session, const char *projector, Failure *ret_failure);

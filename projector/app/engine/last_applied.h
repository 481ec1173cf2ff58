/* last_applied.h - remembers the event that each worker committed last, to notice that MySQL has
 * lost one.
 *
 * The epoch proves a loss only if the owner has changed since the backup. In between, every new
 * session of the owner asks for these events, and the lease keeps the last one for the next owner.
 * One for each worker, because the answers to two COMMITs may come in another order than that of
 * the binary log, of which a failover may lose the end. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/domain/plan.h"
#include "projector/infra/mysql/loss.h"

typedef struct LastApplied LastApplied;

LastApplied *last_applied_new(const Config *config);
void last_applied_free(LastApplied *last);

/* Call after COMMIT. `now_ms`: since 1970, by MongoDB's clock. */
void last_applied_note(LastApplied *last, unsigned worker, const Item *items, size_t count,
                       int64_t now_ms);
/* How many events were entered into the ledger so far. */
int64_t last_applied_entered(LastApplied *last);
/* Call after a COMMIT that was not answered. */
void last_applied_doubt(LastApplied *last, unsigned worker, const Item *items, size_t count,
                        int64_t now_ms);
/* Call when the ledger was asked for these items: it may know those of a COMMIT that was not
 * answered. */
void last_applied_settle(LastApplied *last, unsigned worker, const Item *items, size_t count);
/* What the claim of a former owner's worker says, beside all that is known. */
void last_applied_add(LastApplied *last, const LastCommit *event);
/* What the lease says, instead of all that is known; NULL: nothing. */
void last_applied_set(LastApplied *last, const LastCommit *event);
/* The last of all workers. */
LastCommit last_applied_get(LastApplied *last);
/* That of one worker; at_ms 0: none. */
LastCommit last_applied_of(LastApplied *last, unsigned worker);
/* Its entry was pruned. */
void last_applied_forget(LastApplied *last, const Id *event_id);

/* Whether the session's server has the events, as far as that can be told: an entry that is old may
 * have been pruned. FAILURE_UNAVAILABLE for some seconds, because a server may lag behind another
 * one; then FAILURE_CONFIG. */
bool last_applied_check(LastApplied *last, Session *session, int64_t now_ms, Failure *ret_failure);
/* Whether one was missing when it was looked for last. */
bool last_applied_is_missing(LastApplied *last);
/* Forgets all that were not: the lease then keeps one that was. */
void last_applied_keep_missing(LastApplied *last);

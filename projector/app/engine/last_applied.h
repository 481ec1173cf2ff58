/* last_applied.h - remembers the event that was committed last, to notice that MySQL has lost it.
 *
 * The epoch proves a loss only if the owner has changed since the backup. In between, every new
 * session of the owner asks for the last event, and the lease keeps it for the next owner. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/domain/plan.h"
#include "projector/infra/mysql/loss.h"

typedef struct LastApplied LastApplied;

LastApplied *last_applied_new(const Config *config);
void last_applied_free(LastApplied *last);

/* Call after COMMIT. `now_ms`: since 1970, by MongoDB's clock. */
void last_applied_note(LastApplied *last, const Item *items, size_t count, int64_t now_ms);
/* What the lease says; NULL: forgets the event. */
void last_applied_set(LastApplied *last, const LastCommit *event);
LastCommit last_applied_get(LastApplied *last);
bool last_applied_is(LastApplied *last, const Id *event_id);

/* Whether the session's server has the event, as far as that can be told: an entry that is old may
 * have been pruned. FAILURE_UNAVAILABLE for some seconds, because a server may lag behind another
 * one; then FAILURE_CONFIG. */
bool last_applied_check(LastApplied *last, Session *session, int64_t now_ms, Failure *ret_failure);

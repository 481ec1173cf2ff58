/* claim.h - how an event is claimed, and what an abandoned claim means for it. Pure.
 *
 * A claim says that an attempt has begun, so that an event that kills its process is counted too.
 * Nothing competes with a live owner for an event that is pending and was never attempted: lease
 * and fence decide which process is the owner (docs/adr/0005-ownership.md). Such events are claimed
 * by the batch, in one document of their worker; all others in their own
 * (docs/adr/0023-claims-by-batch.md). */
#pragma once

#include "projector/domain/event.h"

/* Whether the event, as it was read, is claimed by the batch. */
bool claim_goes_by_batch(const Event *event);

/* Whether an event read at `read_at` (0: long ago) may have been changed by an operator since,
 * because the worker was stalled until `stalled_until`. Then it is looked up in the outbox again.
 * Monotonic, us. */
bool claim_is_outdated(int64_t read_at, int64_t stalled_until);

/* Whether the document, as it was found again, is no longer what was read, and marked since by this
 * worker: an operator has retried it, perhaps with another payload. In progress it is by an earlier
 * claim of this worker, or is refused when it is claimed. */
bool claim_has_changed(const Event *read, const Event *found);

/* Whether the events of a batch claimed at `claimed_at` have to be marked in progress in their own
 * documents, because it has not committed for `mark_ms`. Monotonic, us. */
bool claim_is_slow(int64_t claimed_at, int64_t now, int64_t mark_ms);

/* An event with this many attempts is a batch of its own. */
bool claim_comes_alone(int attempts);

/* Whether no other event may be in hand beside it, of any worker: so if it kills its process, it
 * takes no others with it. Not for one that was read as failed, because its retries may wait for
 * locks. */
bool claim_runs_alone(const Event *event);

/* Whether an event that was abandoned has used up its attempts (they include the last one): never
 * before it has run alone. */
bool claim_is_spent(const Event *event, int64_t max_attempts);

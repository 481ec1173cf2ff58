/* claim.h - how an event is claimed, and what a claim that nobody ends any more means for it. Pure.
 *
 * A claim says that an attempt has begun, so that an event that kills its process is counted too.
 * Nobody competes with a live owner for an event that is pending and was never attempted: lease and
 * fence decide who that is (docs/adr/0005-ownership.md). Such events are claimed by the batch, in
 * one document of their worker; all others in their own (docs/adr/0023-claims-by-batch.md). */
#pragma once

#include "projector/domain/event.h"

/* Whether the event, as it was read, is claimed by the batch. */
bool claim_goes_by_batch(const Event *event);

/* Whether what was read at `read_at` (0: long ago) can have changed by hand since: the worker has
 * been standing still until `stalled_until`. Then the outbox is asked again. Monotonic, us. */
bool claim_is_outdated(int64_t read_at, int64_t stalled_until);

/* Whether a batch claimed at `claimed_at` is to say in its events' own documents that they are in
 * progress, because it has not committed for `mark_ms`. Monotonic, us. */
bool claim_is_slow(int64_t claimed_at, int64_t now, int64_t mark_ms);

/* An event that was attempted so often comes alone: should it kill its process, it takes no others
 * with it. */
bool claim_comes_alone(int attempts);

/* Whether an event that ended its process has used up its attempts, the last of which `attempts`
 * counts: never before one that it had alone. */
bool claim_is_spent(int attempts, int64_t max_attempts);

/* claims.h - claims by the batch: one document per worker in the collection projector_claims.
 *
 *   { _id: "<name>/<claimed_by>/<worker>", name, outbox, claimed_by, worker, epoch, claimed_at,
 *     events: [ids], committed: { event_id, kind, at } }
 *
 * It names the events that the worker has in hand, all of them pending and without an attempt when
 * they were read; the next batch replaces it. An event in it may since have been applied and
 * removed: committed events are not taken out of it. `committed` is the event that the worker
 * committed last, so that the next owner notices when MySQL has lost it. All functions may be
 * repeated when their answer was lost. See docs/adr/0023-claims-by-batch.md. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct ClaimKey {
  const char *name; /* of the projector */
  int64_t epoch;
  unsigned worker;
} ClaimKey;

/* Records that the worker has exactly these events in hand. */
bool claims_write(Outbox *outbox, const ClaimKey *key, Event *const *events, size_t count,
                  const LastCommit *committed, Failure *ret_failure);
/* The worker ends, and has nothing in hand. */
bool claims_remove(Outbox *outbox, const ClaimKey *key, Failure *ret_failure);

/* Marks events claimed by the batch as in progress in their own documents, with one attempt, as
 * outbox_claim would: only those that are as they were read. `ids` is an array of ids, as
 * event_append_id makes it. */
bool claims_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure);

/* --- claims of former owners --- */

typedef struct AbandonedClaim {
  bson_t *document;
  GPtrArray *events;    /* of Event: ids, nothing else */
  LastCommit committed; /* at_ms 0: nothing that is known */
} AbandonedClaim;

/* Takes over the document; `events` is empty. */
AbandonedClaim *abandoned_claim_new(bson_t *document);
void abandoned_claim_free(AbandonedClaim *claim);
/* Lets the array free its claims. */
void abandoned_claims_own(GPtrArray *claims);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AbandonedClaim, abandoned_claim_free)

/* The claims of owners of that name with a lower epoch: AbandonedClaim, freed by the array. Reads
 * from the primary with local read concern. */
bool claims_find_abandoned(Outbox *outbox, const char *name, int64_t epoch, GPtrArray *ret_claims,
                           Failure *ret_failure);
/* Counts the attempt that the claim was for in those of the events that are as they were read. */
bool claims_count_attempt(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);
/* Deletes the claim, unless it was rewritten; the last step, after its attempts were counted. */
bool claims_forget(Outbox *outbox, const AbandonedClaim *claim, Failure *ret_failure);

/* --- for status, list and explain --- */

/* The ids in all claims on this outbox: a set of Id. Those of them whose events are in the outbox
 * and pending are in progress. NULL on failure. */
GHashTable *claims_in_hand(Outbox *outbox, Failure *ret_failure);
/* Sets that state in an event that was read. */
void claims_show(const GHashTable *in_hand, Event *event);
/* {"_id": {"$in": the ids}}, of events that are as they were read. */
void claims_append_filter(bson_t *filter, const GHashTable *in_hand);
/* Whether the user lacks privileges on that collection. */
bool claims_are_forbidden(const Failure *failure);

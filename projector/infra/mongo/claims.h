/* claims.h - claims by the batch: one document per worker in the collection projector_claims.
 *
 *   { _id: "<name>/<claimed_by>/<worker>", name, outbox, claimed_by, worker, epoch, claimed_at,
 * events: [ids] }
 *
 * It names the events that the worker has in hand, all of them pending and without an attempt when
 * they were read; the next batch replaces it. An event in it may have been applied since, and gone:
 * the document is small because nobody takes out what committed. All functions may be repeated when
 * their answer was lost. See docs/adr/0023-claims-by-batch.md. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct ClaimKey {
  const char *name; /* of the projector */
  int64_t epoch;
  unsigned worker;
} ClaimKey;

/* Says that the worker has these events in hand, and no others. */
bool claims_write(Outbox *outbox, const ClaimKey *key, Event *const *events, size_t count,
                  Failure *ret_failure);
/* The worker ends, and has nothing in hand. */
bool claims_remove(Outbox *outbox, const ClaimKey *key, Failure *ret_failure);

/* Marks events claimed by the batch as in progress in their own documents, with one attempt, as
 * outbox_claim would: only those that are as they were read. `ids` is an array of ids, as
 * event_append_id makes it. */
bool claims_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure);

/* --- claims of owners that are no more --- */

typedef struct AbandonedClaim {
  bson_t *document;
  GPtrArray *events; /* of Event: ids, nothing else */
} AbandonedClaim;

void abandoned_claim_free(AbandonedClaim *claim);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AbandonedClaim, abandoned_claim_free)

/* The claims of owners of that name with a lower epoch: AbandonedClaim, freed by the array. Reads
 * what the primary has, majority or not. */
bool claims_find_abandoned(Outbox *outbox, const char *name, int64_t epoch, GPtrArray *ret_claims,
                           Failure *ret_failure);
/* Counts the attempt that the claim was for in those of the events that are as they were read. */
bool claims_count_attempt(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);
/* Deletes the claim, unless it was written again; last, when what it was for is counted. */
bool claims_forget(Outbox *outbox, const AbandonedClaim *claim, Failure *ret_failure);

/* --- for people --- */

/* The ids in all claims on this outbox: a set of Id. Those of them whose events are in the outbox
 * and pending are in progress. NULL on failure. */
GHashTable *claims_in_hand(Outbox *outbox, Failure *ret_failure);
/* Says so in an event that was read. */
void claims_show(const GHashTable *in_hand, Event *event);
/* {"_id": {"$in": the ids}}, of events that are as they were read. */
void claims_append_filter(bson_t *filter, const GHashTable *in_hand);
/* Whether the user has no right to that collection. */
bool claims_are_forbidden(const Failure *failure);

/* sweeper.h - finds events that were left in_progress and finishes or frees them; prunes the
 * ledger. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

/* The sweeper's connections and settings. */
typedef struct Sweep {
  const Config *config;
  Session *session;
  const Ledger *ledger;
  Outbox *outbox;
  const Lanes *lanes;
  int64_t now_ms; /* by MongoDB's clock, since 1970: nothing is pruned that is young by it */
} Sweep;

/* Handles events that are in_progress: those that the ledger contains are acknowledged, the others
 * go back to pending, or to dead when they have no attempts left. `older_than_ms` by the
 * server's clock; 0 at the start of an ownership, when no other process can be working. Events in
 * the lanes' memory are live and left alone; a claim of this owner that they do not contain was
 * lost, for example because its acknowledgement met a renamed collection. `*ret_found` counts the
 * handled events. FAILURE_FENCED: another owner has taken over, and its work was not touched. */
bool sweep(const Sweep *with, int64_t older_than_ms, int64_t *ret_found, Failure *ret_failure);

/* The claims by the batch of owners before this one: events in the ledger are acknowledged, for the
 * others the attempt is counted, and then the claim is deleted. `*ret_found` counts the events that
 * they named. FAILURE_FENCED as above. */
bool sweep_claims(const Sweep *with, int64_t *ret_found, Failure *ret_failure);

/* Deletes ledger entries older than the retention, in small steps and not all at once; never one
 * whose event is in the outbox. `*ret_pruned` counts. FAILURE_FENCED as above. */
bool prune(const Sweep *with, int64_t *ret_pruned, Failure *ret_failure);

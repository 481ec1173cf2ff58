/* sweeper.h - finds events that were left in_progress and finishes or frees them. */
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
} Sweep;

/* Handles events that are in_progress: those that the ledger contains are acknowledged, the others
 * go back to pending, or to dead when they have no attempts left. Claims older than `older_than_ms`
 * by the server's clock, or dated as far ahead; 0 at the start of an ownership, when no other
 * process can be working. Events in the lanes' memory are live and left alone; a claim of this
 * owner that they do not contain was lost, for example because its acknowledgement met a renamed
 * collection. `*ret_found` counts the handled events. FAILURE_FENCED: another owner has taken over,
 * and its work was not touched. */
bool sweep(const Sweep *with, int64_t older_than_ms, int64_t *ret_found, Failure *ret_failure);

/* The claims by the batch of owners before this one: events in the ledger are acknowledged, for the
 * others the attempt is counted, and then the claim is deleted. `*ret_found` counts the events that
 * they named. FAILURE_FENCED as above. */
bool sweep_claims(const Sweep *with, int64_t *ret_found, Failure *ret_failure);

/* Begins a transaction with the fence held: decisions from the ledger are made in it, so that an
 * owner that has lost the name learns it here, and the next one cannot start to claim in between.
 * FAILURE_FENCED as above. */
bool sweep_enter(Session *session, const Ledger *ledger, Failure *ret_failure);

/* ownership.h - becoming and staying the owner of a name: lease, heartbeat and fence. */
#pragma once

#include "projector/app/engine/last_applied.h"
#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/lease.h"

typedef struct Ownership Ownership;

/* Stands by until the lease is ours and the fence in MySQL has our epoch, then keeps the lease by a
 * heartbeat of its own thread. Losing it, or failing to renew it for two thirds of its time,
 * requests the stop of `tenure` with FAILURE_FENCED. With `once` it stands by no longer than a
 * lease; then it requests the stop of `process` with that reason. NULL: `process` was
 * stopped first. */
Ownership *ownership_acquire(const Config *config, MongoStore *store, Metrics *metrics, bool once,
                             Stop *process, Stop *tenure);
/* Releases the lease if it is still ours, and frees. */
void ownership_release(Ownership *ownership);

/* Releases the lease while the tenure cannot end because it waits for a store. */
void ownership_abandon(const Config *config, MongoStore *store);
/* MongoDB's clock, in ms since 1970: the one by which waiting is measured. */
int64_t ownership_now_ms(Ownership *ownership);
/* As recorded in the lease when it became ours: everything that could be read before is settled. */
int64_t ownership_settled_at(const Ownership *ownership);
/* What is known of the event that was committed last, by this owner or those before it. */
LastApplied *ownership_last_applied(const Ownership *ownership);
/* Sent with the next heartbeat. */
void ownership_report(Ownership *ownership, const OwnerReport *report);
/* Why the lease cannot be renewed: MongoDB refuses the write or does not answer; class NONE: it
 * can. */
Failure ownership_trouble(Ownership *ownership);
/* Whether the projector is paused, as of the last heartbeat. */
PauseState ownership_pause(Ownership *ownership);
int64_t ownership_epoch(const Ownership *ownership);
/* "host:pid#epoch", for claimed_by. */
const char *ownership_claimant(const Ownership *ownership);
/* Whether a nudge has arrived since the last call. */
bool ownership_was_nudged(Ownership *ownership);

/* ownership.h - being the one projector of a name that works: lease, heartbeat and fence. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/lease.h"

typedef struct Ownership Ownership;

/* Stands by until the lease is ours and the fence in MySQL has our epoch, then keeps the lease by a
 * heartbeat of its own thread. Losing it, or not being able to prolong it for two thirds of its
 * time, requests the stop of `tenure` with FAILURE_FENCED. With `once` it stands by no longer than
 * a lease; then it requests the stop of `process` with a failure that says so. NULL: `process` was
 * stopped first. */
Ownership *ownership_acquire(const Config *config, MongoStore *store, Metrics *metrics, bool once,
                             Stop *process, Stop *tenure);
/* Gives the lease back when it is still ours, and frees. */
void ownership_release(Ownership *ownership);

/* Gives the lease back beside a tenure that cannot end, because it waits for a store. */
void ownership_abandon(const Config *config, MongoStore *store);
/* MongoDB's clock, in ms since 1970: the one by which waiting is measured. */
int64_t ownership_now_ms(Ownership *ownership);
/* What the lease said when it became ours: everything that could be read before is settled. */
int64_t ownership_settled_at(const Ownership *ownership);
/* Goes with the next heartbeat. */
void ownership_tell(Ownership *ownership, const LeaseTold *told);
/* What keeps the lease from being prolonged: MongoDB refuses the write, or does not answer it;
 * class NONE: nothing. */
Failure ownership_trouble(Ownership *ownership);
/* Whether a person has paused the projector, as of the last heartbeat. */
PauseState ownership_pause(Ownership *ownership);
int64_t ownership_epoch(const Ownership *ownership);
/* "host:pid#epoch", for claimed_by. */
const char *ownership_claimant(const Ownership *ownership);
/* Whether somebody asked to look at the failed events again since the last call. */
bool ownership_was_nudged(Ownership *ownership);

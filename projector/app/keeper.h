/* keeper.h - everything that happens by time: retries, the end of holds, sweeping.
 *
 * Failed and dead events become holds when they are read; the earliest due hold wakes the keeper.
 * It never waits for room in a queue: what it cannot do now is due again. */
#pragma once

#include "projector/app/config.h"
#include "projector/app/shards.h"
#include "projector/app/stop.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Keeper Keeper;

/* Sweeps what earlier owners left. NULL on failure. */
Keeper *keeper_new(const Config *config, const Ledger *ledger, MongoStore *store, const char *owner,
                   const Shards *shards, Stop *stop, Failure *ret_failure);
/* Waits for the thread, if one was started; request the stop first. */
void keeper_free(Keeper *keeper);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Keeper, keeper_free)
/* Looks at holds that are due, sweeps when it is time. Gives the ms until it should be called
 * again. */
int64_t keeper_step(Keeper *keeper);
/* Runs steps in a thread until the stop is requested. */
void keeper_start(Keeper *keeper);
/* Looks at all holds again, because somebody may have retried or skipped their events. */
void keeper_review(Keeper *keeper);

/* keeper.h - everything that happens by time: retries, the end of holds, sweeping.
 *
 * Failed and dead events of the outbox become holds when an ownership begins; from then on the
 * earliest due hold wakes the keeper. */
#pragma once

#include "projector/app/config.h"
#include "projector/app/shards.h"
#include "projector/app/stop.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Keeper Keeper;

/* Sweeps what earlier owners left, loads the holds, then starts the thread. NULL on failure. */
Keeper *keeper_start(const Config *config, const Ledger *ledger, MongoStore *store,
                     const char *owner, const Shards *shards, Stop *stop, Failure *ret_failure);
/* Waits for the end; request the stop first. Frees. */
void keeper_finish(Keeper *keeper);
/* Looks at all holds again, because somebody may have retried or skipped their events. */
void keeper_review(Keeper *keeper);

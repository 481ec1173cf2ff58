/* janitor.h - everything that happens by time: retries, the end of holds, sweeping.
 *
 * Failed and dead events become holds when they are read; the earliest due hold wakes the janitor.
 * It never waits for room in a queue: what it cannot do now is due again. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Janitor Janitor;

/* Sweeps what earlier owners left. NULL on failure. */
Janitor *janitor_new(const Config *config, const Ledger *ledger, MongoStore *store,
                     const char *owner, const Lanes *lanes, Stop *stop, Failure *ret_failure);
/* Waits for the thread, if one was started; request the stop first. */
void janitor_free(Janitor *janitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Janitor, janitor_free)
/* Looks at holds that are due, sweeps when it is time. Gives the ms until it should be called
 * again. */
int64_t janitor_step(Janitor *janitor);
/* Runs steps in a thread until the stop is requested. */
void janitor_start(Janitor *janitor);
/* How far the reader is behind the inserts, by MongoDB's clock. What it has still to read may have
 * been applied, read behind a hold: the ledger keeps that until then. */
void janitor_note_behind(Janitor *janitor, int64_t behind_ms);
/* Looks at all holds again, because somebody may have retried or skipped their events. */
void janitor_review(Janitor *janitor);

/* janitor.h - everything driven by time: retries, the end of holds, sweeping, pruning.
 *
 * Failed and dead events become holds when they are read; the earliest due hold wakes the janitor.
 * It never waits for room in a queue: work that it cannot do now becomes due again. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/pulse.h"

typedef struct Janitor Janitor;

/* Sweeps events that earlier owners left. NULL on failure. */
Janitor *janitor_new(const Config *config, const Ledger *ledger, MongoStore *store,
                     const char *owner, const Lanes *lanes, Stop *stop, Failure *ret_failure);
/* Waits for the thread, if one was started; request the stop first. */
void janitor_free(Janitor *janitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Janitor, janitor_free)
/* Processes due holds and sweeps, in a thread, until the stop is requested. */
void janitor_start(Janitor *janitor);
/* At work while it processes and sweeps. */
Pulse *janitor_pulse(Janitor *janitor);
/* How far the reader is behind the inserts, by MongoDB's clock. Events that it has yet to read may
 * already have been applied from behind a hold: the ledger keeps them until then. */
void janitor_note_behind(Janitor *janitor, int64_t behind_ms);
/* Checks all holds again, because their events may have been retried or skipped. */
void janitor_review(Janitor *janitor);

/* acker.h - acknowledges committed events beside the workers, many at a time.
 *
 * What has been committed is safe whatever happens here: an event that is not acknowledged is found
 * in the ledger by whoever claims it next. */
#pragma once

#include "projector/app/engine/feeder.h"
#include "projector/app/engine/lanes.h"
#include "projector/app/engine/stop.h"
#include "projector/infra/mongo/outbox.h"

typedef struct Acker Acker;

Acker *acker_new(MongoStore *store, const char *owner, const Lanes *lanes, Stop *stop);
void acker_free(Acker *acker);
/* Before it is started: the feeder, which may be NULL, has to outlive it. */
void acker_heed(Acker *acker, Feeder *feeder);
/* Acknowledges what is queued. Returns false when nothing was (with `wait`: and nothing will be any
 * more). */
bool acker_step(Acker *acker, bool wait);
/* Runs steps in a thread. */
void acker_start(Acker *acker);
/* Waits until what is queued is acknowledged, or, when MongoDB cannot be reached, given up. */
void acker_join(Acker *acker);

/* Hands over events; waits while too much is queued. */
void acker_push(Acker *acker, QueuedEvent *const *events, size_t count);

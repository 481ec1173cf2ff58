/* acker.h - acknowledges committed events beside the workers, many at a time.
 *
 * What has been committed is safe whatever happens here: an event that is not acknowledged is found
 * in the ledger by whoever claims it next. */
#pragma once

#include "projector/app/shard.h"
#include "projector/app/stop.h"
#include "projector/infra/mongo/outbox.h"

typedef struct Acker Acker;

/* Starts the thread. */
Acker *acker_start(MongoStore *store, const char *owner, Stop *stop);
/* Waits until the shards' events that are queued here are acknowledged (or, when MongoDB cannot be
 * reached, gives up), ends the thread and frees. */
void acker_finish(Acker *acker);

/* Hands over events of one shard; waits while too much is queued. */
void acker_push(Acker *acker, Shard *shard, Event *const *events, size_t count);
/* Events acknowledged so far. */
int64_t acker_count(Acker *acker);

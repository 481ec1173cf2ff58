/* pipeline.h - the workers that carry events from the outbox into MySQL. */
#pragma once

#include "projector/app/acker.h"
#include "projector/app/config.h"
#include "projector/app/shard.h"
#include "projector/app/stop.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Counters {
  int64_t applied, superseded, ignored, repeated, failed, dead, refreshed, gaps;
} Counters;

typedef struct Worker Worker;

/* Starts a worker thread on its shard. Everything given must outlive it. A failure that ends all
 * work (fenced, configuration) requests the stop. */
Worker *worker_start(const Config *config, const Ledger *ledger, MongoStore *store,
                     const char *owner, Shard *shard, Acker *acker, Stop *stop);
/* Waits for the end of the running batch; request the stop and call shard_stop first. */
void worker_join(Worker *worker);
void worker_free(Worker *worker);
Counters worker_counters(Worker *worker);

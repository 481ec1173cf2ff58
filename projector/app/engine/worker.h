/* worker.h - the workers that carry events from the outbox into MySQL. */
#pragma once

#include "projector/app/engine/acker.h"
#include "projector/app/engine/hand.h"
#include "projector/app/engine/lanes.h"
#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/pulse.h"

typedef struct Counters {
  int64_t applied, superseded, ignored, repeated, failed, gaps;
} Counters;

typedef struct Worker Worker;

/* Shared by the workers of an owner; must outlive them. */
typedef struct WorkerParts {
  const Config *config;
  const Ledger *ledger;
  MongoStore *store;
  const char *owner; /* for claimed_by */
  const Lanes *lanes;
  Acker *acker;
  Stop *stop; /* requested by a failure that ends all work: fenced, configuration */
} WorkerParts;

/* `number`: of its own lane. */
Worker *worker_new(const WorkerParts *parts, unsigned number);
void worker_free(Worker *worker);
/* Counts there, which must outlive it; before the first step. */
void worker_count_in(Worker *worker, Metrics *metrics);
/* Takes and projects batches in a thread until the stop is requested; to end it at once, stop the
 * lanes too. */
void worker_start(Worker *worker);
/* Waits for the end of the running batch. */
void worker_join(Worker *worker);
/* At work while it has a batch. */
Pulse *worker_pulse(Worker *worker);
/* What the marker looks at. */
Hand *worker_hand(Worker *worker);
Counters worker_counters(Worker *worker);
/* The failure that the worker waits out; class NONE: none. */
Failure worker_trouble(Worker *worker);
/* Whether it waits for a store to come back. */
bool worker_is_waiting(Worker *worker);

/* numberer.h - assigns sequence numbers to archived events while this process is the owner (see
 * infra/mongo/numbering.h). It works in small pages with pauses, so that a backlog is applied
 * before it is numbered. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/infra/mongo/store.h"
#include "projector/infra/pulse.h"

typedef struct Numberer Numberer;

/* For one ownership. NULL: there is no archive. */
Numberer *numberer_new(MongoStore *store, int64_t epoch, Metrics *metrics, Stop *stop);
/* Once the stop was requested and everything is archived: numbers what is left, for `most_ms` at
 * most, since the lease is no longer renewed, and until `process` is stopped too. For an owner that
 * ends because its work is done. NULL is allowed. */
void numberer_complete(Numberer *numberer, Stop *process, int64_t most_ms);
/* Waits for the thread, if one was started; request the stop first. */
void numberer_free(Numberer *numberer);
/* Numbers them in a thread until the stop is requested. NULL is allowed. */
void numberer_start(Numberer *numberer);
/* At work while it numbers a page. NULL of NULL. */
Pulse *numberer_pulse(Numberer *numberer);

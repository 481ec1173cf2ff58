/* acker.h - acknowledges committed events in its own thread, many at a time.
 *
 * A failure here is harmless: an event that is not acknowledged is found in the ledger when it is
 * claimed next. One that MongoDB refuses to copy, into a feed or into the archive, stays in the
 * outbox, is reported and tried again; its aggregate waits behind it, and nothing else does. */
#pragma once

#include "projector/app/engine/feeder.h"
#include "projector/app/engine/lanes.h"
#include "projector/app/engine/metrics.h"
#include "projector/app/engine/stop.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/pulse.h"

typedef struct Acker Acker;

Acker *acker_new(MongoStore *store, const char *owner, const Lanes *lanes, Stop *stop);
void acker_free(Acker *acker);
/* Call before it is started. The feeder, which may be NULL, must outlive it. */
void acker_heed(Acker *acker, Feeder *feeder);
void acker_count_in(Acker *acker, Metrics *metrics);
/* Acknowledges queued events in a thread. */
void acker_start(Acker *acker);
/* At work while it acknowledges. */
Pulse *acker_pulse(Acker *acker);
/* Waits until the queued events are acknowledged or, when MongoDB cannot be reached, given up. */
void acker_join(Acker *acker);

/* Hands over events; waits while too much is queued. */
void acker_push(Acker *acker, QueuedEvent *const *events, size_t count);

/* marker.h - marks events in the outbox that have been in a worker's hand for long.
 *
 * A batch is claimed in one document of its worker, which does not show in an event's own document.
 * After `claim_mark_ms` without COMMIT its events are marked in their own documents. Never faster
 * than MARKS_MAX in PACE_MS, so as not to double the load of a store that is already slow. */
#pragma once

#include "projector/app/engine/hand.h"
#include "projector/app/engine/stop.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/pulse.h"

typedef struct Marker Marker;

/* `hands` of the workers; all of it must outlive the marker. */
Marker *marker_start(const Config *config, MongoStore *store, const char *owner, Hand *const *hands,
                     unsigned count, Stop *stop);
/* At work while it marks. */
Pulse *marker_pulse(Marker *marker);
/* Waits for the thread; request the stop first. */
void marker_finish(Marker *marker);

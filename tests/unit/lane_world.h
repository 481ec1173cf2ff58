/* lane_world.h - events for the tests of a lane, and what it gives out, as text. */
#pragma once

#include "projector/app/engine/lane.h"
#include "tests/unit/support.h"

enum { LIMIT = 10 };

extern const LaneLimits roomy;
extern const Taking usual;

/* The event `aggregate`-`time`. */
QueuedEvent *event_of(const char *aggregate, int64_t time, const char *status, int attempts);
QueuedEvent *pending(const char *aggregate, int64_t time);
/* One of several at that time. */
QueuedEvent *twin(const char *id, const char *aggregate, int64_t time);

/* Takes everything there is, as "a-1 a-2", and keeps it in `taken`. The text lives until the next
 * call. */
const char *take(Lane *lane, GPtrArray *taken);
QueuedEvent *last(const GPtrArray *taken);

/* What is due; at most one hold is expected. */
bool look(Lane *lane, HoldView *ret_view);

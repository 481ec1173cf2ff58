/* pace.h - whether, and how fast, workers may take events: a pause, a rate, a replica that lags.
 *
 * A batch in hand is finished in any case. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Pace Pace;

Pace *pace_new(void);
void pace_free(Pace *pace);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Pace, pace_free)

void pace_set_paused(Pace *pace, bool paused);
/* Events per second of all workers together; 0: as fast as it goes. */
void pace_set_rate(Pace *pace, int64_t per_s);
/* A replica lags, or its lag is not known. */
void pace_set_lagging(Pace *pace, bool lagging);

/* Whether taking is stopped; never with NULL. */
bool pace_is_stopped(Pace *pace);
/* How many of `most` events may be taken now; if none, waits a fraction of a second. With NULL
 * always all. */
size_t pace_grant(Pace *pace, size_t most);
/* Returns unused grants. */
void pace_return(Pace *pace, size_t count);

/* pace.h - whether, and how fast, workers may take events: a pause, a rate, a replica that lags.
 *
 * What a worker has in hand is finished whatever is set here. */
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

/* Whether nothing may be taken; NULL never stops. */
bool pace_is_stopped(Pace *pace);
/* How many of `most` events may be taken now: while it is none, waits a fraction of a second. With
 * NULL it is always all. */
size_t pace_grant(Pace *pace, size_t most);
/* So many of the granted were not there. */
void pace_return(Pace *pace, size_t count);

/* throttle.h - a thread that sets the pace: the rate of the mapping file, and whether a replica of
 * MySQL lags. Both are live: it reads the file again when it has changed. */
#pragma once

#include "projector/app/engine/metrics.h"
#include "projector/app/engine/pace.h"
#include "projector/app/shared/config.h"

typedef struct Throttle Throttle;

/* Everything given must outlive it. */
Throttle *throttle_start(const Config *config, Pace *pace, Metrics *metrics);
void throttle_free(Throttle *throttle);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Throttle, throttle_free)

/* stop.h - the one way to stop the parts of a running projector, with the reason. */
#pragma once

#include "projector/domain/failure.h"

typedef struct Stop Stop;

Stop *stop_new(void);
void stop_free(Stop *stop);

/* `why` NULL: an orderly stop. The first reason counts. */
void stop_request(Stop *stop, const Failure *why);
bool stop_requested(Stop *stop);
/* Requests the stop by itself once the monotonic time `at_us` has passed; a later call moves it. */
void stop_at(Stop *stop, int64_t at_us, const Failure *why);
/* Whether that time has passed, also after another reason, or the reason is that another owner
 * works (FAILURE_FENCED). */
bool stop_is_too_late(Stop *stop);
/* Waits that long, or until the stop is requested (true). */
bool stop_wait(Stop *stop, int64_t ms);
/* Class FAILURE_NONE for an orderly stop. */
Failure stop_reason(Stop *stop);

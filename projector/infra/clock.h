/* clock.h - the monotonic clock of the process, so that the simulation can put its own in its
 * place. */
#pragma once

#include <stdint.h>

/* Microseconds since some fixed point; never goes back. */
int64_t clock_us(void);

/* retention.h - how much time has passed for what is deleted by its age.
 *
 * A clock that is put ahead makes everything look old at once, and what is deleted then does not
 * come back. So no clock may gain on the monotonic one. */
#pragma once

#include <stdint.h>

typedef struct RetentionClock {
  int64_t least_ahead_ms; /* of the monotonic clock */
} RetentionClock;

#define RETENTION_CLOCK_INIT ((RetentionClock){INT64_MAX})

/* What time it is, as far as time has passed, by a server's clock that tells `server_ms` (since
 * 1970) and by the monotonic clock of this process. A server's clock that is put back counts. */
int64_t retention_now_ms(RetentionClock *clock, int64_t server_ms, int64_t monotonic_ms);

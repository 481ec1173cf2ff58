#include "projector/domain/retention.h"

#include <glib.h>

int64_t retention_now_ms(RetentionClock *clock, int64_t server_ms, int64_t monotonic_ms) {
  clock->least_ahead_ms = MIN(clock->least_ahead_ms, server_ms - monotonic_ms);
  return monotonic_ms + clock->least_ahead_ms;
}

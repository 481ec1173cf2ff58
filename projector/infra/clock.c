/* clock.c - the real clock. */
#include "projector/infra/clock.h"

#include <glib.h>

int64_t clock_us(void) {
  return g_get_monotonic_time();
}

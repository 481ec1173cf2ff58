/* crash.h - named points at which a test may kill the process as a power failure would.
 *
 * Compiled in by the build option `crash_points` only. In the environment,
 *   PROJECTOR_CRASH_AT="name" or "name:n"   kills at the first or n-th passage of that point,
 *   PROJECTOR_FREEZE_AT="name" or "name:n"  stops there, as SIGSTOP does, until SIGCONT,
 *   PROJECTOR_HANG_AT="name" or "name:n"    lets the thread that passes there wait forever,
 *   PROJECTOR_CRASH_ON="event id"           kills whenever that event was claimed. */
#pragma once

#include "projector/domain/event.h"

#ifdef CRASH_POINTS
void crash_point(const char *name);
void crash_event(const Event *event);
/* A figure that a test may change in the environment. */
int64_t crash_number(const char *name, int64_t initial);
#else
static inline void crash_point(const char *name) {
  (void)name;
}
static inline void crash_event(const Event *event) {
  (void)event;
}
static inline int64_t crash_number(const char *name, int64_t initial) {
  (void)name;
  return initial;
}
#endif

/* crash.h - named points at which a test may kill the process as a power failure would.
 *
 * Compiled in by the build option `crash_points` only. PROJECTOR_CRASH_AT="name" or "name:n" in the
 * environment kills at the first or n-th passage of that point. */
#pragma once

#ifdef CRASH_POINTS
void crash_point(const char *name);
#else
static inline void crash_point(const char *name) {
  (void)name;
}
#endif

/* crash.c - kills the process at a named point; only in builds for tests. */
#include "projector/infra/crash.h"

#ifdef CRASH_POINTS

#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void crash_point(const char *name) {
  static gint passed;
  const char *wanted = g_getenv("PROJECTOR_CRASH_AT");
  size_t length = strlen(name);
  if (!wanted || strncmp(wanted, name, length) != 0 ||
      (wanted[length] != '\0' && wanted[length] != ':'))
    return;
  int nth = wanted[length] == ':' ? atoi(wanted + length + 1) : 1;
  if (g_atomic_int_add(&passed, 1) + 1 == nth)
    raise(SIGKILL);
}

#else
typedef int crash_points_are_off; /* ISO C wants a declaration in every file */
#endif

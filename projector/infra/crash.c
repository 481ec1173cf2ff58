/* crash.c - kills or freezes the process at a named point; only in builds for tests. */
#include "projector/infra/crash.h"

#ifdef CRASH_POINTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Whether `wanted` ("name" or "name:n") means this passage through the point `name`. */
static bool is_due(const char *wanted, const char *name, gint *passed) {
  size_t length = strlen(name);
  if (!wanted || strncmp(wanted, name, length) != 0 ||
      (wanted[length] != '\0' && wanted[length] != ':'))
    return false;
  int nth = wanted[length] == ':' ? atoi(wanted + length + 1) : 1;
  return g_atomic_int_add(passed, 1) + 1 == nth;
}

void crash_point(const char *name) {
  static gint crash_passed, freeze_passed, hang_passed;
  if (is_due(g_getenv("PROJECTOR_CRASH_AT"), name, &crash_passed))
    raise(SIGKILL);
  if (is_due(g_getenv("PROJECTOR_FREEZE_AT"), name, &freeze_passed))
    raise(SIGSTOP);
  if (is_due(g_getenv("PROJECTOR_HANG_AT"), name, &hang_passed))
    for (;;)
      g_usleep(G_USEC_PER_SEC);
}

int64_t crash_number(const char *name, int64_t initial) {
  const char *text = g_getenv(name);
  return text ? g_ascii_strtoll(text, NULL, 10) : initial;
}

void crash_event(const Event *event) {
  const char *wanted = g_getenv("PROJECTOR_CRASH_ON");
  char text[ID_TEXT_SIZE];
  if (!wanted)
    return;
  id_text(&event->key.event_id, text);
  if (!strcmp(wanted, text))
    raise(SIGKILL);
}

#else
typedef int crash_points_are_off; /* ISO C requires a declaration in every file */
#endif

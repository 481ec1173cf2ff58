/* health.h - what is to be said about this process and its stores now, in sentences: for /readyz,
 * the page and the log. Pure: everything that counts is given. */
#pragma once

#include "projector/app/web/monitor.h"

typedef struct Remark {
  bool bad;     /* else a warning */
  bool unready; /* /readyz says no because of it */
  char *text;
} Remark;

/* "paused by ada@host since 12:01:05 UTC (8 s)"; free with g_free. */
char *health_pause_text(const PauseState *pause);
/* Remarks, the most important first; none: all is well. `now` is monotonic, in us. */
GPtrArray *health_judge(const Report *report, const Figures *figures, const Settings *settings,
                        int64_t now);

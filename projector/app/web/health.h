/* health.h - the health of this process and its stores in sentences, for /readyz, the page and the
 * log. Pure: everything is passed in. */
#pragma once

#include "projector/app/web/monitor.h"

typedef struct Remark {
  bool bad;     /* else a warning */
  bool unready; /* /readyz returns 503 because of it */
  char *text;
} Remark;

/* "paused by ada@host since 12:01:05 UTC (8 s)"; free with g_free. */
char *health_pause_text(const PauseState *pause);
/* Remarks, the most important first; none when healthy. `now` is monotonic, in us. */
GPtrArray *health_judge(const Report *report, const Figures *figures, const Settings *settings,
                        int64_t now);

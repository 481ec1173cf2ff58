/* exposition.h - figures in the text format of Prometheus. */
#pragma once

#include "projector/app/web/monitor.h"

/* Requests that are kept open. */
typedef struct OpenRequests {
  unsigned waiters;       /* of GET /wait */
  unsigned event_readers; /* of GET /events */
} OpenRequests;

/* Free it with g_string_free. */
GString *exposition(const Config *config, const Figures *figures, const Report *report,
                    const OpenRequests *open);

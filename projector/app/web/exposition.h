/* exposition.h - figures in the text format of Prometheus. */
#pragma once

#include "projector/app/web/monitor.h"

/* Free it with g_string_free. */
GString *exposition(const Config *config, const Figures *figures, const Report *report,
                    unsigned waiters);

/* progress.h - the progress of a long command, on a terminal. */
#pragma once

#include <glib.h>
#include <stdint.h>

/* One line on stderr that is updated in place, if that is a terminal. `total` is an estimate. */
typedef struct Progress {
  const char *what; /* "account, entities" */
  int64_t total, start, started_us, shown_us;
} Progress;

void progress_begin(Progress *progress, const char *what, int64_t done, int64_t total);
void progress_show(Progress *progress, int64_t done);
void progress_end(Progress *progress);

/* progress.c - a line on stderr that is overwritten again and again. */
#include "projector/app/shared/progress.h"

#include "projector/infra/clock.h"

#include <stdio.h>
#include <unistd.h>

enum {
  BAR = 30,
  EVERY_US = 200 * 1000,
};

void progress_begin(Progress *progress, const char *what, int64_t done, int64_t total) {
  *progress = (Progress){.what = what, .total = total, .start = done, .started_us = clock_us()};
}

void progress_show(Progress *progress, int64_t done) {
  int64_t now = clock_us();
  if (!isatty(STDERR_FILENO) || now - progress->shown_us < EVERY_US)
    return;
  progress->shown_us = now;
  double seconds = (double)(now - progress->started_us) / 1e6;
  double rate = (double)(done - progress->start) / MAX(seconds, 0.001);
  int64_t total = MAX(progress->total, done), left = total - done;
  int filled = total ? (int)(BAR * done / total) : BAR;
  fprintf(stderr, "\r%s [%.*s%*s] %lld of %lld  %.0f/s", progress->what, filled,
          "##############################", BAR - filled, "", (long long)done, (long long)total,
          rate);
  if (rate > 0)
    fprintf(stderr, "  %.0f s left", (double)left / rate);
  fprintf(stderr, "\033[K");
}

void progress_end(Progress *progress) {
  if (progress->shown_us)
    fprintf(stderr, "\r\033[K");
}

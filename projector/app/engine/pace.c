/* pace.c - a token bucket under one lock. */
#include "projector/app/engine/pace.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

enum { WAIT_MS = 100, BURST_PART = 10 /* of a second */ };

struct Pace {
  GMutex lock;
  GCond changed;
  bool paused, lagging;
  int64_t per_s;
  double tokens;
  int64_t filled_at; /* monotonic, us */
};

Pace *pace_new(void) {
  Pace *pace = g_new0(Pace, 1);
  g_mutex_init(&pace->lock);
  g_cond_init(&pace->changed);
  return pace;
}

void pace_free(Pace *pace) {
  if (!pace)
    return;
  g_mutex_clear(&pace->lock);
  g_cond_clear(&pace->changed);
  g_free(pace);
}

static void set(Pace *pace, bool *flag, bool value) {
  SCOPED_LOCK(&pace->lock);
  *flag = value;
  g_cond_broadcast(&pace->changed);
}

void pace_set_paused(Pace *pace, bool paused) {
  set(pace, &pace->paused, paused);
}

void pace_set_lagging(Pace *pace, bool lagging) {
  set(pace, &pace->lagging, lagging);
}

void pace_set_rate(Pace *pace, int64_t per_s) {
  SCOPED_LOCK(&pace->lock);
  pace->per_s = per_s;
  g_cond_broadcast(&pace->changed);
}

bool pace_is_stopped(Pace *pace) {
  if (!pace)
    return false;
  SCOPED_LOCK(&pace->lock);
  return pace->paused || pace->lagging;
}

static void fill(Pace *pace) {
  int64_t now = clock_us();
  double most = MAX((double)pace->per_s / BURST_PART, 1);
  double more = (double)(now - pace->filled_at) * (double)pace->per_s / 1e6;
  pace->tokens = MIN(pace->tokens + more, most);
  pace->filled_at = now;
}

/* Call under the lock. */
static size_t grant_now(Pace *pace, size_t most) {
  if (pace->paused || pace->lagging)
    return 0;
  if (pace->per_s == 0)
    return most;
  fill(pace);
  return pace->tokens >= 1 ? MIN(most, (size_t)pace->tokens) : 0;
}

size_t pace_grant(Pace *pace, size_t most) {
  if (!pace)
    return most;
  SCOPED_LOCK(&pace->lock);
  size_t granted = grant_now(pace, most);
  if (granted == 0) {
    int64_t token_us = pace->per_s ? 1000000 / pace->per_s + 1 : (int64_t)WAIT_MS * 1000;
    g_cond_wait_until(&pace->changed, &pace->lock,
                      clock_us() + MIN(token_us, (int64_t)WAIT_MS * 1000));
    granted = grant_now(pace, most);
  }
  if (pace->per_s)
    pace->tokens -= (double)granted;
  return granted;
}

void pace_return(Pace *pace, size_t count) {
  if (!pace || count == 0)
    return;
  SCOPED_LOCK(&pace->lock);
  if (pace->per_s)
    pace->tokens += (double)count;
}

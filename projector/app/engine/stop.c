/* stop.c - a flag with a reason that threads can wait for. */
#include "projector/app/engine/stop.h"

#include "projector/infra/lock.h"

#include <glib.h>

struct Stop {
  GMutex lock;
  GCond changed;
  bool requested;
  Failure why;
  int64_t at_us; /* 0: none is set */
  Failure why_then;
};

Stop *stop_new(void) {
  Stop *stop = g_new0(Stop, 1);
  g_mutex_init(&stop->lock);
  g_cond_init(&stop->changed);
  return stop;
}

void stop_free(Stop *stop) {
  if (!stop)
    return;
  g_mutex_clear(&stop->lock);
  g_cond_clear(&stop->changed);
  g_free(stop);
}

void stop_request(Stop *stop, const Failure *why) {
  SCOPED_LOCK(&stop->lock);
  if (!stop->requested && why)
    stop->why = *why;
  stop->requested = true;
  g_cond_broadcast(&stop->changed);
}

static bool is_requested(Stop *stop) {
  if (!stop->requested && stop->at_us && g_get_monotonic_time() > stop->at_us) {
    stop->why = stop->why_then;
    stop->requested = true;
    g_cond_broadcast(&stop->changed);
  }
  return stop->requested;
}

bool stop_requested(Stop *stop) {
  SCOPED_LOCK(&stop->lock);
  return is_requested(stop);
}

void stop_at(Stop *stop, int64_t at_us, const Failure *why) {
  SCOPED_LOCK(&stop->lock);
  stop->at_us = at_us;
  stop->why_then = *why;
}

bool stop_is_too_late(Stop *stop) {
  SCOPED_LOCK(&stop->lock);
  is_requested(stop);
  return stop->why.class == FAILURE_FENCED || (stop->at_us && g_get_monotonic_time() > stop->at_us);
}

bool stop_wait(Stop *stop, int64_t ms) {
  int64_t until = g_get_monotonic_time() + ms * 1000;
  SCOPED_LOCK(&stop->lock);
  while (!stop->requested)
    if (!g_cond_wait_until(&stop->changed, &stop->lock, until))
      break;
  return is_requested(stop);
}

Failure stop_reason(Stop *stop) {
  SCOPED_LOCK(&stop->lock);
  return stop->why;
}

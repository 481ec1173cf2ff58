/* lanes.h - all lanes of a running projector, one for each worker: an aggregate's events always
 * go to the same one. */
#pragma once

#include "projector/app/engine/alarm.h"
#include "projector/app/engine/lane.h"
#include "projector/app/engine/last_applied.h"
#include "projector/app/engine/pace.h"
#include "projector/app/engine/solo.h"
#include "projector/app/engine/watch.h"

typedef struct Lanes {
  Lane **lanes;
  unsigned count;
  Alarm *due; /* rings when a hold is due earlier than those before */
  gint holds; /* atomic; of all lanes */
  LastApplied *last_applied;
  Watch *watch;                   /* what is remembered of events and tables */
  Pace *pace;                     /* NULL: nothing holds the workers back */
  Solo *solo;                     /* what may have killed a process runs alone */
  gint scanning;                  /* atomic; the reader is reading the whole outbox */
  _Atomic int64_t clock_ahead_ms; /* MongoDB's clock, of this machine's */
} Lanes;

/* By MongoDB's clock, ms since 1970. */
static inline int64_t lanes_now_ms(const Lanes *lanes) {
  return g_get_real_time() / 1000 + lanes->clock_ahead_ms;
}

static inline Lane *lane_of(const Lanes *lanes, uint64_t aggregate_hash) {
  g_assert(lanes->count > 0);
  return lanes->lanes[aggregate_hash % lanes->count];
}

/* Whether one of them has the event in memory. */
static inline bool lanes_know(const Lanes *lanes, const Id *event_id) {
  for (unsigned i = 0; i < lanes->count; i++)
    if (lane_knows(lanes->lanes[i], event_id))
      return true;
  return false;
}

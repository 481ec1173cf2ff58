/* suspicion.h - when a standby considers the owner dead, judged by the owner's own heartbeats.
 *
 * A fixed timeout is either slow or wrong. So the standby learns how regularly this owner's
 * heartbeats arrive on this machine, and suspects it when a silence is out of proportion to that
 * (after Hayashibara et al., The φ Accrual Failure Detector, 2004, with a bound in place of a
 * probability). It need not be certain: the fence in MySQL makes a wrong suspicion safe.
 *
 * Silence counts only between two successful reads in close succession: while the standby cannot
 * read, was itself paused, or MongoDB elects a primary, it knows nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
  SUSPICION_WINDOW = 200,      /* intervals that are remembered */
  SUSPICION_INTERVALS_MIN = 6, /* before that many are known, only the lease's own expiry counts */
};

/* Zeroed: nothing is known. */
typedef struct Suspicion {
  int64_t intervals_us[SUSPICION_WINDOW];
  unsigned count, next;
  bool looking; /* the look before this one succeeded */
  bool whole;   /* the silence began with a heartbeat that was seen to arrive */
  int64_t beat, looked_at_us, silent_us;
  uint64_t tenure;
} Suspicion;

/* A successful read: the owner's heartbeats so far. `tenure` distinguishes owners and elections:
 * when it changes, learning starts over. */
typedef struct HeartbeatLook {
  int64_t beat;
  uint64_t tenure;
} HeartbeatLook;

/* `now_us` is the standby's monotonic time after the look. */
void suspicion_look(Suspicion *suspicion, HeartbeatLook look, int64_t now_us);
/* A failed read. */
void suspicion_look_failed(Suspicion *suspicion);
/* The longest silence that does not raise suspicion, in us; at most `lease_us`. */
int64_t suspicion_patience_us(const Suspicion *suspicion, int64_t lease_us);
bool suspicion_is_aroused(const Suspicion *suspicion, int64_t lease_us);

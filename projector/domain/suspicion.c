/* suspicion.c - learns the rhythm of an owner's heartbeats and judges its silence. */
#include "projector/domain/suspicion.h"

#include <glib.h>
#include <math.h>
#include <string.h>

enum {
  LOOKS_APART_US = 500000, /* a longer time between two looks is a pause of the standby itself */
};

/* A silence is suspicious when it is longer than all of these. Heartbeats are late in bursts when
 * the machine is busy, so the longest interval counts besides mean and spread. */
static const double MEANS = 3, DEVIATIONS = 8, LONGEST = 1.5;

static void remember(Suspicion *suspicion, int64_t interval_us) {
  suspicion->intervals_us[suspicion->next] = interval_us;
  suspicion->next = (suspicion->next + 1) % SUSPICION_WINDOW;
  suspicion->count = MIN(suspicion->count + 1, SUSPICION_WINDOW);
}

static void start_anew(Suspicion *suspicion, HeartbeatLook look) {
  memset(suspicion, 0, sizeof *suspicion);
  suspicion->tenure = look.tenure;
  suspicion->beat = look.beat;
}

static void forget_silence(Suspicion *suspicion) {
  suspicion->silent_us = 0;
  suspicion->whole = false;
}

void suspicion_look(Suspicion *suspicion, HeartbeatLook look, int64_t now_us) {
  if (look.tenure != suspicion->tenure)
    start_anew(suspicion, look);
  int64_t apart_us = now_us - suspicion->looked_at_us;
  if (suspicion->looking && apart_us <= LOOKS_APART_US)
    suspicion->silent_us += apart_us;
  else
    forget_silence(suspicion);
  if (look.beat != suspicion->beat) {
    if (suspicion->whole && look.beat == suspicion->beat + 1)
      remember(suspicion, suspicion->silent_us);
    suspicion->silent_us = 0;
    suspicion->whole = suspicion->looking;
  }
  suspicion->beat = look.beat;
  suspicion->looking = true;
  suspicion->looked_at_us = now_us;
}

void suspicion_look_failed(Suspicion *suspicion) {
  suspicion->looking = false;
  forget_silence(suspicion);
}

int64_t suspicion_patience_us(const Suspicion *suspicion, int64_t lease_us) {
  if (suspicion->count < SUSPICION_INTERVALS_MIN)
    return lease_us;
  double sum = 0, squares = 0;
  int64_t longest = 0;
  for (unsigned i = 0; i < suspicion->count; i++) {
    double interval = (double)suspicion->intervals_us[i];
    sum += interval;
    squares += interval * interval;
    longest = MAX(longest, suspicion->intervals_us[i]);
  }
  double mean = sum / suspicion->count;
  double deviation = sqrt(MAX(squares / suspicion->count - mean * mean, 0));
  double patience = MAX(MEANS * mean, mean + DEVIATIONS * deviation);
  return (int64_t)MIN(MAX(patience, LONGEST * (double)longest), (double)lease_us);
}

bool suspicion_is_aroused(const Suspicion *suspicion, int64_t lease_us) {
  return suspicion->looking && suspicion->count >= SUSPICION_INTERVALS_MIN &&
         suspicion->silent_us > suspicion_patience_us(suspicion, lease_us);
}

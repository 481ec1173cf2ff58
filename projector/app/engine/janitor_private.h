/* janitor_private.h - what janitor.c and gaps.c share. */
#pragma once

#include "projector/app/engine/janitor.h"
#include "projector/app/engine/pruner.h"
#include "projector/infra/mongo/outbox.h"

struct Janitor {
  const Config *config;
  const Ledger *ledger;
  MongoStore *store;
  const Lanes *lanes;
  Stop *stop;
  Outbox *outbox;
  GThread *thread;
  Pulse pulse;                     /* at work: in a step */
  int64_t next_sweep, next_rescan; /* monotonic, us */
  Pruner *pruner;
  uint64_t refusals_recorded; /* see watch_refusals */
  gint is_current;            /* atomic; see janitor_note_behind */
  bool away; /* a store, as a gap has found in this step: the others are not looked for in it */
};

/* What is known of a gap whose time is over. */
typedef struct {
  bool looked; /* false: a store was away, so the gap is waited for until it has answered */
  bool last;   /* it found the store away: next time the others come first */
  bool lacks;  /* versions are missing */
  int64_t found;
} GapReport;

bool gap_is_due(const HoldView *hold);
/* Looks for the versions that the due gaps among the holds wait for, and reports those that are
 * nowhere; before anything is applied behind the gaps. */
void report_gaps(Janitor *janitor, const HoldView *holds, unsigned count, GapReport *reports);

/* lease.h - which of several projectors of one name works: a document with an expiry.
 *
 * Only the server's clock decides about expiry. The document also counts the owner's heartbeats,
 * by which a standby can suspect the owner earlier, and carries a counter that other processes
 * raise to ask the owner to look at its failed events again. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef struct Lease Lease;

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms);
void lease_free(Lease *lease);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Lease, lease_free)

/* That nothing is to be applied, as a person said; whoever owns the name obeys. */
typedef struct PauseState {
  bool on;
  char by[128];
  int64_t since_ms; /* since 1970, by MongoDB's clock */
} PauseState;

typedef struct LeaseState {
  bool owned;     /* by us, now */
  bool standby;   /* another has asked for the lease a short while ago */
  int64_t nudges; /* how often the owner was asked to look again */
  int64_t epoch;  /* the highest one that was noted; 0: none */
  bool reports;   /* somebody told what was done by hand */
  int64_t now_ms; /* MongoDB's clock, when it is ours; 0: not known */
  int64_t
      settled_at; /* as LeaseTold; when nobody has told it yet, when the lease was taken first */
  PauseState pause;
} LeaseState;

/* What the owner tells with a heartbeat, for others and for the owner after it. */
typedef struct LeaseTold {
  int64_t settled_at;       /* everything that could be read before it is settled; ms since 1970 by
                               MongoDB's clock */
  int64_t lag_ms;           /* how long the oldest event has waited; 0: none waits */
  Failure trouble;          /* what its workers wait for; class NONE: nothing */
  int64_t trouble_since_ms; /* since 1970 */
} LeaseTold;

/* Takes or prolongs the lease; each time is a heartbeat when it is ours. Asking for another's lease
 * announces a standby. `epoch` (0: not known) and `told` (NULL: nothing) are noted
 * when the lease is ours. */
bool lease_acquire(Lease *lease, int64_t epoch, const LeaseTold *told, LeaseState *ret_state,
                   Failure *ret_failure);

/* What a standby sees of the owner. */
typedef struct LeaseLook {
  char owner[256];
  int64_t beat;      /* heartbeats so far; -1: the owner counts none */
  uint64_t election; /* changes with every election of a primary */
} LeaseLook;

/* Looks without asking for the lease; what a majority knows. */
bool lease_watch(Lease *lease, LeaseLook *ret_look, Failure *ret_failure);
/* Takes the lease from the owner that was seen, unless it has given a heartbeat since. */
bool lease_seize(Lease *lease, const LeaseLook *seen, bool *ret_owned, Failure *ret_failure);
/* Lets the next one take over at once. */
bool lease_release(Lease *lease, Failure *ret_failure);

/* Whether MongoDB takes a write, tried with one that means nothing. */
bool lease_try_write(MongoStore *store, const char *name, Failure *ret_failure);

/* Asks the owner, whoever it is, to look at its failed events again. */
bool lease_nudge(MongoStore *store, const char *name, Failure *ret_failure);
/* The same, and tells the owner what a person did ("skip of 1 event, by ada@host (pid 7)"): it
 * stands in the owner's log then, also when there is no owner yet. */
bool lease_report(MongoStore *store, const char *name, const char *act, Failure *ret_failure);
/* Takes what was told out of the lease's document, if it is ours: texts, in order. */
bool lease_take_reports(Lease *lease, GPtrArray *acts, Failure *ret_failure);

typedef struct LeaseView {
  bool held;
  char owner[256];
  int64_t expires_in_ms;
  int64_t prolonged_ms_ago; /* negative: not known */
  int64_t lag_ms;           /* as the owner told it then; negative: it did not */
  int64_t settled_at;       /* as LeaseTold; 0: not known */
  Failure trouble;          /* as LeaseTold; the class is NONE or UNAVAILABLE */
  int64_t trouble_since_ms;
  PauseState pause;
} LeaseView;

typedef struct PauseChange {
  PauseState pause; /* as it is now */
  bool changed;     /* false: it was so before */
} PauseChange;

/* Begins a pause, or (`by` NULL) ends it. */
bool lease_pause(MongoStore *store, const char *name, const char *by, PauseChange *ret_change,
                 Failure *ret_failure);

bool lease_look(MongoStore *store, const char *name, LeaseView *ret_view, Failure *ret_failure);

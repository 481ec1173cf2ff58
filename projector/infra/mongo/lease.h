/* lease.h - chooses the owner among the projectors of one name: a document with an expiry.
 *
 * Only the server's clock decides about expiry. The document also counts the owner's heartbeats, so
 * that a standby can suspect the owner earlier, and carries the nudge, a counter that other
 * processes raise to have the owner check its failed events again. */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mongo/store.h"

typedef struct Lease Lease;

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms);
void lease_free(Lease *lease);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Lease, lease_free)

/* The operator's pause: nothing is applied, whichever process is the owner. */
typedef struct PauseState {
  bool on;
  char by[128];
  int64_t since_ms; /* since 1970, by MongoDB's clock */
} PauseState;

enum { COPIES_NAME_SIZE = 128 }; /* a longer name of a collection is cut */

typedef struct LeaseState {
  bool owned;         /* by us, now */
  bool standby;       /* a standby has asked for the lease recently */
  int64_t nudges;     /* how often the owner was asked to look again */
  int64_t epoch;      /* the highest one that was noted; 0: none */
  bool reports;       /* an operator's action was recorded */
  int64_t now_ms;     /* MongoDB's clock, when it is ours; 0: not known */
  int64_t settled_at; /* as OwnerReport; if it was never reported, when the lease was first taken */
  PauseState pause;
  LastCommit last_commit;
  char dropped[COPIES_NAME_SIZE]; /* a collection into which the last owner copied events, and this
                        one does not;
                        "": none */
} LeaseState;

/* What the owner reports with a heartbeat, for others and for its successor. */
typedef struct OwnerReport {
  int64_t settled_at;       /* everything that could be read before it is settled; ms since 1970 by
                               MongoDB's clock */
  int64_t lag_ms;           /* how long the oldest event has waited; 0: none waits */
  Failure trouble;          /* what its workers wait for; class NONE: nothing */
  int64_t trouble_since_ms; /* since 1970 */
  LastCommit last_commit;
} OwnerReport;

/* Takes or renews the lease; each renewal is a heartbeat. Asking for another process's lease
 * announces a standby. `epoch` (0: unknown) and `report` (NULL: nothing) are recorded if the lease
 * is ours. */
bool lease_acquire(Lease *lease, int64_t epoch, const OwnerReport *report, LeaseState *ret_state,
                   Failure *ret_failure);

/* What a standby sees of the owner. */
typedef struct LeaseLook {
  char owner[256];
  int64_t beat;      /* heartbeats so far; -1: the owner counts none */
  uint64_t election; /* changes with every election of a primary */
} LeaseLook;

/* Reads the lease, with read concern majority, without asking for it. */
bool lease_watch(Lease *lease, LeaseLook *ret_look, Failure *ret_failure);
/* Takes the lease from the owner that was seen, unless it has given a heartbeat since. */
bool lease_seize(Lease *lease, const LeaseLook *seen, bool *ret_owned, Failure *ret_failure);
/* Lets the next one take over at once. `last`, for the report; NULL: it stays as it was. */
bool lease_release(Lease *lease, const LastCommit *last, Failure *ret_failure);

/* Whether MongoDB accepts writes, tested with a write without effect. */
bool lease_try_write(MongoStore *store, const char *name, Failure *ret_failure);

/* Raises the nudge, so that the owner checks its failed events again, and records an operator's
 * action ("skip of 1 event, by ada@host (pid 7)") for the owner's log, even if there is no owner
 * yet. */
bool lease_report(MongoStore *store, const char *name, const char *act, Failure *ret_failure);
/* Removes the recorded actions from the lease document, if it is ours: texts, in order. */
bool lease_take_reports(Lease *lease, GPtrArray *acts, Failure *ret_failure);

typedef struct LeaseView {
  bool held;
  char owner[256];
  int64_t expires_in_ms;
  int64_t prolonged_ms_ago; /* negative: not known */
  int64_t lag_ms;           /* as the owner reported it then; negative: it did not */
  int64_t settled_at;       /* as OwnerReport; 0: not known */
  Failure trouble;          /* as OwnerReport; the class is NONE or UNAVAILABLE */
  int64_t trouble_since_ms;
  PauseState pause;
  char not_served[COPIES_NAME_SIZE]; /* a collection into which the owner that holds the lease
                           copies no events, although the mapping file says so; "": none */
} LeaseView;

typedef struct PauseChange {
  PauseState pause; /* as it is now */
  bool changed;     /* false: it was so before */
} PauseChange;

/* Begins a pause, or (`by` NULL) ends it. */
bool lease_pause(MongoStore *store, const char *name, const char *by, PauseChange *ret_change,
                 Failure *ret_failure);

bool lease_look(MongoStore *store, const char *name, LeaseView *ret_view, Failure *ret_failure);

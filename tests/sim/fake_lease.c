/* fake_lease.c - the lease document, behind infra/mongo/lease.h. Its time is that of MongoDB's
 * clock. */
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/refused.h"

#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

enum { STANDBY_SEEN_MS = 5000 };

struct Lease {
  unsigned owner; /* the instance: `owner` of the code under test is one for the process */
  int64_t lease_ms;
};

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms) {
  (void)store;
  (void)name;
  (void)owner;
  const Instance *instance = fiber_instance();
  Lease *lease = g_new(Lease, 1);
  *lease = (Lease){instance ? instance->number : 0, lease_ms};
  return lease;
}

void lease_free(Lease *lease) {
  g_free(lease);
}

static bool is_deaf(void) {
  const Instance *instance = fiber_instance();
  return instance && fiber_now_us() < instance->deaf_until;
}

static void take(const Lease *lease, int64_t now) {
  if (sim.lease.owner != lease->owner)
    sim_trace("  the lease is #%u's", lease->owner);
  sim.lease.owner = lease->owner;
  sim.lease.expires_at = now + lease->lease_ms;
  sim.lease.beat++;
}

bool lease_acquire(Lease *lease, int64_t epoch, const OwnerReport *report, LeaseState *ret_state,
                   Failure *ret_failure) {
  if (!call_begin(MONGO, "lease", ret_failure))
    return false;
  if (is_deaf())
    return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 50, "no answer");
  int64_t now = sim_server_ms(MONGO);
  if (sim.lease.owner == lease->owner || sim.lease.expires_at <= now) {
    take(lease, now);
    sim.lease.epoch = MAX(sim.lease.epoch, epoch);
    if (report)
      sim.lease.last_commit = report->last_commit;
  } else {
    sim.lease.standby_at = now;
  }
  LeaseState state = {.owned = sim.lease.owner == lease->owner,
                      .standby = sim.lease.standby_at > now - STANDBY_SEEN_MS,
                      .now_ms = now,
                      .nudges = sim.lease.nudges,
                      .epoch = sim.lease.epoch,
                      .last_commit = sim.lease.last_commit};
  if (!call_end(MONGO, "lease", ret_failure))
    return false;
  *ret_state = state;
  return true;
}

bool lease_watch(Lease *lease, LeaseLook *ret_look, Failure *ret_failure) {
  (void)lease;
  if (!call_begin(MONGO, "look at lease", ret_failure))
    return false;
  LeaseLook look = {.beat = sim.lease.beat, .election = sim.lease.election};
  snprintf(look.owner, sizeof look.owner, "#%u", sim.lease.owner);
  if (!call_end(MONGO, "look at lease", ret_failure))
    return false;
  *ret_look = look;
  return true;
}

bool lease_seize(Lease *lease, const LeaseLook *seen, bool *ret_owned, Failure *ret_failure) {
  if (!call_begin(MONGO, "seize lease", ret_failure))
    return false;
  bool same = sim.lease.beat == seen->beat && sim.lease.owner == strtoul(seen->owner + 1, NULL, 10);
  if (same) {
    counts.suspicions++;
    take(lease, sim_server_ms(MONGO));
  }
  if (!call_end(MONGO, "seize lease", ret_failure))
    return false;
  *ret_owned = same;
  return true;
}

bool lease_release(Lease *lease, const LastCommit *last, Failure *ret_failure) {
  if (!call_begin(MONGO, "release lease", ret_failure))
    return false;
  if (sim.lease.owner == lease->owner) {
    sim.lease.expires_at = 0;
    if (last)
      sim.lease.last_commit = *last;
  }
  return call_end(MONGO, "release lease", ret_failure);
}

static bool nudge(Failure *ret_failure) {
  if (!call_begin(MONGO, "nudge", ret_failure))
    return false;
  if (sim.quiet || !sim_chance(10)) /* or it is lost in a failover: the next sweep looks anyway */
    sim.lease.nudges++;
  return call_end(MONGO, "nudge", ret_failure);
}

bool lease_pause(MongoStore *store, const char *name, const char *by, PauseChange *ret_change,
                 Failure *ret_failure) {
  (void)store, (void)name, (void)by, (void)ret_change;
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "nobody pauses in the simulation");
}

bool lease_report(MongoStore *store, const char *name, const char *act, Failure *ret_failure) {
  (void)store, (void)name, (void)act;
  return nudge(ret_failure);
}

bool lease_take_reports(Lease *lease, GPtrArray *acts, Failure *ret_failure) {
  (void)lease;
  (void)acts;
  (void)ret_failure;
  return true; /* the simulation has none */
}

bool refused_write(MongoStore *store, const char *name, const GArray *refused,
                   Failure *ret_failure) {
  (void)store;
  (void)name;
  (void)refused;
  (void)ret_failure;
  return true;
}

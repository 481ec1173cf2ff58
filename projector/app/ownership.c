/* ownership.c - takes, keeps and gives back the lease.
 *
 * The lease decides who should work, the epoch who can: MySQL lets no transaction of an older epoch
 * commit. So a frozen owner that wakes up does no harm even before it notices. */
#include "projector/app/ownership.h"

#include "projector/infra/crash.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mysql/ledger.h"

#include <unistd.h>

enum {
  STANDBY_MS = 1000,
};

struct Ownership {
  const Config *config;
  Lease *lease;
  Stop *tenure;
  GThread *heartbeat;
  int64_t epoch;
  char *claimant;
  gint nudged; /* atomic */
  int64_t nudges;
};

/* Whatever the heartbeat is waiting for: from two thirds of the lease on nothing is claimed. */
static void keep_until(Ownership *ownership, int64_t asked_at) {
  Failure late = {0};
  failure_set(&late, FAILURE_FENCED, SOURCE_PROJECTOR, 0,
              "the lease could not be prolonged in time");
  stop_at(ownership->tenure, asked_at + ownership->config->settings.lease_ms * 1000 / 3 * 2, &late);
}

static gpointer beat(gpointer data) {
  Ownership *ownership = data;
  int64_t lease_ms = ownership->config->settings.lease_ms;
  int64_t beat_ms = lease_ms / 4; /* also how soon a nudge is noticed */
  while (!stop_wait(ownership->tenure, beat_ms)) {
    Failure failure = {0};
    bool owned = true;
    int64_t nudges = ownership->nudges, asked_at = g_get_monotonic_time();
    if (lease_acquire(ownership->lease, &owned, &nudges, &failure) && owned) {
      crash_point("in_lease_renewal");
      keep_until(ownership, asked_at);
      if (nudges != ownership->nudges)
        g_atomic_int_set(&ownership->nudged, 1);
      ownership->nudges = nudges;
      continue;
    }
    if (!owned)
      failure_set(&failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0,
                  "another projector of this name holds the lease");
    else
      log_failure(LOG_LEVEL_WARNING, "cannot prolong the lease", &failure);
    if (failure.class == FAILURE_FENCED)
      stop_request(ownership->tenure, &failure);
  }
  return NULL;
}

static bool raise_epoch(Ownership *ownership, const char *owner, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&ownership->config->mysql, ret_failure);
  return session &&
         ledger_take_fence(session, ownership->config->name, owner, &ownership->epoch, ret_failure);
}

/* As it stands in the lease; the same for each tenure of this process. */
static const char *process_owner(void) {
  static gsize known;
  static char owner[128];
  if (g_once_init_enter(&known)) {
    g_snprintf(owner, sizeof owner, "%s:%d:%08x", g_get_host_name(), (int)getpid(), g_random_int());
    g_once_init_leave(&known, 1);
  }
  return owner;
}

/* If it is ours. */
static void give_back(Lease *lease) {
  Failure failure;
  if (!lease_release(lease, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot give the lease back", &failure);
}

static bool take_lease(Ownership *ownership, bool *ret_owned, int64_t *ret_asked_at,
                       Failure *failure) {
  *ret_owned = false;
  *ret_asked_at = g_get_monotonic_time();
  return lease_acquire(ownership->lease, ret_owned, &ownership->nudges, failure);
}

/* One attempt to become the owner. The epoch may have to wait for a transaction of the owner before
 * this, so the lease is asked for again. */
static bool take(Ownership *ownership, bool *standing_by, int64_t *ret_asked_at, Failure *failure) {
  bool owned = false;
  if (!take_lease(ownership, &owned, ret_asked_at, failure))
    return false;
  if (owned && raise_epoch(ownership, process_owner(), failure))
    return take_lease(ownership, &owned, ret_asked_at, failure) && owned;
  if (owned) {
    give_back(ownership->lease); /* another may reach MySQL */
    return false;
  }
  if (!*standing_by)
    log_info("standing by: another projector of this name is working", NULL);
  *standing_by = true;
  return false;
}

/* A dead owner's lease would have ended by now. */
static void give_up(Stop *process) {
  Failure failure;
  failure_set(&failure, FAILURE_CONFLICT, SOURCE_PROJECTOR, 0,
              "another projector of this name is working and applies what is there; nothing was "
              "left to `run --once`");
  stop_request(process, &failure);
}

Ownership *ownership_acquire(const Config *config, MongoStore *store, bool once, Stop *process,
                             Stop *tenure) {
  Ownership *ownership = g_new0(Ownership, 1);
  ownership->config = config;
  ownership->tenure = tenure;
  ownership->lease = lease_new(store, config->name, process_owner(), config->settings.lease_ms);
  bool standing_by = false;
  int64_t patience_ends = g_get_monotonic_time() + config->settings.lease_ms * 1000;
  for (;;) {
    Failure failure = {0};
    if (stop_requested(process)) {
      ownership_release(ownership);
      return NULL;
    }
    int64_t asked_at;
    if (take(ownership, &standing_by, &asked_at, &failure)) {
      keep_until(ownership, asked_at);
      break;
    }
    if (failure.class != FAILURE_NONE)
      log_failure(LOG_LEVEL_WARNING, "cannot become the owner", &failure);
    if (failure.class == FAILURE_CONFIG || failure.class == FAILURE_MAPPING)
      stop_request(process, &failure);
    if (once && failure.class == FAILURE_NONE && asked_at > patience_ends)
      give_up(process);
    stop_wait(process, MIN(STANDBY_MS, config->settings.lease_ms / 4));
  }
  ownership->claimant =
      g_strdup_printf("%s:%d#%lld", g_get_host_name(), (int)getpid(), (long long)ownership->epoch);
  ownership->heartbeat = g_thread_new("heartbeat", beat, ownership);
  return ownership;
}

void ownership_release(Ownership *ownership) {
  if (!ownership)
    return;
  if (ownership->heartbeat)
    g_thread_join(ownership->heartbeat);
  give_back(ownership->lease);
  lease_free(ownership->lease);
  g_free(ownership->claimant);
  g_free(ownership);
}

void ownership_abandon(const Config *config, MongoStore *store) {
  g_autoptr(Lease) lease = lease_new(store, config->name, process_owner(), 0);
  give_back(lease);
}

int64_t ownership_epoch(const Ownership *ownership) {
  return ownership->epoch;
}

const char *ownership_claimant(const Ownership *ownership) {
  return ownership->claimant;
}

bool ownership_was_nudged(Ownership *ownership) {
  return g_atomic_int_compare_and_exchange(&ownership->nudged, 1, 0);
}

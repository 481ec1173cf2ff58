/* ownership.c - takes, keeps and gives back the lease.
 *
 * The lease decides who should work, the epoch who can: MySQL lets no transaction of an older epoch
 * commit. So a frozen owner that wakes up does no harm even before it notices, and a standby need
 * not wait for the lease to expire: it takes it from an owner whose heartbeats have stopped. */
#include "projector/app/process/ownership.h"

#include "projector/app/shared/identity.h"
#include "projector/domain/suspicion.h"
#include "projector/infra/crash.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/numbering.h"
#include "projector/infra/mysql/fence.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/mysql/loss.h"

#include <unistd.h>

enum {
  ASK_MS = 1000,     /* a standby asks for the lease this often at most, */
  LOOK_MS = 100,     /* and looks at the owner's heartbeats this often; */
  BEAT_MS = 300,     /* the owner beats this often while there is a standby */
  OVERDUE_MS = 3000, /* a heartbeat whose answer takes longer is a trouble */
};

struct Ownership {
  const Config *config;
  MongoStore *store;
  Lease *lease;
  Stop *tenure;
  GThread *heartbeat;
  int64_t epoch;
  char *claimant;
  gint nudged;      /* atomic */
  GMutex lock;      /* of the six fields that follow */
  int64_t asked_at; /* monotonic, us; when the heartbeat in flight was sent; 0: none */
  Failure trouble;  /* of the last heartbeat */
  bool has_report;
  OwnerReport report;
  PauseState pause;
  int64_t now_ms, now_at; /* MongoDB's clock, and when it was read (monotonic, us); 0: unknown */
  int64_t settled_at;     /* from the lease, when it became ours */
  LastApplied *last_applied;
  LeaseState state;
  Suspicion suspicion; /* while standing by */
};

/* Whatever the heartbeat is waiting for, nothing is claimed after two thirds of the lease. */
static void keep_until(Ownership *ownership, int64_t asked_at) {
  Failure late = {0};
  failure_set(&late, FAILURE_FENCED, SOURCE_PROJECTOR, 0, "the lease could not be renewed in time");
  stop_at(ownership->tenure, asked_at + ownership->config->settings.lease_ms * 1000 / 3 * 2, &late);
}

/* Often while there is a standby, which learns the rhythm; otherwise seldom, and that is also how
 * soon a nudge is noticed. */
static int64_t beat_ms(const Ownership *ownership) {
  int64_t seldom_ms = ownership->config->settings.lease_ms / 4;
  return ownership->state.standby ? MIN(BEAT_MS, seldom_ms) : seldom_ms;
}

/* Logs operators' actions (retry, skip and others), including those made while there was no
 * owner. */
static void log_reports(const Ownership *ownership, const LeaseState *state) {
  g_autoptr(GPtrArray) acts = g_ptr_array_new_with_free_func(g_free);
  Failure ignored = {0}; /* the reports stay for the next heartbeat */
  if (state->reports)
    lease_take_reports(ownership->lease, acts, &ignored);
  for (guint i = 0; i < acts->len; i++)
    log_info("done by hand", LOG_FIELDS(LOG_TEXT("what", acts->pdata[i])));
}

static void note_clock(Ownership *ownership, const LeaseState *state, int64_t asked_at) {
  SCOPED_LOCK(&ownership->lock);
  ownership->pause = state->pause;
  ownership->now_ms = state->now_ms;
  ownership->now_at = asked_at;
}

/* NULL: nothing was reported yet. */
static const OwnerReport *take_report(Ownership *ownership, OwnerReport *report) {
  SCOPED_LOCK(&ownership->lock);
  *report = ownership->report;
  report->last_commit = last_applied_get(ownership->last_applied);
  return ownership->has_report ? report : NULL;
}

static void note_asked(Ownership *ownership, int64_t asked_at) {
  SCOPED_LOCK(&ownership->lock);
  ownership->asked_at = asked_at;
}

static void note_answer(Ownership *ownership, const Failure *failure) {
  SCOPED_LOCK(&ownership->lock);
  ownership->asked_at = 0;
  ownership->trouble = *failure;
}

Failure ownership_trouble(Ownership *ownership) {
  SCOPED_LOCK(&ownership->lock);
  Failure trouble = ownership->trouble;
  int64_t waited_us = ownership->asked_at ? g_get_monotonic_time() - ownership->asked_at : 0;
  if (waited_us > (int64_t)OVERDUE_MS * 1000)
    failure_set(&trouble, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 0,
                "no answer to a write: the lease cannot be renewed");
  return trouble;
}

static bool prolong(Ownership *ownership, LeaseState *state, Failure *failure) {
  OwnerReport report;
  note_asked(ownership, g_get_monotonic_time());
  bool good = lease_acquire(ownership->lease, ownership->epoch, take_report(ownership, &report),
                            state, failure);
  note_answer(ownership, failure);
  return good;
}

static gpointer beat(gpointer data) {
  Ownership *ownership = data;
  while (!stop_wait(ownership->tenure, beat_ms(ownership))) {
    Failure failure = {0};
    LeaseState state = {.owned = true};
    int64_t asked_at = g_get_monotonic_time();
    if (prolong(ownership, &state, &failure) && state.owned) {
      crash_point("in_lease_renewal");
      note_clock(ownership, &state, asked_at);
      keep_until(ownership, asked_at);
      log_reports(ownership, &state);
      if (state.nudges != ownership->state.nudges)
        g_atomic_int_set(&ownership->nudged, 1);
      ownership->state = state;
      continue;
    }
    if (!state.owned)
      failure_set(&failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0,
                  "another projector of this name holds the lease");
    else
      log_failure(LOG_LEVEL_WARNING, "cannot renew the lease", &failure);
    if (failure.class == FAILURE_FENCED)
      stop_request(ownership->tenure, &failure);
  }
  return NULL;
}

/* MongoDB remembers the highest epoch and the event committed last. If MySQL is behind them, it has
 * lost committed transactions, and the operator has to decide how to continue. */
static bool check_loss(Ownership *ownership, Session *session, int64_t found,
                       Failure *ret_failure) {
  int64_t reached = ownership->state.epoch;
  LastCommit known = last_applied_get(ownership->last_applied);
  if (known.at_ms < ownership->state.last_commit.at_ms)
    last_applied_set(ownership->last_applied, &ownership->state.last_commit);
  if (found < reached)
    return loss_of_epochs(found, reached, ret_failure);
  return last_applied_check(ownership->last_applied, session, ownership->state.now_ms, ret_failure);
}

/* After check_loss: true when the operator has decided to continue with what MySQL has. */
static bool adopt(Ownership *ownership, Session *session, int64_t found, Failure *failure) {
  if (!ownership->config->settings.adopt || failure->class != FAILURE_CONFIG ||
      failure->source != SOURCE_PROJECTOR)
    return false;
  log_failure(LOG_LEVEL_WARNING, "continuing all the same, as --adopt says", failure);
  *failure = (Failure){0};
  last_applied_set(ownership->last_applied, NULL);
  return found >= ownership->state.epoch ||
         fence_lift(session, ownership->config->name, ownership->state.epoch, failure);
}

static bool raise_epoch(Ownership *ownership, const char *owner, Failure *ret_failure) {
  const Config *config = ownership->config;
  int64_t reached = ownership->state.epoch, found, numbered = 0;
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  if (!session || !identity_claim(config, ownership->store, session, ret_failure) ||
      !fence_look(session, config->name, &found, ret_failure))
    return false;
  if (!check_loss(ownership, session, found, ret_failure) &&
      !adopt(ownership, session, found, ret_failure))
    return false;
  /* Archived events may have been numbered under another name, before a change of names. */
  if (config->mongodb.archive && (!numbering_epoch(ownership->store, &numbered, ret_failure) ||
                                  (numbered > MAX(found, reached) &&
                                   !fence_lift(session, config->name, numbered, ret_failure))))
    return false;
  return fence_take(session, config->name, owner, &ownership->epoch, ret_failure);
}

/* As recorded in the lease; the same in all tenures of this process. */
static const char *process_owner(void) {
  static gsize known;
  static char owner[128];
  if (g_once_init_enter(&known)) {
    g_snprintf(owner, sizeof owner, "%s:%d:%08x", g_get_host_name(), (int)getpid(), g_random_int());
    g_once_init_leave(&known, 1);
  }
  return owner;
}

/* If the lease is ours. */
static void give_back(Lease *lease, const LastCommit *last) {
  Failure failure;
  if (!lease_release(lease, last, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot release the lease", &failure);
}

static bool take_lease(Ownership *ownership, int64_t *ret_asked_at, Failure *failure) {
  *ret_asked_at = g_get_monotonic_time();
  if (!lease_acquire(ownership->lease, ownership->epoch, NULL, &ownership->state, failure))
    return false;
  note_clock(ownership, &ownership->state, *ret_asked_at);
  ownership->settled_at = ownership->state.settled_at;
  return true;
}

static void log_dropped(const LeaseState *state) {
  if (*state->dropped)
    log_warning("events are no longer copied into a collection that the last owner copied them "
                "into: was it started with another mapping file?",
                LOG_FIELDS(LOG_TEXT("collection", state->dropped)));
}

/* A server whose InnoDB is read-only as a whole, as during a repair, says that our table is, or
 * that it cannot be locked. */
static void wait_until_writable(Failure *failure) {
  enum { CANNOT_LOCK = 1015, TABLE_IS_READ_ONLY = 1036 };
  if (failure->source != SOURCE_MYSQL ||
      (failure->code != TABLE_IS_READ_ONLY && failure->code != CANNOT_LOCK))
    return;
  failure->class = FAILURE_UNAVAILABLE;
  failure_prefix(failure, "is InnoDB read-only (innodb_read_only, innodb_force_recovery)?");
}

/* The lease is ours. Raising the epoch may have to wait for a transaction of the previous owner, so
 * the lease is requested again afterwards. */
static bool take_over(Ownership *ownership, int64_t *ret_asked_at, Failure *failure) {
  if (raise_epoch(ownership, process_owner(), failure)) {
    log_dropped(&ownership->state);
    return take_lease(ownership, ret_asked_at, failure) && ownership->state.owned;
  }
  wait_until_writable(failure);
  give_back(ownership->lease, NULL); /* another process may be able to reach MySQL */
  return false;
}

/* One attempt to become the owner. */
static bool take(Ownership *ownership, bool *standing_by, int64_t *ret_asked_at, Failure *failure) {
  if (!take_lease(ownership, ret_asked_at, failure))
    return false;
  if (ownership->state.owned)
    return take_over(ownership, ret_asked_at, failure);
  if (!*standing_by)
    log_info("standing by: another projector of this name is working", NULL);
  *standing_by = true;
  return false;
}

static void log_suspicion(const Ownership *ownership, const LeaseLook *look) {
  const Suspicion *suspicion = &ownership->suspicion;
  int64_t lease_us = ownership->config->settings.lease_ms * 1000;
  log_warning(
      "the owner's heartbeats have stopped: taking over",
      LOG_FIELDS(LOG_TEXT("owner", look->owner),
                 LOG_NUMBER("silent_ms", suspicion->silent_us / 1000),
                 LOG_NUMBER("patience_ms", suspicion_patience_us(suspicion, lease_us) / 1000)));
}

/* Watches the owner's heartbeats, and takes over when they have stopped. */
static bool suspect(Ownership *ownership, int64_t *ret_asked_at, Failure *failure) {
  LeaseLook look;
  if (!lease_watch(ownership->lease, &look, failure)) {
    suspicion_look_failed(&ownership->suspicion);
    return false;
  }
  HeartbeatLook seen = {.beat = look.beat, .tenure = look.election ^ g_str_hash(look.owner)};
  suspicion_look(&ownership->suspicion, seen, g_get_monotonic_time());
  if (look.beat < 0 ||
      !suspicion_is_aroused(&ownership->suspicion, ownership->config->settings.lease_ms * 1000))
    return false;
  bool owned = false;
  *ret_asked_at = g_get_monotonic_time();
  if (!lease_seize(ownership->lease, &look, &owned, failure) || !owned)
    return false;
  log_suspicion(ownership, &look);
  return take_over(ownership, ret_asked_at, failure);
}

/* By now the lease of a dead owner would have expired. */
static void give_up(Stop *process) {
  Failure failure;
  failure_set(&failure, FAILURE_CONFLICT, SOURCE_PROJECTOR, 0,
              "another projector of this name is working and applies the events; `run --once` had "
              "nothing to do");
  stop_request(process, &failure);
}

Ownership *ownership_acquire(const Config *config, MongoStore *store, Metrics *metrics, bool once,
                             Stop *process, Stop *tenure) {
  Ownership *ownership = g_new0(Ownership, 1);
  ownership->config = config;
  ownership->store = store;
  ownership->tenure = tenure;
  g_mutex_init(&ownership->lock);
  ownership->last_applied = last_applied_new(config);
  ownership->lease = lease_new(store, config->name, process_owner(), config->settings.lease_ms);
  bool standing_by = false;
  int64_t patience_ends = g_get_monotonic_time() + config->settings.lease_ms * 1000, ask_at = 0;
  int64_t ask_us = MIN(ASK_MS, config->settings.lease_ms / 4) * 1000;
  for (;;) {
    Failure failure = {0};
    if (stop_requested(process)) {
      ownership_release(ownership);
      return NULL;
    }
    int64_t asked_at = g_get_monotonic_time();
    bool asks = asked_at >= ask_at;
    if (asks)
      ask_at = asked_at + ask_us;
    if (asks ? take(ownership, &standing_by, &asked_at, &failure)
             : suspect(ownership, &asked_at, &failure)) {
      keep_until(ownership, asked_at);
      break;
    }
    if (asks || failure.class != FAILURE_NONE)
      metrics_set_trouble(metrics, &failure);
    if (failure.class != FAILURE_NONE)
      log_failure(LOG_LEVEL_WARNING, "cannot become the owner", &failure);
    if (failure.class == FAILURE_CONFIG || failure.class == FAILURE_MAPPING)
      stop_request(process, &failure);
    if (once && asks && failure.class == FAILURE_NONE && asked_at > patience_ends)
      give_up(process);
    stop_wait(process, failure.class == FAILURE_NONE ? LOOK_MS : ask_us / 1000);
  }
  ownership->claimant =
      g_strdup_printf("%s:%d#%lld", g_get_host_name(), (int)getpid(), (long long)ownership->epoch);
  ownership->heartbeat = g_thread_new("heartbeat", beat, ownership);
  return ownership;
}

void ownership_release(Ownership *ownership) {
  if (!ownership)
    return;
  LastCommit last = last_applied_get(ownership->last_applied);
  if (ownership->heartbeat)
    g_thread_join(ownership->heartbeat);
  give_back(ownership->lease, ownership->heartbeat ? &last : NULL);
  lease_free(ownership->lease);
  last_applied_free(ownership->last_applied);
  g_free(ownership->claimant);
  g_mutex_clear(&ownership->lock);
  g_free(ownership);
}

void ownership_abandon(const Config *config, MongoStore *store) {
  g_autoptr(Lease) lease = lease_new(store, config->name, process_owner(), 0);
  give_back(lease, NULL);
}

int64_t ownership_now_ms(Ownership *ownership) {
  SCOPED_LOCK(&ownership->lock);
  return ownership->now_ms ? ownership->now_ms + (g_get_monotonic_time() - ownership->now_at) / 1000
                           : g_get_real_time() / 1000;
}

int64_t ownership_settled_at(const Ownership *ownership) {
  return ownership->settled_at;
}

LastApplied *ownership_last_applied(const Ownership *ownership) {
  return ownership->last_applied;
}

void ownership_report(Ownership *ownership, const OwnerReport *report) {
  SCOPED_LOCK(&ownership->lock);
  ownership->report = *report;
  ownership->has_report = true;
}

PauseState ownership_pause(Ownership *ownership) {
  SCOPED_LOCK(&ownership->lock);
  return ownership->pause;
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

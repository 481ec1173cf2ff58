/* probe.c - for each store a thread that queries it, notes the answer, and pauses. */
#include "projector/app/web/probe.h"

#include "projector/infra/lock.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/mysql/session_thread.h"

enum {
  PACE_MS = 1000,
  WRITE_EVERY = 2,   /* looks at MySQL; the others write nothing */
  ANSWER_S = 2,      /* longest wait for a connection or an answer */
  OVERDUE_MS = 3000, /* after this time a missing answer is an answer */
};

/* What one thread knows; under the lock. */
typedef struct ProbeKnown {
  StoreState state;
  int64_t asked_at; /* monotonic, us; when the current question was asked; 0: none */
  bool asked;       /* answered at least once */
} ProbeKnown;

struct Probe {
  const Config *config;
  MongoSettings mongodb_settings;
  MysqlSettings mysql_settings;
  GThread *threads[2];
  GMutex lock;
  GCond changed;
  bool ending, writes;
  ProbeKnown mongodb, mysql;
  LeaseView lease;
  int64_t lease_at; /* monotonic, us */
  int64_t ledger_rows, bad_at;
};

static void begin(Probe *probe, ProbeKnown *known) {
  SCOPED_LOCK(&probe->lock);
  known->asked_at = g_get_monotonic_time();
}

static bool is_overdue(const ProbeKnown *known, int64_t now) {
  return known->asked_at && now - known->asked_at > (int64_t)OVERDUE_MS * 1000;
}

/* A failure dates from the question that first met it. */
static void note(Probe *probe, ProbeKnown *known, StoreState *state) {
  SCOPED_LOCK(&probe->lock);
  int64_t now = g_get_monotonic_time(), took_ms = (now - known->asked_at) / 1000;
  if (state->failure.class != FAILURE_NONE) {
    state->since_ms =
        known->state.since_ms ? known->state.since_ms : g_get_real_time() / 1000 - took_ms;
    probe->bad_at = now;
  } else if (is_overdue(known, now)) {
    probe->bad_at = now;
  }
  if (!*state->server)
    g_strlcpy(state->server, known->state.server, sizeof state->server);
  known->state = *state;
  known->asked_at = 0;
  known->asked = true;
}

/* Returns false at the end. */
static bool pause_before_next(Probe *probe) {
  int64_t until = g_get_monotonic_time() + (int64_t)PACE_MS * 1000;
  SCOPED_LOCK(&probe->lock);
  while (!probe->ending)
    if (!g_cond_wait_until(&probe->changed, &probe->lock, until))
      break;
  return !probe->ending;
}

/* Whether MySQL works. */
static bool ask_mysql(Probe *probe, bool write, Session **session) {
  StoreState state = {0};
  int64_t rows = 0;
  Failure ignored;
  begin(probe, &probe->mysql);
  status_ask_mysql(&state, &probe->mysql_settings, probe->config->name, write, session);
  bool counted = *session && ledger_estimate_rows(*session, &rows, &ignored);
  note(probe, &probe->mysql, &state);
  if (counted) {
    SCOPED_LOCK(&probe->lock);
    probe->ledger_rows = rows;
  }
  return state.failure.class == FAILURE_NONE;
}

static gpointer watch_mysql(gpointer data) {
  Probe *probe = data;
  Session *session = NULL;
  bool well = true;
  unsigned looks = 0;
  do { /* that writes are refused is over only when one is not */
    bool write = probe->writes && (!well || looks++ % WRITE_EVERY == 0);
    well = ask_mysql(probe, write, &session);
  } while (pause_before_next(probe));
  session_close(session);
  return NULL;
}

static void ask_mongodb(Probe *probe, MongoStore **store) {
  StoreState state = {0};
  LeaseView lease;
  begin(probe, &probe->mongodb);
  if (!*store)
    *store = mongo_store_open_single(&probe->mongodb_settings, &state.failure);
  bool good = *store && lease_look(*store, probe->config->name, &lease, &state.failure);
  state.reachable = good;
  if (*store)
    g_strlcpy(state.server, mongo_store_server(*store), sizeof state.server);
  note(probe, &probe->mongodb, &state);
  if (!good)
    return;
  SCOPED_LOCK(&probe->lock);
  probe->lease = lease;
  probe->lease_at = g_get_monotonic_time();
}

static gpointer watch_mongodb(gpointer data) {
  Probe *probe = data;
  MongoStore *store = NULL;
  do
    ask_mongodb(probe, &store);
  while (pause_before_next(probe));
  mongo_store_close(store);
  return NULL;
}

Probe *probe_start(const Config *config, bool writes) {
  Probe *probe = g_new0(Probe, 1);
  probe->config = config;
  probe->writes = writes;
  probe->mongodb_settings = config->mongodb;
  probe->mongodb_settings.timeout_ms = ANSWER_S * 1000;
  probe->mysql_settings = config->mysql;
  probe->mysql_settings.answer_s = ANSWER_S;
  probe->mysql_settings.lock_wait_s = 1;
  g_mutex_init(&probe->lock);
  g_cond_init(&probe->changed);
  probe->threads[0] = session_thread_new("ask mysql", watch_mysql, probe);
  probe->threads[1] = g_thread_new("ask mongodb", watch_mongodb, probe);
  return probe;
}

void probe_free(Probe *probe) {
  if (!probe)
    return;
  g_mutex_lock(&probe->lock);
  probe->ending = true;
  g_cond_broadcast(&probe->changed);
  g_mutex_unlock(&probe->lock);
  g_thread_join(probe->threads[0]);
  g_thread_join(probe->threads[1]);
  g_mutex_clear(&probe->lock);
  g_cond_clear(&probe->changed);
  g_free(probe);
}

static StoreState state_now(Probe *probe, const ProbeKnown *known, FailureSource source,
                            int64_t now) {
  StoreState state = known->state;
  if (!is_overdue(known, now) || state.failure.class != FAILURE_NONE)
    return state;
  int64_t waited_ms = (now - known->asked_at) / 1000;
  probe->bad_at = now;
  state.reachable = false;
  state.since_ms = g_get_real_time() / 1000 - waited_ms;
  failure_set(&state.failure, FAILURE_UNAVAILABLE, source, 0, "no answer to a query");
  return state;
}

bool probe_fill(Probe *probe, Status *status, int64_t counted_at, int64_t *ret_ledger_rows) {
  SCOPED_LOCK(&probe->lock);
  int64_t now = g_get_monotonic_time();
  if ((!probe->mongodb.asked && !is_overdue(&probe->mongodb, now)) ||
      (!probe->mysql.asked && !is_overdue(&probe->mysql, now)))
    return false;
  status->mongodb = state_now(probe, &probe->mongodb, SOURCE_MONGODB, now);
  status->mysql = state_now(probe, &probe->mysql, SOURCE_MYSQL, now);
  if (probe->lease_at > counted_at)
    status->lease = probe->lease;
  status->lease.expires_in_ms -= (now - MAX(probe->lease_at, counted_at)) / 1000;
  status->lease.held = status->lease.held && status->lease.expires_in_ms > 0;
  *ret_ledger_rows = probe->ledger_rows;
  return true;
}

int64_t probe_bad_at(Probe *probe) {
  SCOPED_LOCK(&probe->lock);
  return probe->bad_at;
}

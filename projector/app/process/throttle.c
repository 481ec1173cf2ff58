/* throttle.c - once a second: the file, then the replicas.
 *
 * A replica's lag is derived from its ledger, so only the privilege to read that is needed. */
#include "projector/app/process/throttle.h"

#include "projector/app/engine/stop.h"
#include "projector/domain/replica_lag.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/replica.h"
#include "projector/infra/mysql/session_thread.h"

#include <sys/stat.h>

enum {
  LOOK_MS = 1000,
  ANSWER_S = 3,
};

G_STATIC_ASSERT((int)LEDGER_TIME_SIZE <= (int)REPLICA_LAG_TIME_SIZE);

struct Throttle {
  const Config *config; /* as it was when the process started */
  Config *changed;      /* the file as it is now; NULL: unchanged */
  Pace *pace;
  Metrics *metrics;
  Stop *stop;
  GThread *thread;
  struct stat file;    /* when it was last read */
  GPtrArray *sessions; /* of the replicas; NULL: not open */
  Session *primary;
  ReplicaLag *lag;
  bool lagging;
};

static const Config *current(const Throttle *throttle) {
  return throttle->changed ? throttle->changed : throttle->config;
}

/* --- the file ------------------------------------------------------------------------------- */

static bool is_same_file(const struct stat *a, const struct stat *b) {
  return a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void close_sessions(Throttle *throttle) {
  for (guint i = 0; i < throttle->sessions->len; i++)
    session_close(throttle->sessions->pdata[i]);
  g_ptr_array_set_size(throttle->sessions, 0);
  g_clear_pointer(&throttle->primary, session_close);
}

/* The file without what is live; free with json_decref. */
static json_t *lasting(const Config *config) {
  json_t *json = json_deep_copy(config->json), *mysql = json_object_get(json, "mysql");
  json_object_del(json, "max_events_per_s");
  json_object_del(json, "max_replica_lag_s");
  json_object_del(mysql, "replicas");
  json_object_del(mysql, "replica_unreachable");
  return json;
}

static void tell_of_the_rest(const Throttle *throttle, const Config *config) {
  json_t *started = lasting(throttle->config), *now = lasting(config);
  if (!json_equal(started, now))
    log_warning("the mapping file has changed, and some of it takes effect only at the next start",
                NULL);
  json_decref(started);
  json_decref(now);
}

/* Only the pace is taken from a changed file; everything else needs a restart. */
static void read_again(Throttle *throttle) {
  struct stat now;
  if (stat(throttle->config->file, &now) != 0 || is_same_file(&now, &throttle->file))
    return;
  Failure failure = {0};
  throttle->file = now;
  Config *config = config_load(throttle->config->file, &failure);
  if (!config) {
    log_failure(LOG_LEVEL_WARNING, "the mapping file has changed and cannot be used", &failure);
    return;
  }
  const Settings *before = &current(throttle)->settings, *after = &config->settings;
  if (before->max_events_per_s != after->max_events_per_s ||
      before->max_replica_lag_s != after->max_replica_lag_s)
    log_info("the pace has changed",
             LOG_FIELDS(LOG_NUMBER("max_events_per_s", after->max_events_per_s),
                        LOG_NUMBER("max_replica_lag_s", after->max_replica_lag_s)));
  tell_of_the_rest(throttle, config);
  close_sessions(throttle);
  config_free(throttle->changed);
  throttle->changed = config;
}

/* --- replicas ------------------------------------------------------------------------------- */

static bool ask_server(const Throttle *throttle, const MysqlSettings *settings, Session **session,
                       char ret_time[static LEDGER_TIME_SIZE], Failure *ret_failure) {
  if (session_follow(session, settings, ret_failure) &&
      replica_newest(*session, throttle->config->name, ret_time, ret_failure))
    return true;
  g_clear_pointer(session, session_close);
  return false;
}

/* The server that the workers write to, whatever the file names meanwhile. */
static bool look_at_primary(Throttle *throttle) {
  MysqlSettings settings = throttle->config->mysql;
  Failure failure = {0};
  char newest[LEDGER_TIME_SIZE];
  int64_t now = clock_us();
  settings.answer_s = ANSWER_S;
  if (!ask_server(throttle, &settings, &throttle->primary, newest, &failure)) {
    log_failure(LOG_LEVEL_WARNING,
                throttle->lagging
                    ? "cannot read the ledger to compare with: replicas count as lagging until then"
                    : "cannot read the ledger to compare with: no lag is seen until then",
                &failure);
    return false;
  }
  replica_lag_note(throttle->lag, newest, now);
  return true;
}

/* Negative: unreachable. */
static double look_at_replica(Throttle *throttle, guint index, const char *address) {
  g_autofree char *host = NULL;
  MysqlSettings settings = replica_settings(&throttle->config->mysql, address, &host);
  char newest[LEDGER_TIME_SIZE];
  Failure failure = {0};
  settings.answer_s = ANSWER_S;
  if (ask_server(throttle, &settings, (Session **)&throttle->sessions->pdata[index], newest,
                 &failure))
    return replica_lag_of(throttle->lag, newest, clock_us());
  failure_prefix(&failure, "replica %s", address);
  log_failure(LOG_LEVEL_WARNING, "cannot read the lag of a replica", &failure);
  return -1;
}

static void set_lagging(Throttle *throttle, bool lagging, double worst_s) {
  pace_set_lagging(throttle->pace, lagging);
  metrics_set_replica_lag(throttle->metrics, lagging, worst_s);
  if (lagging != throttle->lagging)
    log_warning(lagging ? "a replica lags: nothing is applied until the replica has caught up"
                        : "the replicas have caught up: applying again",
                LOG_FIELDS(LOG_NUMBER("lag_s", (int64_t)worst_s)));
  throttle->lagging = lagging;
}

static void look_at_replicas(Throttle *throttle) {
  const Config *config = current(throttle);
  const Settings *settings = &config->settings;
  bool lagging = false;
  double worst_s = 0;
  if (settings->max_replica_lag_s == 0) {
    set_lagging(throttle, false, 0);
    return;
  }
  if (!look_at_primary(throttle)) /* if it is away, events wait anyway */
    return;
  g_ptr_array_set_size(throttle->sessions, (gint)config->replicas->len);
  for (guint i = 0; i < config->replicas->len; i++) {
    double lag_s = look_at_replica(throttle, i, config->replicas->pdata[i]);
    lagging |= lag_s < 0 ? !settings->ignore_unreachable_replicas
                         : lag_s > (double)settings->max_replica_lag_s;
    worst_s = MAX(worst_s, lag_s);
  }
  set_lagging(throttle, lagging, worst_s);
}

/* -------------------------------------------------------------------------------------------- */

static gpointer run(gpointer data) {
  Throttle *throttle = data;
  do {
    read_again(throttle);
    pace_set_rate(throttle->pace, current(throttle)->settings.max_events_per_s);
    look_at_replicas(throttle);
  } while (!stop_wait(throttle->stop, LOOK_MS));
  close_sessions(throttle);
  return NULL;
}

Throttle *throttle_start(const Config *config, Pace *pace, Metrics *metrics) {
  Throttle *throttle = g_new0(Throttle, 1);
  *throttle = (Throttle){.config = config,
                         .pace = pace,
                         .metrics = metrics,
                         .stop = stop_new(),
                         .sessions = g_ptr_array_new(),
                         .lag = replica_lag_new()};
  if (stat(config->file, &throttle->file) != 0)
    throttle->file = (struct stat){0};
  pace_set_rate(pace, config->settings.max_events_per_s);
  throttle->thread = session_thread_new("throttle", run, throttle);
  return throttle;
}

void throttle_free(Throttle *throttle) {
  if (!throttle)
    return;
  stop_request(throttle->stop, NULL);
  g_thread_join(throttle->thread);
  stop_free(throttle->stop);
  config_free(throttle->changed);
  g_ptr_array_unref(throttle->sessions);
  replica_lag_free(throttle->lag);
  g_free(throttle);
}

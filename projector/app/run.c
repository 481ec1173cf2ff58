/* run.c - `projector run`: become the owner, work, hand over.
 *
 * A tenure is the time in which this process owns the name. Losing it ends the tenure, not the
 * process: it stands by and takes over again when it is its turn. */
#include "projector/app/command.h"
#include "projector/app/keeper.h"
#include "projector/app/ownership.h"
#include "projector/app/pipeline.h"
#include "projector/app/reader.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/catalog.h"

#include <signal.h>
#include <stdio.h>

enum {
  PROGRESS_MS = 10000, /* between two lines of progress, when there is any */
  TICK_MS = 200,
};

typedef struct Tenure {
  const Config *config;
  MongoStore *store;
  Ownership *ownership;
  Stop *stop;
  Ledger ledger;
  Shards shards;
  Worker **workers;
  Acker *acker;
  Reader *reader;
  Keeper *keeper;
} Tenure;

/* --- the parts of a tenure ------------------------------------------------------------------- */

static void make_shards(Tenure *tenure) {
  const Settings *settings = &tenure->config->settings;
  tenure->shards.count = (unsigned)settings->workers;
  tenure->shards.shards = g_new0(Shard *, tenure->shards.count);
  /* A quarter of the memory for queued events; the rest is for a batch being built, its statements,
   * the drivers' buffers and the program itself. */
  size_t bytes = (size_t)settings->memory_mb * 1024 * 1024 / 4 / tenure->shards.count;
  for (unsigned i = 0; i < tenure->shards.count; i++)
    tenure->shards.shards[i] = shard_new((size_t)settings->batch * 4, bytes);
}

/* The keeper comes first: it sweeps and loads the holds before anything new is read. */
static bool start(Tenure *tenure, bool once, Failure *ret_failure) {
  const char *claimant = ownership_claimant(tenure->ownership);
  tenure->ledger = (Ledger){tenure->config->name, ownership_epoch(tenure->ownership)};
  make_shards(tenure);
  tenure->keeper = keeper_new(tenure->config, &tenure->ledger, tenure->store, claimant,
                              &tenure->shards, tenure->stop, ret_failure);
  if (!tenure->keeper)
    return false;
  tenure->acker = acker_new(tenure->store, claimant, tenure->stop);
  tenure->workers = g_new0(Worker *, tenure->shards.count);
  for (unsigned i = 0; i < tenure->shards.count; i++)
    tenure->workers[i] = worker_new(tenure->config, &tenure->ledger, tenure->store, claimant,
                                    tenure->shards.shards[i], tenure->acker, tenure->stop);
  acker_start(tenure->acker);
  for (unsigned i = 0; i < tenure->shards.count; i++)
    worker_start(tenure->workers[i]);
  keeper_start(tenure->keeper);
  tenure->reader = reader_start(tenure->store, &tenure->shards, tenure->stop, once);
  return true;
}

static Counters sum_counters(const Tenure *tenure) {
  Counters sum = {0};
  for (unsigned i = 0; i < tenure->shards.count; i++) {
    Counters one = worker_counters(tenure->workers[i]);
    sum.applied += one.applied;
    sum.superseded += one.superseded;
    sum.ignored += one.ignored;
    sum.repeated += one.repeated;
    sum.failed += one.failed;
    sum.gaps += one.gaps;
  }
  return sum;
}

static void log_counters(const Tenure *tenure, const char *message, const Counters *since) {
  Counters now = sum_counters(tenure);
  size_t queued = 0, held = 0;
  for (unsigned i = 0; i < tenure->shards.count; i++) {
    ShardFigures figures = shard_figures(tenure->shards.shards[i]);
    queued += figures.queued;
    held += figures.holds;
  }
  log_info(message, LOG_FIELDS(LOG_NUMBER("applied", now.applied - since->applied),
                               LOG_NUMBER("superseded", now.superseded - since->superseded),
                               LOG_NUMBER("ignored", now.ignored - since->ignored),
                               LOG_NUMBER("repeated", now.repeated - since->repeated),
                               LOG_NUMBER("failed", now.failed - since->failed),
                               LOG_NUMBER("queued", (int64_t)queued),
                               LOG_NUMBER("blocked_aggregates", (int64_t)held)));
}

static void alarm_when_blocked(const Tenure *tenure, bool *alarmed) {
  size_t held = 0;
  for (unsigned i = 0; i < tenure->shards.count; i++)
    held += shard_figures(tenure->shards.shards[i]).holds;
  bool over = held > (size_t)tenure->config->settings.max_blocked;
  if (over && !*alarmed)
    log_error("too many aggregates are blocked by failed events",
              LOG_FIELDS(LOG_NUMBER("blocked_aggregates", (int64_t)held),
                         LOG_NUMBER("max_blocked", tenure->config->settings.max_blocked)));
  *alarmed = over;
}

/* Watches until the tenure or the process is to stop. */
static void watch(const Tenure *tenure, Stop *process) {
  Counters since = {0};
  int64_t told_at = g_get_monotonic_time();
  bool alarmed = false;
  while (!stop_wait(tenure->stop, TICK_MS)) {
    if (stop_requested(process))
      stop_request(tenure->stop, NULL);
    if (ownership_was_nudged(tenure->ownership))
      keeper_review(tenure->keeper);
    if (g_get_monotonic_time() - told_at < (int64_t)PROGRESS_MS * 1000)
      continue;
    told_at = g_get_monotonic_time();
    alarm_when_blocked(tenure, &alarmed);
    Counters now = sum_counters(tenure);
    if (now.applied + now.superseded + now.ignored + now.repeated + now.failed !=
        since.applied + since.superseded + since.ignored + since.repeated + since.failed)
      log_counters(tenure, "progress", &since);
    since = now;
  }
}

/* Running batches are finished, committed events acknowledged; what is only queued stays in the
 * outbox as it is. */
static void finish(Tenure *tenure) {
  for (unsigned i = 0; i < tenure->shards.count; i++)
    shard_stop(tenure->shards.shards[i]);
  for (unsigned i = 0; tenure->workers && i < tenure->shards.count; i++)
    worker_join(tenure->workers[i]);
  if (tenure->acker)
    acker_join(tenure->acker);
  reader_finish(tenure->reader);
  keeper_free(tenure->keeper);
  acker_free(tenure->acker);
  if (tenure->workers)
    log_counters(tenure, "stopped working", &(Counters){0});
  for (unsigned i = 0; i < tenure->shards.count; i++) {
    if (tenure->workers)
      worker_free(tenure->workers[i]);
    shard_free(tenure->shards.shards[i]);
  }
  g_free(tenure->workers);
  g_free(tenure->shards.shards);
}

/* --- the process ------------------------------------------------------------------------------ */

static void serve(const Config *config, MongoStore *store, Stop *process, bool once) {
  Stop *stop = stop_new();
  Failure failure = {0};
  Tenure tenure = {.config = config, .store = store, .stop = stop};
  tenure.ownership = ownership_acquire(config, store, process, stop);
  if (tenure.ownership) {
    log_info("working", LOG_FIELDS(LOG_TEXT("name", config->name),
                                   LOG_TEXT("owner", ownership_claimant(tenure.ownership)),
                                   LOG_NUMBER("epoch", ownership_epoch(tenure.ownership)),
                                   LOG_NUMBER("workers", config->settings.workers)));
    if (start(&tenure, once, &failure))
      watch(&tenure, process);
    stop_request(stop, failure.class == FAILURE_NONE ? NULL : &failure);
    finish(&tenure);
    ownership_release(tenure.ownership);
    failure = stop_reason(stop);
    if (failure.class != FAILURE_NONE)
      log_failure(LOG_LEVEL_ERROR, "the tenure ended", &failure);
    if (failure.class == FAILURE_CONFIG || (once && failure.class == FAILURE_NONE))
      stop_request(process, failure.class == FAILURE_CONFIG ? &failure : NULL);
    else if (failure.class != FAILURE_NONE)
      stop_wait(process, 200); /* a failure to start must not spin */
  }
  stop_free(stop);
}

static Stop *signalled_stop;

static gpointer wait_for_signal(gpointer data) {
  const sigset_t *signals = data;
  int number;
  sigwait(signals, &number);
  log_info("stopping", LOG_FIELDS(LOG_TEXT("signal", number == SIGINT ? "SIGINT" : "SIGTERM")));
  stop_request(signalled_stop, NULL);
  return NULL;
}

/* Blocks the signals in every thread that will be started and gives them to one. */
static void handle_signals(Stop *process) {
  static sigset_t signals;
  signalled_stop = process;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  signal(SIGHUP, SIG_IGN);
  g_thread_unref(g_thread_new("signals", wait_for_signal, &signals));
}

/* Refuses to start on tables that do not fit: nothing may be written then. */
static bool check_tables(const Config *config, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  g_autoptr(GPtrArray) findings =
      session ? catalog_check(session, config->mapping, ret_failure) : NULL;
  if (!findings)
    return false;
  log_info("MySQL", LOG_FIELDS(LOG_TEXT("server", session_server(session))));
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    if (finding->error)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MYSQL, 0, "%s", finding->text);
    log_warning("tables", LOG_FIELDS(LOG_TEXT("reason", finding->text)));
  }
  return true;
}

int command_run(int argc, char **argv) {
  gboolean once = FALSE;
  const GOptionEntry options[] = {{"once", 0, 0, G_OPTION_ARG_NONE, &once,
                                   "Stop when the outbox holds nothing that can be applied now",
                                   NULL},
                                  G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv, "- apply the outbox's events to MySQL",
          "Projects until SIGTERM or SIGINT: finishes the running batch, gives claims and "
          "lease back, exits 0.",
          options, &config, &status))
    return status;
  Stop *process = stop_new();
  handle_signals(process);
  Failure failure = {0};
  g_autoptr(MongoStore) store = mongo_store_open(&config->mongodb, &failure);
  if (!store || !check_tables(config, &failure))
    return command_fail(&failure);
  log_info("MongoDB", LOG_FIELDS(LOG_TEXT("server", mongo_store_server(store))));
  while (!stop_requested(process))
    serve(config, store, process, once);
  failure = stop_reason(process);
  return failure.class == FAILURE_NONE ? EXIT_GOOD : command_fail(&failure);
}

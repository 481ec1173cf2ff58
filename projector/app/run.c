/* run.c - `projector run`: become the owner, work, hand over.
 *
 * A tenure is the time in which this process owns the name. Losing it ends the tenure, not the
 * process: it stands by and takes over again when it is its turn. */
#include "projector/app/command.h"
#include "projector/app/keeper.h"
#include "projector/app/ownership.h"
#include "projector/app/pipeline.h"
#include "projector/app/reader.h"
#include "projector/app/service.h"
#include "projector/app/web/http.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/catalog.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum {
  PROGRESS_MS = 10000, /* between two lines of progress, when there is any */
  TICK_MS = 200,
  STOP_MS = 1500,     /* after a signal, for an end in order */
  HAND_OVER_MS = 300, /* then, to give the lease back */
};

typedef struct Tenure {
  const Config *config;
  MongoStore *store;
  Ownership *ownership;
  Stop *stop;
  Metrics *metrics;
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
  tenure->shards.due = alarm_new();
  tenure->shards.shards = g_new0(Shard *, tenure->shards.count);
  /* A quarter of the memory for queued events; the rest is for a batch being built, its statements,
   * the drivers' buffers and the program itself. */
  ShardLimits limits = {
      .events = (size_t)settings->batch * 4,
      .bytes = (size_t)settings->memory_mb * 1024 * 1024 / 4 / tenure->shards.count,
      .holds = MAX((size_t)settings->max_blocked / tenure->shards.count, 1),
  };
  for (unsigned i = 0; i < tenure->shards.count; i++)
    tenure->shards.shards[i] = shard_new(limits, tenure->shards.due);
}

/* The keeper comes first: it sweeps before anything new is read. */
static bool start(Tenure *tenure, bool once, Failure *ret_failure) {
  const char *claimant = ownership_claimant(tenure->ownership);
  tenure->ledger = (Ledger){tenure->config->name, ownership_epoch(tenure->ownership)};
  make_shards(tenure);
  tenure->keeper = keeper_new(tenure->config, &tenure->ledger, tenure->store, claimant,
                              &tenure->shards, tenure->stop, ret_failure);
  if (!tenure->keeper)
    return false;
  tenure->acker = acker_new(tenure->store, claimant, &tenure->shards, tenure->stop);
  tenure->workers = g_new0(Worker *, tenure->shards.count);
  for (unsigned i = 0; i < tenure->shards.count; i++)
    tenure->workers[i] = worker_new(tenure->config, &tenure->ledger, tenure->store, claimant,
                                    &tenure->shards, i, tenure->acker, tenure->stop);
  for (unsigned i = 0; i < tenure->shards.count; i++)
    worker_count_in(tenure->workers[i], tenure->metrics);
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

static void tell_service(const Tenure *tenure) {
  for (unsigned i = 0; i < tenure->shards.count; i++)
    service_sees(i, worker_moves(tenure->workers[i]));
}

/* From there on the shard takes nothing but what may end a hold. */
static void alarm_when_blocked(const Tenure *tenure, bool *alarmed) {
  size_t held = 0;
  bool over = false;
  for (unsigned i = 0; i < tenure->shards.count; i++) {
    ShardFigures figures = shard_figures(tenure->shards.shards[i]);
    held += figures.holds;
    over |= figures.full;
  }
  if (over && !*alarmed)
    log_error("too many aggregates are blocked by failed events: nothing new is taken until some "
              "are retried, skipped or refreshed",
              LOG_FIELDS(LOG_NUMBER("blocked_aggregates", (int64_t)held),
                         LOG_NUMBER("max_blocked", tenure->config->settings.max_blocked)));
  /* Around the limit, holds come and go. */
  *alarmed = over || (*alarmed && held > (size_t)tenure->config->settings.max_blocked / 4 * 3);
}

static void publish(const Tenure *tenure) {
  TenureView view = {.epoch = ownership_epoch(tenure->ownership),
                     .workers = tenure->shards.count,
                     .reader = reader_state(tenure->reader),
                     .restarts = reader_restarts(tenure->reader)};
  for (unsigned i = 0; i < tenure->shards.count; i++) {
    ShardFigures figures = shard_figures(tenure->shards.shards[i]);
    view.queued += figures.queued;
    view.in_hand += figures.in_hand;
    view.bytes += figures.bytes;
    view.blocked += figures.holds;
    view.waiting += worker_is_waiting(tenure->workers[i]);
  }
  metrics_publish(tenure->metrics, &view);
}

/* Watches until the tenure or the process is to stop. */
static void watch(const Tenure *tenure, Stop *process) {
  Counters since = {0};
  int64_t told_at = g_get_monotonic_time();
  bool alarmed = false;
  service_begins_work(tenure->shards.count);
  publish(tenure);
  while (!stop_wait(tenure->stop, TICK_MS)) {
    tell_service(tenure);
    if (stop_requested(process))
      stop_request(tenure->stop, NULL);
    if (ownership_was_nudged(tenure->ownership))
      keeper_review(tenure->keeper);
    alarm_when_blocked(tenure, &alarmed);
    publish(tenure);
    if (g_get_monotonic_time() - told_at < (int64_t)PROGRESS_MS * 1000)
      continue;
    told_at = g_get_monotonic_time();
    Counters now = sum_counters(tenure);
    if (now.applied + now.superseded + now.ignored + now.repeated + now.failed !=
        since.applied + since.superseded + since.ignored + since.repeated + since.failed)
      log_counters(tenure, "progress", &since);
    since = now;
  }
  service_ends_work();
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
  alarm_free(tenure->shards.due);
}

/* --- the process ------------------------------------------------------------------------------ */

static void serve(const Config *config, MongoStore *store, Metrics *metrics, Stop *process,
                  bool once) {
  Stop *stop = stop_new();
  Failure failure = {0};
  Tenure tenure = {.config = config, .store = store, .stop = stop, .metrics = metrics};
  metrics_set_role(metrics, ROLE_STANDBY);
  tenure.ownership = ownership_acquire(config, store, once, process, stop);
  if (tenure.ownership) {
    log_info("working", LOG_FIELDS(LOG_TEXT("name", config->name),
                                   LOG_TEXT("owner", ownership_claimant(tenure.ownership)),
                                   LOG_NUMBER("epoch", ownership_epoch(tenure.ownership)),
                                   LOG_NUMBER("workers", config->settings.workers)));
    if (start(&tenure, once, &failure)) {
      metrics_set_role(metrics, ROLE_WORKING);
      watch(&tenure, process);
    }
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

/* --- the end of the process --------------------------------------------------------------------
 */

typedef enum EndedBy { NOT_ENDED, ENDED_IN_ORDER, ENDED_BY_TIME } EndedBy;

/* What the thread that waits for signals knows. */
typedef struct Ending {
  Stop *process;
  const Config *config;
  MongoStore *store; /* atomic; NULL: not open yet */
  GMutex lock;       /* of the monitor */
  Monitor *monitor;  /* NULL: not there yet, or not any more */
  gint by;           /* atomic; EndedBy */
  gint handed_over;  /* atomic */
} Ending;

/* The first to ask ends the process. */
static bool may_end(Ending *ending, EndedBy by) {
  return g_atomic_int_compare_and_exchange(&ending->by, NOT_ENDED, (gint)by);
}

static gpointer hand_over(gpointer data) {
  Ending *ending = data;
  ownership_abandon(ending->config, g_atomic_pointer_get(&ending->store));
  g_atomic_int_set(&ending->handed_over, 1);
  return NULL;
}

/* A stop does not wait for a store that does not answer, or for somebody's lock: what is in hand
 * then is found by the next owner, as after a crash. */
static void end_by_time(Ending *ending) {
  g_usleep(STOP_MS * 1000);
  if (!may_end(ending, ENDED_BY_TIME))
    return;
  log_warning("stopping in the middle: a store has not answered in time", NULL);
  if (g_atomic_pointer_get(&ending->store))
    g_thread_unref(g_thread_new("hand over", hand_over, ending));
  for (int waited = 0; waited < HAND_OVER_MS && !g_atomic_int_get(&ending->handed_over); waited++)
    g_usleep(1000);
  _exit(EXIT_GOOD);
}

static sigset_t awaited_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

static void tell_status(Ending *ending) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&ending->lock);
  if (ending->monitor)
    monitor_tell(ending->monitor);
}

static void set_monitor(Ending *ending, Monitor *monitor) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&ending->lock);
  ending->monitor = monitor;
}

static gpointer wait_for_signal(gpointer data) {
  Ending *ending = data;
  sigset_t signals = awaited_signals();
  int number;
  while (sigwait(&signals, &number) == 0 && number == SIGUSR1)
    tell_status(ending);
  log_info("stopping", LOG_FIELDS(LOG_TEXT("signal", number == SIGINT ? "SIGINT" : "SIGTERM")));
  service_is_stopping();
  stop_request(ending->process, NULL);
  end_by_time(ending);
  return NULL;
}

/* Blocks the signals in every thread that will be started and gives them to one. */
static void handle_signals(Ending *ending) {
  sigset_t signals = awaited_signals();
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  signal(SIGHUP, SIG_IGN);
  g_thread_unref(g_thread_new("signals", wait_for_signal, ending));
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
  service_is_up();
  return true;
}

/* There in a build that looks for leaks, which does so when a program ends in the usual way. */
extern void __lsan_do_leak_check(void) __attribute__((weak));

/* Ends the process without closing the driver's pool: that waits for the thread that watches the
 * servers, which looks up twice a second. */
static int leave(int status) {
  if (__lsan_do_leak_check)
    __lsan_do_leak_check();
  fflush(NULL);
  _exit(status);
}

/* Until the process is stopped, or cannot start. The store outlives it: the thread that ends the
 * process may need it. */
static void work(const Config *config, Ending *ending, bool once, MongoStore **ret_store,
                 Failure *ret_failure) {
  g_autoptr(Metrics) metrics = metrics_new(config->mapping);
  g_autoptr(Monitor) monitor = monitor_new(config, metrics);
  g_autoptr(Http) http = NULL;
  if (!once && *config->settings.http &&
      !(http = http_start(config, metrics, monitor, ret_failure))) {
    if (config->settings.http_asked_for)
      return;
    /* A second projector on this machine: that nobody can look at it is no reason not to work. */
    log_failure(LOG_LEVEL_WARNING, "no HTTP: set \"http\" to another port, or to \"\"",
                ret_failure);
    *ret_failure = (Failure){0};
  }
  MongoStore *store = *ret_store = mongo_store_open(&config->mongodb, ret_failure);
  g_atomic_pointer_set(&ending->store, store);
  if (!store || !check_tables(config, ret_failure))
    return;
  log_info("MongoDB", LOG_FIELDS(LOG_TEXT("server", mongo_store_server(store))));
  monitor_start(monitor, store, http != NULL);
  set_monitor(ending, monitor);
  if (http)
    http_open_actions(http, store);
  while (!stop_requested(ending->process))
    serve(config, store, metrics, ending->process, once);
  *ret_failure = stop_reason(ending->process);
  set_monitor(ending, NULL);
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
          "lease back, exits 0. While another projector of this name is working it stands by; "
          "with --once no longer than a lease, then it exits 1.",
          options, &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  static Ending ending; /* outlives this call: the thread that waits for signals may */
  ending = (Ending){.process = stop_new(), .config = config};
  handle_signals(&ending);
  Failure failure = {0};
  g_autoptr(MongoStore) store = NULL;
  work(config, &ending, once, &store, &failure);
  while (!may_end(&ending, ENDED_IN_ORDER))
    pause(); /* the other thread is about to end the process */
  return leave(failure.class == FAILURE_NONE ? EXIT_GOOD : command_fail(&failure));
}

/* run.c - `projector run`: the process around its tenures.
 *
 * A tenure (tenure.c) is the time in which this process owns the name. Losing it ends the tenure,
 * not the process: it stands by and takes over again when it is its turn. */
#define _GNU_SOURCE /* close_range */
#include "projector/app/process/examine.h"
#include "projector/app/process/ownership.h"
#include "projector/app/process/service.h"
#include "projector/app/process/tenure.h"
#include "projector/app/process/throttle.h"
#include "projector/app/shared/command.h"
#include "projector/app/web/http.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"

#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum {
  STOP_MS = 1500,     /* for an orderly end after a signal */
  HAND_OVER_MS = 300, /* after that, for giving the lease back */
  PAUSE_MS = 200,     /* first pause after a tenure that failed at once; doubles */
  PAUSE_MAX_MS = 5000,
};

/* --- the end of the process ------------------------------------------------------------------- */

typedef enum EndedBy { NOT_ENDED, ENDED_IN_ORDER, ENDED_BY_TIME } EndedBy;

/* What the thread that waits for signals needs. */
typedef struct Ending {
  Stop *process;
  const Config *config;
  MongoStore *store; /* atomic; NULL: not open yet */
  GMutex lock;       /* of the monitor */
  Monitor *monitor;  /* NULL: not there yet, or no longer */
  gint by;           /* atomic; EndedBy */
  gint handed_over;  /* atomic */
} Ending;

/* The first to ask may end the process. */
static bool may_end(Ending *ending, EndedBy by) {
  return g_atomic_int_compare_and_exchange(&ending->by, NOT_ENDED, (gint)by);
}

static gpointer hand_over(gpointer data) {
  Ending *ending = data;
  ownership_abandon(ending->config, g_atomic_pointer_get(&ending->store));
  g_atomic_int_set(&ending->handed_over, 1);
  return NULL;
}

/* A stop does not wait for an unresponsive store or another session's lock: the next owner finds
 * what was in hand, as after a crash. */
static void end_by_time(Ending *ending) {
  g_usleep(STOP_MS * 1000);
  if (!may_end(ending, ENDED_BY_TIME))
    return;
  log_warning("stopping in mid-batch: a store did not answer in time", NULL);
  if (g_atomic_pointer_get(&ending->store))
    g_thread_unref(g_thread_new("hand over", hand_over, ending));
  for (int waited = 0; waited < HAND_OVER_MS && !g_atomic_int_get(&ending->handed_over); waited++)
    g_usleep(1000);
  log_finish();
  Failure why = stop_reason(ending->process);
  _exit(why.class == FAILURE_NONE ? EXIT_GOOD : command_fail(&why));
}

static sigset_t awaited_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

static void log_status(Ending *ending) {
  SCOPED_LOCK(&ending->lock);
  if (ending->monitor)
    monitor_log(ending->monitor);
}

static void set_monitor(Ending *ending, Monitor *monitor) {
  SCOPED_LOCK(&ending->lock);
  ending->monitor = monitor;
}

static gpointer wait_for_signal(gpointer data) {
  Ending *ending = data;
  sigset_t signals = awaited_signals();
  int number;
  while (sigwait(&signals, &number) == 0 && number == SIGUSR1)
    log_status(ending);
  log_info("stopping", LOG_FIELDS(LOG_TEXT("signal", number == SIGINT ? "SIGINT" : "SIGTERM")));
  service_is_stopping();
  stop_request(ending->process, NULL);
  end_by_time(ending);
  return NULL;
}

/* Blocks the signals in all threads to be started, and starts one that receives them. */
static void handle_signals(Ending *ending) {
  sigset_t signals = awaited_signals();
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  signal(SIGHUP, SIG_IGN);
  g_thread_unref(g_thread_new("signals", wait_for_signal, ending));
}

/* Present in a build that detects leaks; it does so when a program exits normally. */
extern void __lsan_do_leak_check(void) __attribute__((weak));

/* Ends the process without closing the driver's pool: closing waits for the thread that monitors
 * the servers, which wakes up only twice a second. */
static int leave(int status) {
  if (__lsan_do_leak_check)
    __lsan_do_leak_check();
  fflush(NULL);
  log_finish();
  _exit(status);
}

/* Works until the process is stopped, or cannot start. The store outlives this: the thread that
 * ends the process may need it. */
static void work(const Config *config, Ending *ending, bool once, MongoStore **ret_store,
                 Failure *ret_failure) {
  g_autoptr(Metrics) metrics = metrics_new(config->mapping);
  g_autoptr(Monitor) monitor = monitor_new(config, metrics);
  g_autoptr(Waiting) waiting = waiting_new(config, metrics);
  g_autoptr(Pace) pace = pace_new();
  g_autoptr(Http) http = NULL;
  if (!once && *config->settings.http &&
      !(http = http_start(config, metrics, monitor, waiting, ret_failure))) {
    if (config->settings.http_asked_for)
      return;
    /* Another projector on this machine may have the port: this one can work without its page. */
    log_failure(LOG_LEVEL_WARNING, "no HTTP: set \"http\" to another port, or to \"\"",
                ret_failure);
    *ret_failure = (Failure){0};
  }
  MongoStore *store = *ret_store = mongo_store_open(&config->mongodb, ret_failure);
  g_atomic_pointer_set(&ending->store, store);
  if (!store || !examine(config, store, ret_failure))
    return;
  log_info("MongoDB", LOG_FIELDS(LOG_TEXT("server", mongo_store_server(store))));
  monitor_start(monitor, store, http != NULL);
  set_monitor(ending, monitor);
  waiting_start(waiting, store);
  g_autoptr(Throttle) throttle G_GNUC_UNUSED = throttle_start(config, pace, metrics);
  if (http)
    http_open_actions(http, store);
  int64_t pause_ms = PAUSE_MS;
  while (!stop_requested(ending->process))
    if (tenure_serve(config, store, metrics, pace, ending->process, once))
      pause_ms = PAUSE_MS;
    else if (!stop_wait(ending->process, pause_ms))
      pause_ms = MIN(pause_ms * 2, PAUSE_MAX_MS);
  *ret_failure = stop_reason(ending->process);
  set_monitor(ending, NULL);
}

/* Starts this process again with the files as they are now, so that all its connections use the new
 * secrets. Returns only on failure. */
static void start_again(void) {
  g_autofree char *text = NULL;
  g_autoptr(GPtrArray) words = g_ptr_array_new();
  gsize length;
  if (!g_file_get_contents("/proc/self/cmdline", &text, &length, NULL))
    return;
  for (gsize at = 0; at < length; at += strlen(text + at) + 1)
    g_ptr_array_add(words, text + at);
  g_ptr_array_add(words, NULL);
  fflush(NULL);
  close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  execv("/proc/self/exe", (char **)words->pdata);
}

int command_run(int argc, char **argv) {
  gboolean once = FALSE, adopt = FALSE;
  const GOptionEntry options[] = {
      {"once", 0, 0, G_OPTION_ARG_NONE, &once,
       "Stop when the outbox holds nothing that can be applied now", NULL},
      {"adopt", 0, 0, G_OPTION_ARG_NONE, &adopt,
       "Continue with a MySQL that was restored, a MongoDB that was moved, or under another name",
       NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "- apply the outbox's events to MySQL",
              "Runs until SIGTERM or SIGINT, then finishes the current batch, releases claims and "
              "lease, and exits with 0. Stands by while another projector of this name is working; "
              "with --once at most for the length of a lease, then exits with 1.",
              options},
          &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  config->settings.adopt = adopt;
  static Ending ending; /* the thread that waits for signals may outlive this call */
  ending = (Ending){.process = stop_new(), .config = config};
  handle_signals(&ending);
  Failure failure = {0};
  g_autoptr(MongoStore) store = NULL;
  work(config, &ending, once, &store, &failure);
  while (!may_end(&ending, ENDED_IN_ORDER))
    pause(); /* the other thread is about to end the process */
  if (failure.class == FAILURE_CONFIG && config_secrets_have_changed(config)) {
    log_failure(LOG_LEVEL_WARNING,
                "a secret file has changed since it was read: restarting with it", &failure);
    log_finish();
    start_again();
  }
  return leave(failure.class == FAILURE_NONE ? EXIT_GOOD : command_fail(&failure));
}

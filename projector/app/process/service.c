/* service.c - a thread that says "alive" four times within the service manager's limit, and what
 * the manager's socket had no room for. */
#include "projector/app/process/service.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/notify.h"

#include <glib.h>

enum { RETELL_MS = 1000 }; /* without a limit */

typedef struct ServiceSeen {
  int moves;
  int64_t moved_at; /* monotonic, us */
} ServiceSeen;

static GMutex lock; /* of what follows */
static int64_t interval_us;
static bool complained;
static unsigned worker_count; /* 0: no tenure */
static ServiceSeen *seen;
static bool untold_up; /* not sent yet, or not taken */
static const char *untold_status;

/* Sends the message after what is still untold; "": only that. */
static void tell(const char *message) {
  g_autofree char *whole =
      g_strconcat(untold_up ? "READY=1\n" : "", untold_status ? "STATUS=" : "",
                  untold_status ? untold_status : "", untold_status ? "\n" : "", message, NULL);
  if (!*whole || !notify(whole))
    return;
  untold_up = false;
  untold_status = NULL;
}

static void tell_status(const char *status) {
  untold_status = status;
  tell("");
}

/* Half of the limit is for the work, the rest for the machine and the manager. */
static bool all_progress(int64_t now) {
  for (unsigned i = 0; i < worker_count; i++)
    if (now - seen[i].moved_at > interval_us / 2)
      return false;
  return true;
}

static void notify_watchdog(void) {
  SCOPED_LOCK(&lock);
  bool watched = interval_us > 0, alive = !watched || all_progress(clock_us());
  tell(watched && alive ? "WATCHDOG=1" : "");
  if (!alive && !complained)
    log_error("a worker hangs: the service manager's watchdog is no longer notified", NULL);
  complained = !alive;
}

static gpointer run(gpointer data) {
  (void)data;
  for (;;) {
    notify_watchdog();
    g_usleep(interval_us > 0 ? (gulong)interval_us / 4 : RETELL_MS * 1000UL);
  }
  return NULL;
}

void service_is_up(void) {
  SCOPED_LOCK(&lock);
  untold_up = true;
  tell_status("standing by");
  interval_us = notify_watchdog_us();
  if (interval_us > 0 || notify_has_manager())
    g_thread_unref(g_thread_new("watchdog", run, NULL));
}

void service_is_stopping(void) {
  SCOPED_LOCK(&lock);
  tell("STOPPING=1");
}

/* The manager's limit is the operator's word. */
static void compare_limits(int64_t step_ms) {
  if (interval_us > 0 && step_ms * 1000 > interval_us / 2)
    log_warning(
        "the service manager may end this process while it waits for a lock: WatchdogSec must "
        "be more than twice the longest step, which is mysql.lock_wait_s and 30 s",
        LOG_FIELDS(LOG_NUMBER("step_ms", step_ms), LOG_NUMBER("watchdog_ms", interval_us / 1000)));
}

void service_begins_work(unsigned workers, int64_t step_ms) {
  compare_limits(step_ms);
  SCOPED_LOCK(&lock);
  tell_status("working");
  worker_count = workers;
  seen = g_renew(ServiceSeen, seen, workers);
  for (unsigned i = 0; i < workers; i++)
    seen[i] = (ServiceSeen){.moved_at = clock_us()};
}

void service_ends_work(void) {
  SCOPED_LOCK(&lock);
  tell_status("standing by");
  worker_count = 0;
  g_clear_pointer(&seen, g_free);
}

void service_sees(unsigned worker, int moves) {
  SCOPED_LOCK(&lock);
  bool busy = moves % 2 != 0;
  if (!busy || moves != seen[worker].moves)
    seen[worker] = (ServiceSeen){moves, clock_us()};
}

int64_t service_stuck_ms(void) {
  SCOPED_LOCK(&lock);
  int64_t now = clock_us(), longest = 0;
  for (unsigned i = 0; i < worker_count; i++)
    longest = MAX(longest, now - seen[i].moved_at);
  return longest / 1000;
}

/* service.c - a thread that says "alive" four times within the service manager's limit, and what
 * the manager's socket had no room for. */
#include "projector/app/process/service.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/notify.h"

#include <glib.h>

enum {
  RETELL_MS = 1000,   /* without a limit */
  SEEN_MAX_MS = 1000, /* between two looks; if more passed, this whole process stood still */
};

typedef struct ServiceSeen {
  ServicePart part;
  int moves;
  int64_t silent_us; /* how long it was seen at work without a move */
} ServiceSeen;

static GMutex lock; /* of what follows */
static int64_t interval_us;
static bool complained;
static unsigned part_count; /* 0: no tenure */
static ServiceSeen *seen;
static int64_t seen_at;   /* by service_look; monotonic, us */
static int64_t looked_at; /* by service_is_alive; monotonic, us */
static bool untold_up;    /* not sent yet, or not taken */
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

/* With the lock. What the longest one without a move is called, and for how long, beyond what it
 * rests while all is well. */
static int64_t longest_silence_us(const char **ret_part) {
  int64_t longest = 0;
  for (unsigned i = 0; i < part_count; i++) {
    int64_t silent = seen[i].silent_us - seen[i].part.rest_ms * 1000;
    if (silent > longest)
      *ret_part = seen[i].part.name;
    longest = MAX(longest, silent);
  }
  return longest;
}

/* If this thread has not looked for so long, the whole process stood still, which says nothing of
 * its parts. */
bool service_is_alive(int64_t limit_us, const char **ret_part) {
  SCOPED_LOCK(&lock);
  int64_t now = clock_us();
  bool stood_still = now - looked_at > limit_us / 4 * 3; /* usually it is half of the limit */
  looked_at = now;
  if (stood_still || longest_silence_us(ret_part) <= limit_us) {
    *ret_part = "the thread that looks at the others";
    return stood_still || part_count == 0 || now - seen_at <= limit_us;
  }
  return false;
}

/* Half of the limit is for the work, the rest for the machine and the manager. */
static void notify_watchdog(void) {
  const char *part = NULL;
  bool watched = interval_us > 0, alive = !watched || service_is_alive(interval_us / 2, &part);
  SCOPED_LOCK(&lock);
  tell(watched && alive ? "WATCHDOG=1" : "");
  if (!alive && !complained)
    log_error("a part of this process hangs: the service manager's watchdog is no longer notified",
              LOG_FIELDS(LOG_TEXT("part", part)));
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

void service_begins_work(const ServicePart *parts, unsigned count, int64_t step_ms) {
  compare_limits(step_ms);
  SCOPED_LOCK(&lock);
  tell_status("working");
  part_count = count;
  seen = g_renew(ServiceSeen, seen, count);
  for (unsigned i = 0; i < count; i++)
    seen[i] = (ServiceSeen){.part = parts[i]};
  seen_at = clock_us();
}

void service_ends_work(void) {
  SCOPED_LOCK(&lock);
  tell_status("standing by");
  part_count = 0;
  g_clear_pointer(&seen, g_free);
}

void service_look(void) {
  SCOPED_LOCK(&lock);
  int64_t now = clock_us(), since = MIN(now - seen_at, (int64_t)SEEN_MAX_MS * 1000);
  for (unsigned i = 0; i < part_count; i++) {
    int moves = pulse_moves(seen[i].part.pulse);
    bool busy = moves % 2 != 0, moved = moves != seen[i].moves;
    seen[i].silent_us = busy && !moved ? seen[i].silent_us + since : 0;
    seen[i].moves = moves;
  }
  seen_at = now;
}

int64_t service_stuck_ms(const char **ret_part) {
  SCOPED_LOCK(&lock);
  return longest_silence_us(ret_part) / 1000;
}

/* log_writer.c - a bounded queue of lines, and the one thread that may wait for stderr. */
#include "projector/infra/log_writer.h"

#include "projector/infra/lock.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum {
  QUEUE_BYTES = 256 * 1024, /* several minutes of a busy log */
  POLL_MS = 1000,
};

static GMutex lock;
static GCond changed;
static GQueue queue = G_QUEUE_INIT; /* of char * */
static size_t queued_bytes;
static int64_t missing; /* lines dropped since the last queued one */
static int64_t dropped; /* in all */
static bool writing;
static char *(*make_notice)(int64_t dropped); /* NULL: not started */

/* Another process may have made the same descriptor non-blocking. */
static bool write_all(const char *text, size_t length) {
  while (length > 0) {
    ssize_t written = write(STDERR_FILENO, text, length);
    if (written >= 0) {
      text += written;
      length -= (size_t)written;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      struct pollfd waited = {.fd = STDERR_FILENO, .events = POLLOUT};
      poll(&waited, 1, POLL_MS);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

/* In one write, so that lines of several processes on one pipe do not mix. */
static void write_line(char *line) {
  g_autofree char *whole = g_strconcat(line, "\n", NULL);
  if (!write_all(whole, strlen(whole)))
    __atomic_add_fetch(&dropped, 1, __ATOMIC_RELAXED);
  g_free(line);
}

static gpointer run(gpointer data) {
  (void)data;
  g_mutex_lock(&lock);
  for (;;) {
    writing = false;
    g_cond_broadcast(&changed);
    while (g_queue_is_empty(&queue) && missing == 0)
      g_cond_wait(&changed, &lock);
    writing = true;
    char *line = g_queue_pop_head(&queue);
    if (line) {
      queued_bytes -= strlen(line);
    } else { /* nothing was queued since: the notice stands where the lines are missing */
      line = make_notice(missing);
      missing = 0;
    }
    g_mutex_unlock(&lock);
    write_line(line);
    g_mutex_lock(&lock);
  }
  return NULL;
}

void log_writer_start(char *(*notice)(int64_t)) {
  sigset_t all, before;
  if (make_notice)
    return;
  make_notice = notice;
  /* Signals go to other threads. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  g_thread_unref(g_thread_new("log", run, NULL));
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void log_writer_put(char *line) {
  if (!make_notice) {
    write_line(line);
    return;
  }
  SCOPED_LOCK(&lock);
  size_t length = strlen(line);
  if (missing > 0 || queued_bytes + length > QUEUE_BYTES) {
    missing++;
    __atomic_add_fetch(&dropped, 1, __ATOMIC_RELAXED);
    g_free(line);
    return;
  }
  g_queue_push_tail(&queue, line);
  queued_bytes += length;
  g_cond_broadcast(&changed);
}

void log_writer_flush(int64_t limit_ms) {
  int64_t until = g_get_monotonic_time() + limit_ms * 1000;
  SCOPED_LOCK(&lock);
  while (make_notice && (writing || !g_queue_is_empty(&queue) || missing > 0))
    if (!g_cond_wait_until(&changed, &lock, until))
      return;
}

int64_t log_writer_dropped(void) {
  return __atomic_load_n(&dropped, __ATOMIC_RELAXED);
}

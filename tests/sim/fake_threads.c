/* fake_threads.c - what GLib does with threads, locks, time and chance, as the simulation wants it.
 * The linker's --wrap puts it in, so that the code under test starts and joins its own threads. */
#include "projector/app/engine/alarm.h"
#include "projector/app/engine/stop.h"
#include "tests/sim/sim.h"

enum { LOCK_POLL_US = 500, SPURIOUS = 2 /* permille */ };

/* --- threads ---------------------------------------------------------------------------------- */

typedef struct Thread {
  GThreadFunc run;
  gpointer data;
  bool done;
} Thread;

GThread *__wrap_g_thread_new(const char *name, GThreadFunc run, gpointer data);
gpointer __wrap_g_thread_join(GThread *joined);

static void run_thread(void *data) {
  Thread *thread = data;
  thread->run(thread->data);
  thread->done = true;
  fibers_signal(thread);
}

GThread *__wrap_g_thread_new(const char *name, GThreadFunc run, gpointer data) {
  Thread *thread = g_new(Thread, 1);
  *thread = (Thread){run, data, false};
  fiber_start(name, fiber_instance(), run_thread, thread);
  return (GThread *)thread;
}

gpointer __wrap_g_thread_join(GThread *joined) {
  Thread *thread = (Thread *)joined;
  while (!thread->done)
    fiber_wait_on(thread, INT64_MAX);
  g_free(thread);
  return NULL;
}

/* --- locks ------------------------------------------------------------------------------------ */

void __wrap_g_mutex_lock(GMutex *mutex);
void __wrap_g_cond_wait(GCond *condition, GMutex *mutex);
gboolean __wrap_g_cond_wait_until(GCond *condition, GMutex *mutex, gint64 until);
void __wrap_g_cond_broadcast(GCond *condition);

/* A lock is contended only if its holder sleeps with it, in a call or in the log. */
void __wrap_g_mutex_lock(GMutex *mutex) {
  while (!g_mutex_trylock(mutex))
    fiber_sleep_us(LOCK_POLL_US);
}

void __wrap_g_cond_wait(GCond *condition, GMutex *mutex) {
  g_mutex_unlock(mutex);
  fiber_wait_on(condition, sim_chance(SPURIOUS) ? 1000 : INT64_MAX);
  __wrap_g_mutex_lock(mutex);
}

gboolean __wrap_g_cond_wait_until(GCond *condition, GMutex *mutex, gint64 until) {
  int64_t now = sim_monotonic_us();
  if (until <= now)
    return FALSE;
  g_mutex_unlock(mutex);
  bool woken = fiber_wait_on(condition, until - now);
  __wrap_g_mutex_lock(mutex);
  return woken;
}

void __wrap_g_cond_broadcast(GCond *condition) {
  fibers_signal(condition);
}

/* --- time and chance -------------------------------------------------------------------------- */

gint64 __wrap_g_get_monotonic_time(void);
gint64 __wrap_g_get_real_time(void);
GRand *__wrap_g_rand_new(void);
guint32 __wrap_g_random_int(void);

gint64 __wrap_g_get_monotonic_time(void) {
  return sim_monotonic_us();
}

gint64 __wrap_g_get_real_time(void) {
  return 1700000000000000 + sim_monotonic_us();
}

GRand *__wrap_g_rand_new(void) {
  return g_rand_new_with_seed(sim_random(UINT32_MAX));
}

/* For names that only have to differ. It does not use the seed's numbers: the program asks for one
 * of these once in its life, whichever seed comes first. */
guint32 __wrap_g_random_int(void) {
  static guint32 last;
  return ++last;
}

void __real_alarm_sleep(Alarm *alarm, int64_t ms);
void __wrap_alarm_sleep(Alarm *alarm, int64_t ms);

void __wrap_alarm_sleep(Alarm *alarm, int64_t ms) {
  *fiber_turn() = (FiberTurn){0};
  __real_alarm_sleep(alarm, ms);
}

/* --- the end of a killed process -------------------------------------------------------------- */

/* What is left of a killed instance goes through the motions, without any effect, until its fibers
 * have ended. */
bool __real_stop_requested(Stop *stop);
bool __real_stop_wait(Stop *stop, int64_t ms);
bool __wrap_stop_requested(Stop *stop);
bool __wrap_stop_wait(Stop *stop, int64_t ms);

static bool is_killed(void) {
  const Instance *instance = fiber_instance();
  return instance && instance->killed;
}

bool __wrap_stop_requested(Stop *stop) {
  return is_killed() || __real_stop_requested(stop);
}

bool __wrap_stop_wait(Stop *stop, int64_t ms) {
  return is_killed() || __real_stop_wait(stop, ms) || is_killed();
}

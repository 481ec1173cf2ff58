/* fake_process.c - clock, stop, log, and what GLib does with threads and chance, as the simulation
 * wants it. The linker's --wrap puts the last in. */
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "tests/sim/sim.h"

/* --- clock ------------------------------------------------------------------------------------ */

int64_t clock_us(void) {
  return 1000000 + fiber_now_us();
}

/* --- stop --------------------------------------------------------------------------------------
 */

struct Stop {
  Instance *instance;
  bool requested;
  Failure why;
};

Stop *stop_new(void) {
  Stop *stop = g_new0(Stop, 1);
  stop->instance = fiber_instance();
  return stop;
}

void stop_free(Stop *stop) {
  g_free(stop);
}

void stop_request(Stop *stop, const Failure *why) {
  if (!stop->requested && why)
    stop->why = *why;
  if (!stop->requested)
    sim_trace("stop requested: %s", why ? why->message : "orderly");
  stop->requested = true;
  fibers_wake(stop->instance);
}

void stop_at(Stop *stop, int64_t at_us, const Failure *why) {
  (void)at_us;
  (void)why;
  sim_fail("stop_at is ownership.c's, which is not here (%d)", stop->requested);
}

bool stop_requested(Stop *stop) {
  return stop->requested || (stop->instance && stop->instance->killed);
}

bool stop_wait(Stop *stop, int64_t ms) {
  int64_t until = fiber_now_us() + ms * 1000;
  while (!stop_requested(stop) && fiber_now_us() < until)
    fiber_wait_us(until - fiber_now_us());
  return stop_requested(stop);
}

Failure stop_reason(Stop *stop) {
  return stop->why;
}

/* --- log ---------------------------------------------------------------------------------------
 */

void log_write(LogLevel level, const char *message, const LogField *fields) {
  (void)level;
  const char *event = "";
  for (; fields && fields->name; fields++)
    if (fields->text && fields->name[0] == 'e')
      event = fields->text;
  sim_trace("log: %s %s", message, event);
}

void log_failure(LogLevel level, const char *message, const Failure *failure) {
  (void)level;
  sim_trace("log: %s: %s: %s", message, failure_class_name(failure->class), failure->message);
}

Failure log_told(const Failure *failure) {
  return *failure;
}

/* --- GLib ---------------------------------------------------------------------------------------
 */

void __wrap_g_cond_wait(GCond *condition, GMutex *mutex);
void __wrap_g_cond_broadcast(GCond *condition);
GRand *__wrap_g_rand_new(void);
guint32 __wrap_g_random_int(void);

void __wrap_g_cond_wait(GCond *condition, GMutex *mutex) {
  (void)condition;
  g_mutex_unlock(mutex);
  fiber_wait_us(INT64_MAX);
  g_mutex_lock(mutex);
}

/* Any fiber of the instance may have waited for this; those that did not look and wait again. */
void __wrap_g_cond_broadcast(GCond *condition) {
  (void)condition;
  fibers_wake(fiber_instance());
}

GRand *__wrap_g_rand_new(void) {
  return g_rand_new_with_seed(sim_random(UINT32_MAX));
}

guint32 __wrap_g_random_int(void) {
  return sim_random(UINT32_MAX);
}

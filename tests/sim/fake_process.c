/* fake_process.c - the log, the service manager and the files of secrets. */
#include "projector/app/process/examine.h"
#include "projector/app/process/service.h"
#include "projector/app/shared/config.h"
#include "projector/infra/log.h"
#include "tests/sim/sim.h"

/* --- log -------------------------------------------------------------------------------------- */

/* For a while nobody reads from the other end of the pipe. */
static void block(void) {
  const Instance *instance = fiber_instance();
  while (fiber_now_us() < sim.faults.log_blocked_until && instance && !instance->killed)
    fiber_sleep_us(sim.faults.log_blocked_until - fiber_now_us());
}

void log_write(LogLevel level, const char *message, const LogField *fields) {
  (void)level;
  const char *event = "";
  for (; fields && fields->name; fields++)
    if (fields->text && fields->name[0] == 'e')
      event = fields->text;
  sim_trace("log: %s %s", message, event);
  block();
}

void log_failure(LogLevel level, const char *message, const Failure *failure) {
  (void)level;
  sim_trace("log: %s: %s: %s", message, failure_class_name(failure->class), failure->message);
  block();
}

Failure log_redacted(const Failure *failure) {
  return *failure;
}

/* --- what the stores are like ----------------------------------------------------------------- */

bool examine_again(const Config *config, MongoStore *store, Failure *ret_failure) {
  (void)config, (void)store, (void)ret_failure;
  return true;
}

/* --- secrets ---------------------------------------------------------------------------------- */

bool config_secrets_have_changed(const Config *config) {
  (void)config;
  return false;
}

/* --- service manager: there is one for the process, and here are many ------------------------- */

void service_begins_work(unsigned workers, int64_t step_ms) {
  (void)step_ms;
  (void)workers;
}

void service_ends_work(void) {
}

void service_sees(unsigned worker, int moves) {
  (void)worker;
  (void)moves;
}

int64_t service_stuck_ms(void) {
  return 0;
}

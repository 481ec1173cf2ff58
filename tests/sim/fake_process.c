/* fake_process.c - the log, the service manager and the files of secrets. */
#include "projector/app/process/examine.h"
#include "projector/app/process/service.h"
#include "projector/app/shared/config.h"
#include "projector/infra/log.h"
#include "projector/infra/pulse.h"
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

void service_begins_work(const ServicePart *parts, unsigned count, int64_t step_ms) {
  (void)parts, (void)count, (void)step_ms;
}

void service_ends_work(void) {
}

void service_look(void) {
}

int64_t service_stuck_ms(const char **ret_part) {
  (void)ret_part;
  return 0;
}

/* --- pulses: no fiber hangs ------------------------------------------------------------------- */

void pulse_begin(Pulse *pulse) {
  (void)pulse;
}

void pulse_end(Pulse *pulse) {
  (void)pulse;
}

Pulse *pulse_put_down(void) {
  return NULL;
}

void pulse_take_up(Pulse *pulse) {
  (void)pulse;
}

/* instance.c - one projector process: tenures of the real program, one after the other. */
#include "tests/sim/sim.h"

#include "projector/app/process/tenure.h"

static void run(void *data) {
  Instance *instance = data;
  if (sim.over)
    stop_request(instance->process, NULL);
  while (!stop_requested(instance->process))
    if (!tenure_serve(&sim.config, sim.store, instance->metrics, NULL, instance->process, false))
      stop_wait(instance->process, 200);
  sim_trace("ended");
  instance->ended = true;
}

Instance *instance_start(void) {
  Instance *instance = g_new0(Instance, 1);
  instance->number = sim.instances->len + 1;
  instance->process = stop_new();
  instance->metrics = metrics_new(sim.config.mapping);
  g_ptr_array_add(sim.instances, instance);
  sim.current = instance;
  fiber_start("main", instance, run, instance);
  return instance;
}

bool instance_lives(const Instance *instance) {
  return instance && !instance->killed && !instance->ended;
}

bool instance_is_owner(const Instance *instance) {
  return instance && instance->epoch == sim.epoch;
}

void instance_kill(Instance *instance) {
  instance->killed = true;
  fibers_wake(instance);
}

void instance_stop(Instance *instance) {
  stop_request(instance->process, NULL);
}

void instances_free(void) {
  for (guint i = 0; i < sim.instances->len; i++) {
    Instance *instance = sim.instances->pdata[i];
    stop_free(instance->process);
    metrics_free(instance->metrics);
    g_free(instance);
  }
}

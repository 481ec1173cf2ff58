/* sim.c - chance, the trace, and both ends of every call into a store. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRACE_LINES = 120, TRACE_WIDTH = 200, ON_THE_WIRE = 300 /* permille */ };

Sim sim;
Counts counts;
static char lines[TRACE_LINES][TRACE_WIDTH];
static unsigned line_count;

/* --- chance (splitmix64) --------------------------------------------------------------------- */

static uint64_t next_random(void) {
  uint64_t z = (sim.random += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

unsigned sim_random(unsigned limit) {
  return (unsigned)((next_random() >> 32) * limit >> 32);
}

bool sim_chance(unsigned permille) {
  return permille > 0 && sim_random(1000) < permille;
}

int64_t sim_between(int64_t low, int64_t high) {
  return low + (int64_t)(next_random() % (uint64_t)(high - low + 1));
}

int64_t sim_server_ms(StoreKind store) {
  return 1700000000000 + fiber_now_us() / 1000 + sim.skew_ms[store];
}

int64_t sim_monotonic_us(void) {
  const Instance *instance = fiber_instance();
  return 1000000 + fiber_now_us() + (instance ? (int64_t)instance->number * 1000000000 : 0);
}

/* --- trace ----------------------------------------------------------------------------------- */

void sim_trace(const char *format, ...) {
  sim.fingerprint = (sim.fingerprint ^ (uint64_t)fiber_now_us() ^ fiber_number()) * 0x100000001B3u;
  if (!sim.trace)
    return;
  const Instance *instance = fiber_instance();
  char *line = lines[line_count++ % TRACE_LINES];
  int used = snprintf(line, TRACE_WIDTH, "%11.6f #%u %-8s ", (double)fiber_now_us() / 1e6,
                      instance ? instance->number : 0, fiber_name());
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + used, TRACE_WIDTH - (size_t)used, format, arguments);
  va_end(arguments);
  if (getenv("SIM_LOUD"))
    fprintf(stderr, "%s\n", line);
}

void sim_print_trace(void) {
  unsigned from = line_count > TRACE_LINES ? line_count - TRACE_LINES : 0;
  for (unsigned i = from; i < line_count; i++)
    fprintf(stderr, "%s\n", lines[i % TRACE_LINES]);
  line_count = 0;
}

/* Tracing costs more than running, so it is off until a seed fails: then that seed runs again. */
static void run_again_traced(void) {
  char seed[32];
  snprintf(seed, sizeof seed, "%llu", (unsigned long long)sim.seed);
  setenv("SIM_SEED", seed, 1);
  setenv("SIM_TRACE", "1", 1);
  setenv("SIM_FAILED", "1", 1);
  fflush(NULL);
  execl("/proc/self/exe", "test_sim", (char *)NULL);
}

_Noreturn void sim_fail(const char *format, ...) {
  if (sim.trace)
    sim_print_trace();
  fprintf(stderr, "seed %llu (./run sim --seeds 1 --from %llu) failed after %.6f s: ",
          (unsigned long long)sim.seed, (unsigned long long)sim.seed, (double)fiber_now_us() / 1e6);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  if (!sim.trace)
    run_again_traced();
  _exit(1);
}

/* --- calls ----------------------------------------------------------------------------------- */

/* Mostly short, now and then long: this produces orders that nobody thought of. */
static int64_t latency_us(void) {
  unsigned dice = sim_random(100);
  return dice < 80   ? sim_between(50, 1000)
         : dice < 96 ? sim_between(1000, 20000)
                     : sim_between(20000, 300000);
}

static bool cut(Failure *ret_failure) {
  return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_PROJECTOR, 0, "killed");
}

static bool away(StoreKind store, const char *what, Failure *ret_failure) {
  sim_trace("%s: away", what);
  return failure_set(ret_failure, FAILURE_UNAVAILABLE,
                     store == MONGO ? SOURCE_MONGODB : SOURCE_MYSQL, store == MONGO ? 13436 : 2013,
                     "the store is away");
}

static bool fault(StoreKind store, const char *what, bool done, Failure *ret_failure) {
  static const FailureClass classes[STORES][8] = {
      {FAILURE_UNAVAILABLE, FAILURE_UNAVAILABLE, FAILURE_UNAVAILABLE, FAILURE_UNAVAILABLE,
       FAILURE_UNAVAILABLE, FAILURE_CONFLICT, FAILURE_UNKNOWN, FAILURE_SPACE},
      {FAILURE_UNAVAILABLE, FAILURE_UNAVAILABLE, FAILURE_UNAVAILABLE, FAILURE_CONFLICT,
       FAILURE_CONFLICT, FAILURE_CONFLICT, FAILURE_UNKNOWN, FAILURE_SPACE}};
  FailureClass class = done ? FAILURE_UNAVAILABLE : classes[store][sim_random(8)];
  counts.faults++;
  counts.ambiguous += done;
  sim_trace("%s: fails %s its effect: %s", what, done ? "after" : "before",
            failure_class_name(class));
  return failure_set(ret_failure, class, store == MONGO ? SOURCE_MONGODB : SOURCE_MYSQL, 1,
                     "a fault of the simulation");
}

static bool is_away(StoreKind store, const Instance *instance) {
  return fiber_now_us() < sim.faults.away_until[store] ||
         (instance && fiber_now_us() < instance->cut_until[store]);
}

bool call_begin(StoreKind store, const char *what, Failure *ret_failure) {
  const Instance *instance = fiber_instance();
  if (instance && instance->killed)
    return cut(ret_failure);
  counts.steps++;
  fiber_sleep_us(latency_us());
  if (instance && instance->killed)
    return sim_chance(ON_THE_WIRE) || cut(ret_failure);
  if (is_away(store, instance))
    return away(store, what, ret_failure);
  if (sim_chance(sim.faults.before[store]))
    return fault(store, what, false, ret_failure);
  sim_trace("%s", what);
  return true;
}

bool call_end(StoreKind store, const char *what, Failure *ret_failure) {
  const Instance *instance = fiber_instance();
  if (instance && instance->killed)
    return cut(ret_failure);
  fiber_sleep_us(latency_us());
  if (instance && instance->killed)
    return cut(ret_failure);
  if (is_away(store, instance))
    return away(store, what, ret_failure);
  return !sim_chance(sim.faults.after[store]) || fault(store, what, true, ret_failure);
}

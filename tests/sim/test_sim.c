/* test_sim.c - runs seeds: the real pipeline on simulated stores, clocks and failures.
 *
 *   SIM_SEED=k   one seed          SIM_TRACE=1  its last steps, also when it passes
 *   SIM_SEEDS=n  so many seeds     SIM_LOUD=1   with SIM_TRACE: every step as it happens
 *   SIM_FIRST=k  from that seed on
 *
 * A seed that fails is run again with its trace. `./run sim` runs many, on all cores. */
#include "tests/sim/sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_SEEDS = 2000, REPEAT_EVERY = 100, SEED_LIMIT_S = 60 /* of processor time */ };

static void set_up(uint64_t seed) {
  bool trace = sim.trace;
  Mapping *mapping = sim.config.mapping;
  sim = (Sim){.seed = seed, .random = seed * 0x2545F4914F6CDD1Du + 1, .trace = trace};
  static const Settings settings = {.linger_ms = 0,
                                    .max_attempts = 4,
                                    .backoff_ms = 200,
                                    .claim_timeout_ms = 5000,
                                    .claim_mark_ms = 300,
                                    .future_ms = 86400000,
                                    .sweep_interval_ms = 3000,
                                    .lease_ms = 3000,
                                    .gap_wait_ms = 500,
                                    .memory_mb = 64,
                                    .max_blocked = 100};
  sim.config = (Config){.name = "sim", .settings = settings, .mapping = mapping};
  sim.config.settings.workers = 1 + sim_random(3);
  sim.config.settings.batch = 1 + sim_random(12);
  if (sim_chance(500)) { /* whatever needs no sweep has to work without one */
    sim.config.settings.sweep_interval_ms = 30000;
    sim.config.settings.claim_timeout_ms = 20000;
  }
  sim.config.settings.ledger_retention_s = sim_chance(300) ? 60 : 100000;
  sim.faults.size_limit = EVENTS_MAX;
  sim.inserts = g_array_new(FALSE, FALSE, sizeof(unsigned));
  sim.transactions = g_ptr_array_new();
  sim.instances = g_ptr_array_new();
  sim.feeds = sim_chance(700);
  sim.archive = sim_chance(500);
  claims_reset();
  fibers_reset();
  workload_make();
}

static void tear_down(void) {
  mysql_disconnect_all();
  instances_free();
  g_array_unref(sim.inserts);
  g_ptr_array_unref(sim.transactions);
  g_ptr_array_unref(sim.instances);
}

/* Written before the seed begins, because a signal handler may not format. */
static char endless[96];
static size_t endless_length;

/* Something spins without ever sleeping, so no other fiber gets a turn, and no check either. */
static void give_up(int signal_number) {
  (void)signal_number;
  _exit(write(STDERR_FILENO, endless, endless_length) < 0 ? 2 : 1);
}

static void limit_time(void) {
  endless_length =
      (size_t)snprintf(endless, sizeof endless, "seed %llu is endless: a fiber spins\n",
                       (unsigned long long)sim.seed);
  struct itimerval limit = {.it_value = {.tv_sec = SEED_LIMIT_S}};
  setitimer(ITIMER_VIRTUAL, &limit, NULL);
}

static uint64_t run_seed(uint64_t seed) {
  limit_time();
  set_up(seed);
  fiber_start("super", NULL, supervise, NULL);
  fibers_run();
  tear_down();
  counts.seeds++;
  return sim.fingerprint;
}

/* Of processor time: whatever else the machine does must not matter. */
static double seconds(void) {
  return (double)clock() / CLOCKS_PER_SEC;
}

static uint64_t number_from(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text ? g_ascii_strtoull(text, NULL, 10) : otherwise;
}

#define SHOW(field) printf("  %-12s %lld\n", #field, (long long)counts.field)

static void show_counts(double seconds) {
  printf("%lld seeds in %.1f s of processor time, %.0f a minute\n", (long long)counts.seeds,
         seconds, (double)counts.seeds * 60 / seconds);
  SHOW(steps), SHOW(commits), SHOW(applied), SHOW(superseded), SHOW(ignored), SHOW(skipped);
  SHOW(late), SHOW(gone), SHOW(loss_looks), SHOW(refreshed), SHOW(gaps), SHOW(known), SHOW(failed),
      SHOW(dead), SHOW(kills);
  SHOW(freezes), SHOW(rivals), SHOW(stops), SHOW(outages), SHOW(faults), SHOW(ambiguous);
  SHOW(partial), SHOW(fenced), SHOW(swept), SHOW(jumps), SHOW(retries), SHOW(skips);
  SHOW(refreshes), SHOW(duplicates), SHOW(pruned), SHOW(rescans), SHOW(rollbacks);
  SHOW(histories), SHOW(cuts), SHOW(suspicions), SHOW(probes), SHOW(blamed), SHOW(places),
      SHOW(broken), SHOW(slow), SHOW(locks), SHOW(held_tables), SHOW(skews), SHOW(restored),
      SHOW(lags), SHOW(overtaken);
  SHOW(batch_claims), SHOW(batch_marks), SHOW(batch_swept), SHOW(copies), SHOW(copied_again);
  SHOW(fed_marks), SHOW(drops), SHOW(numbered), SHOW(number_conflicts);
}

/* A simulation that no longer meets the situations it is made for would pass forever. */
static bool met_everything(void) {
  const int64_t wanted[] = {
      counts.applied,    counts.superseded,   counts.ignored,     counts.skipped,
      counts.loss_looks, counts.late,         counts.refreshed,   counts.gaps,
      counts.known,      counts.failed,       counts.dead,        counts.kills,
      counts.freezes,    counts.rivals,       counts.stops,       counts.outages,
      counts.ambiguous,  counts.partial,      counts.fenced,      counts.swept,
      counts.retries,    counts.skips,        counts.refreshes,   counts.pruned,
      counts.duplicates, counts.rollbacks,    counts.histories,   counts.cuts,
      counts.places,     counts.broken,       counts.locks,       counts.held_tables,
      counts.skews,      counts.batch_claims, counts.batch_marks, counts.batch_swept,
      counts.copies,     counts.copied_again, counts.fed_marks,   counts.numbered,
      counts.drops};
  for (size_t i = 0; i < G_N_ELEMENTS(wanted); i++)
    if (wanted[i] < counts.seeds / 20)
      return false;
  const int64_t rare[] = {counts.restored, counts.lags, counts.overtaken, counts.gone};
  for (size_t i = 0; i < G_N_ELEMENTS(rare); i++)
    if (rare[i] < counts.seeds / 100)
      return false;
  return counts.slow > 0;
}

int main(void) {
  bool one = getenv("SIM_SEED") != NULL;
  uint64_t first = one ? number_from("SIM_SEED", 0) : number_from("SIM_FIRST", 1);
  uint64_t count = one ? 1 : number_from("SIM_SEEDS", DEFAULT_SEEDS);
  double began = seconds();
  sim.trace = getenv("SIM_TRACE") != NULL;
  signal(SIGVTALRM, give_up);
  sim.config.mapping = workload_mapping();
  for (uint64_t seed = first; seed < first + count; seed++) {
    uint64_t fingerprint = run_seed(seed);
    if (seed % REPEAT_EVERY == 0 && run_seed(seed) != fingerprint) {
      printf("seed %llu gives another course when it is run again\n", (unsigned long long)seed);
      return 1;
    }
  }
  if (sim.trace)
    sim_print_trace();
  show_counts(seconds() - began);
  if (getenv("SIM_FAILED")) {
    printf("the seed failed among others and passes alone: something outlives a seed\n");
    return 1;
  }
  mapping_free(sim.config.mapping);
  fibers_free();
  if (count >= DEFAULT_SEEDS && !met_everything()) {
    printf("the seeds no longer meet every kind of trouble\n");
    return 1;
  }
  return 0;
}

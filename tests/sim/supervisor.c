/* supervisor.c - makes trouble for a while, ends it, and waits until all is settled. */
#include "tests/sim/sim.h"

enum {
  SETTLE_MS = 90000,      /* everything is settled so long after the last trouble, */
  SETTLE_SKIP_MS = 15000, /* and so long after a skip, which needs no sweep */
  LOOK_US = 200000,
};

static bool is_alive(const Instance *instance) {
  return instance && !instance->killed && !instance->ended;
}

static void start_next(void) {
  sim_trace("a new instance starts");
  instance_start();
}

/* Frozen longer than its lease: another starts; then the old one wakes up. */
static void freeze(Instance *instance) {
  counts.freezes++;
  sim_trace("#%u is frozen", instance->number);
  instance->frozen = true;
  fiber_sleep_us(sim_between(0, 3000000));
  if (sim_chance(800))
    start_next();
  fiber_sleep_us(sim_between(0, 15000000));
  sim_trace("#%u wakes up", instance->number);
  instance->frozen = false;
  if (sim.current != instance)
    instance->stop_at = fiber_now_us() + sim_between(0, 10000000);
}

/* Both believe that they own the name. */
static void start_rival(Instance *instance) {
  counts.rivals++;
  instance->stop_at = fiber_now_us() + sim_between(0, 10000000);
  start_next();
}

static void lose_owner(Instance *instance) {
  switch (sim_random(6)) {
  case 0:
  case 1:
    counts.kills++;
    sim_trace("#%u is killed", instance->number);
    instance_kill(instance);
    break;
  case 2:
  case 3: freeze(instance); break;
  case 4: start_rival(instance); break;
  default:
    counts.stops++;
    if (instance->stop)
      stop_request(instance->stop, NULL);
  }
}

static void lose_store(void) {
  StoreKind store = (StoreKind)sim_random(STORES);
  counts.outages++;
  int64_t length = sim_chance(700) ? sim_between(1, 1500000) : sim_between(1, 20000000);
  sim_trace("%s is away for %lld us", store == MONGO ? "MongoDB" : "MySQL", (long long)length);
  sim.faults.away_until[store] = fiber_now_us() + length;
  if (store == MONGO && sim_chance(500))
    mongo_roll_back();
  if (store == MYSQL_SERVER)
    mysql_disconnect_all();
}

static void spoil_store(void) {
  int64_t until = fiber_now_us() + sim_between(1, 8000000);
  switch (sim_random(6)) {
  case 0: sim.faults.full_until = until; break;
  case 1: sim.faults.busy_until = fiber_now_us() + sim_between(1, 3000000); break;
  case 2: sim.faults.strange_until = until; break;
  case 3: sim.faults.size_limit = 1 + sim_random(4); break;
  case 4: mysql_disconnect_all(); break;
  default: sim.faults.dropped = sim_random(3); sim.faults.dropped_until = until;
  }
}

static void make_trouble(void) {
  unsigned dice = sim_random(100);
  if (!is_alive(sim.current)) {
    start_next();
  } else if (dice < 25) {
    lose_owner(sim.current);
  } else if (dice < 40) {
    lose_store();
  } else if (dice < 55) {
    spoil_store();
  } else if (dice < 60) {
    counts.jumps++;
    sim_trace("the clock jumps");
    fibers_jump(sim_between(1, 30000000));
  } else if (dice < 85) {
    sim.operators++;
    fiber_start("operator", NULL, operate, NULL);
  } else {
    for (int i = 0; i < STORES; i++) {
      sim.faults.before[i] = sim_chance(500) ? sim_random(60) : 0;
      sim.faults.after[i] = sim_chance(500) ? sim_random(60) : 0;
    }
    sim.faults.partial = sim_chance(500) ? sim_random(100) : 0;
  }
}

static void end_trouble(void) {
  sim.faults = (Faults){.size_limit = EVENTS_MAX};
  sim.quiet = true;
  int64_t now = fiber_now_us();
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].poison_until != INT64_MAX)
      sim.events[i].poison_until = MIN(sim.events[i].poison_until, now);
  while (sim.operators > 0)
    fiber_sleep_us(LOOK_US);
  if (!is_alive(sim.current) || sim.current->stop_at != INT64_MAX)
    start_next();
  sim_trace("trouble ends");
}

static void wait_until_settled(const char *when, int64_t most_ms) {
  int64_t until = fiber_now_us() + most_ms * 1000;
  const char *unsettled = "";
  while (unsettled) {
    fiber_sleep_us(LOOK_US);
    if (!is_alive(sim.current))
      start_next();
    unsettled = check_unsettled();
    if (unsettled && fiber_now_us() > until)
      sim_fail("not settled %d s after %s: %s", (int)(most_ms / 1000), when, unsettled);
  }
}

/* Then somebody goes on without what is dead, until the outbox is empty. */
static bool skip_dead(void) {
  bool any = false;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].present && sim.events[i].status == STATUS_DEAD) {
      if (!operator_skip(&sim.events[i]))
        sim_fail("%s cannot be skipped", sim.events[i].id);
      any = true;
    }
  return any;
}

void supervise(void *unused) {
  (void)unused;
  static const int64_t paces[] = {100000, 1000000, 4000000};
  int64_t until = sim_between(2000000, 40000000), pace = paces[sim_random(3)];
  start_next();
  fiber_start("producer", NULL, produce, NULL);
  while (!sim.produced || fiber_now_us() < until) {
    fiber_sleep_us(sim_between(0, pace));
    if (fiber_now_us() < until)
      make_trouble();
    else if (!is_alive(sim.current))
      start_next();
  }
  end_trouble();
  wait_until_settled("the last trouble", SETTLE_MS);
  check_end();
  if (sim_chance(500))
    while (skip_dead())
      wait_until_settled("a skip", SETTLE_SKIP_MS);
  check_end();
  for (guint i = 0; i < sim.instances->len; i++) {
    Instance *instance = sim.instances->pdata[i];
    if (instance->stop)
      stop_request(instance->stop, NULL);
  }
  sim.over = true;
}

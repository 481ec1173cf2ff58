/* supervisor.c - makes trouble for a while, ends it, and waits until all is settled. */
#include "tests/sim/sim.h"

#include <string.h>

enum {
  INSTANCES_MAX = 3,
  SETTLE_MS = 150000, /* everything is settled this long after the last trouble, */
  SKIP_MS = 60000,
  SETTLE_LOCKED_MS = 300000,
  SETTLE_SKIP_MS = 15000, /* and this long after a skip, which needs no sweep */
  DONE_MS = 5000,
  LOOK_US = 200000,
};

static unsigned living(void) {
  unsigned count = 0;
  for (guint i = 0; i < sim.instances->len; i++)
    count += instance_lives(sim.instances->pdata[i]);
  return count;
}

static void start_next(void) {
  if (living() >= INSTANCES_MAX)
    return;
  sim_trace("a new instance starts");
  instance_start();
}

/* The owner, or the instance that was started last. */
static Instance *owner(void) {
  guint number = sim.lease.owner;
  Instance *instance = number ? sim.instances->pdata[number - 1] : NULL;
  return instance_lives(instance) ? instance : sim.current;
}

/* At a moment when it has just claimed something, if there is one soon: then it wakes up with work
 * in hand. */
static void stop_in_the_middle(Instance *instance) {
  instance->trapped = sim_chance(900);
  for (unsigned i = 0; i < 150 && instance->trapped; i++)
    fiber_sleep_us(20000);
  instance->trapped = false;
  instance->frozen = true;
  sim_trace("#%u is frozen", instance->number);
}

/* Frozen longer than its lease: another takes over, then the old one wakes up. */
static void freeze(Instance *instance) {
  counts.freezes++;
  stop_in_the_middle(instance);
  fiber_sleep_us(sim_between(0, 3000000));
  if (sim_chance(800))
    start_next();
  fiber_sleep_us(sim_between(0, 15000000));
  sim_trace("#%u wakes up", instance->number);
  instance->frozen = false;
}

/* Both believe that they own the name, until the first one notices. */
static void start_rival(Instance *instance) {
  counts.rivals++;
  start_next();
  fiber_sleep_us(sim_between(0, 1500000));
  sim_trace("#%u has a rival", instance->number);
  instance->deaf_until = fiber_now_us() + sim_between(0, 4000000);
  sim.lease.expires_at = 0;
}

static void cut_off(Instance *instance) {
  StoreKind store = (StoreKind)sim_random(STORES);
  counts.cuts++;
  sim_trace("#%u is cut off from store %d", instance->number, (int)store);
  instance->cut_until[store] = fiber_now_us() + sim_between(0, 10000000);
  if (sim_chance(500))
    start_next();
}

static void lose_owner(Instance *instance) {
  switch (sim_random(7)) {
  case 0:
  case 1:
    counts.kills++;
    sim_trace("#%u is killed", instance->number);
    instance_kill(instance);
    break;
  case 2:
  case 3: freeze(instance); break;
  case 4: start_rival(instance); break;
  case 5: cut_off(instance); break;
  default: counts.stops++; instance_stop(instance);
  }
}

/* The server that comes back is another, with a clock of its own. */
static void skew(StoreKind store) {
  static const int64_t most_ms[STORES] = {20000, 4000};
  counts.skews++;
  sim.skew_ms[store] = sim_between(-most_ms[store], most_ms[store]);
  if (store == MYSQL_SERVER && sim_chance(100))
    sim.skew_ms[store] += 30 * 86400000LL; /* somebody has set it wrong */
  sim.skewed_us = fiber_now_us();
  sim_trace("  its clock is %lld ms off", (long long)sim.skew_ms[store]);
}

static void lose_store(void) {
  StoreKind store = (StoreKind)sim_random(STORES);
  counts.outages++;
  int64_t length = sim_chance(700) ? sim_between(1, 1500000) : sim_between(1, 20000000);
  sim_trace("%s is away for %lld us", store == MONGO ? "MongoDB" : "MySQL", (long long)length);
  sim.faults.away_until[store] = fiber_now_us() + length;
  if (sim_chance(300))
    skew(store);
  if (store == MONGO)
    sim.lease.election++;
  if (store == MONGO && sim_chance(800))
    mongo_roll_back();
  if (store == MYSQL_SERVER)
    mysql_disconnect_all();
}

/* One kind of statement fails with an error that no table lists, or breaks the connection. */
static void spoil_place(int64_t until) {
  static const int codes[] = {9999, 1419, 1419, 3100, 1205, 1213};
  Place place = (Place)sim_random(PLACES);
  PlaceFault *fault = &sim.faults.at[place];
  *fault = (PlaceFault){.until = until,
                        .permille = sim_chance(500) ? 1000 : sim_random(1000),
                        .code = codes[sim_random(G_N_ELEMENTS(codes))],
                        .how = (Break)sim_random(3)};
  sim_trace("place %d fails: %s %d", (int)place, fault->how == NO_BREAK ? "code" : "breaks",
            fault->code);
}

static void lock_table(int64_t until) {
  sim.faults.locked = sim_random(3);
  sim.faults.locked_until = until;
  sim.faults.only_rows = sim_chance(500);
  sim_trace("table %u is locked", sim.faults.locked);
}

/* An operator has replaced the entities with a backup; the events are newer. */
static void restore_entities(int64_t until) {
  sim.faults.restored_until = until;
  sim.faults.restored_by = sim_between(1, 4);
  sim_trace("the entities are as they were %lld versions ago", (long long)sim.faults.restored_by);
  sim.operators++;
  fiber_start("operator", NULL, operate_refresh, NULL);
}

static bool is_to_come_before_a_blocking_one(const SimEvent *event) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *other = &sim.events[i];
    if (event->inserted_at < 0 && other->present && other->aggregate == event->aggregate &&
        (other->status == STATUS_FAILED || other->status == STATUS_DEAD) &&
        event_compare(event, other) < 0)
      return true;
  }
  return false;
}

static bool any_is_to_come_before_a_blocking_one(void) {
  for (unsigned i = 0; i < sim.event_count; i++)
    if (is_to_come_before_a_blocking_one(&sim.events[i]))
      return true;
  return false;
}

/* Nobody reads new events; meanwhile the causes of failures are repaired, events arrive that sort
 * before the failed ones, and those are retried. */
static void lag_stream(int64_t until) {
  int64_t now = fiber_now_us();
  sim.faults.stream_lags_until = until;
  sim_trace("the stream lags");
  for (unsigned i = 0; i < sim.event_count; i++) {
    SimEvent *event = &sim.events[i];
    if (event->poison_until != INT64_MAX)
      event->poison_until = MIN(event->poison_until, now);
    if (is_to_come_before_a_blocking_one(event)) {
      counts.overtaken++;
      event->insert_at = now;
    }
  }
  sim.operators++;
  fiber_start("operator", NULL, operate_retry, NULL);
  fiber_sleep_us(sim_between(0, 4000000));
}

/* What nobody has read of it is lost; it is filled again by rebuild or replay. */
static void drop_feed(void) {
  counts.drops++;
  readers_lose_feed();
}

static void spoil_store(void) {
  int64_t until = fiber_now_us() + sim_between(1, 8000000);
  switch (sim_random(12)) {
  case 10: restore_entities(fiber_now_us() + sim_between(1, 20000000)); break;
  case 11: lag_stream(fiber_now_us() + sim_between(1, 20000000)); break;
  case 6: spoil_place(until); break;
  case 7: lock_table(fiber_now_us() + sim_between(1, 30000000)); break;
  case 8: sim.faults.history_until = until; break;
  case 9: sim.faults.log_blocked_until = until; break;
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
  if (sim.feeds && sim_chance(30))
    drop_feed();
  if (living() == 0) {
    start_next();
  } else if (any_is_to_come_before_a_blocking_one() && sim_chance(500)) {
    lag_stream(fiber_now_us() + sim_between(1, 20000000));
  } else if (dice < 26) {
    lose_owner(owner());
  } else if (dice < 45) {
    lose_store();
  } else if (dice < 65) {
    spoil_store();
  } else if (dice < 69) {
    counts.jumps++;
    sim_trace("the clock jumps");
    fibers_jump(sim_between(1, 30000000));
  } else if (dice < 88) {
    sim.operators++;
    fiber_start("operator", NULL, operate, NULL);
  } else {
    for (int i = 0; i < STORES; i++) {
      sim.faults.before[i] = sim_chance(500) ? sim_random(70) : 0;
      sim.faults.after[i] = sim_chance(500) ? sim_random(70) : 0;
    }
    sim.faults.partial = sim_chance(500) ? sim_random(100) : 0;
  }
}

static void end_troubles_of(Instance *instance) {
  memset(instance->cut_until, 0, sizeof instance->cut_until);
  instance->deaf_until = 0;
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
  for (guint i = 0; i < sim.instances->len; i++)
    end_troubles_of(sim.instances->pdata[i]);
  if (living() == 0)
    start_next();
  sim_trace("trouble ends");
}

/* Finding out that an event breaks the connection takes several attempts, and slow ones take
 * long. */
static int64_t harm_ms(void) {
  static const int64_t each_ms[] = {[HARM_BREAKS] = 60000, [HARM_SLOW] = 200000};
  int64_t all_ms = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].present && sim.events[i].poison_until == INT64_MAX)
      all_ms += each_ms[sim.events[i].harm];
  return all_ms;
}

/* Until a dead owner's lease expires, by a clock that may have gone back. */
static int64_t lease_ms(void) {
  int64_t left_ms = sim.lease.expires_at - sim_server_ms(MONGO);
  return MAX(left_ms, 0);
}

static void wait_until_settled(const char *when, unsigned but_for_table, int64_t most_ms) {
  most_ms += harm_ms() + lease_ms();
  int64_t until = fiber_now_us() + most_ms * 1000;
  const char *unsettled = "";
  while (unsettled) {
    fiber_sleep_us(LOOK_US);
    if (living() == 0)
      start_next();
    check_instances();
    unsettled = check_unsettled(but_for_table);
    if (!unsettled && but_for_table == TABLES)
      unsettled = check_unread();
    if (unsettled && fiber_now_us() > until)
      sim_fail("not settled %d s after %s: %s", (int)(most_ms / 1000), when, unsettled);
  }
}

/* Repeats while a statement that nobody waits for keeps the aggregate locked. */
static void skip(const SimEvent *event) {
  int64_t until = fiber_now_us() + (int64_t)SKIP_MS * 1000;
  while (!operator_skip(event))
    if (fiber_now_us() > until)
      sim_fail("%s cannot be skipped", event->id);
}

/* Weeks later. What is in memory only, as having left the outbox already, is done with before. */
static void forget(void) {
  if (!sim.feeds)
    return;
  fiber_sleep_us((int64_t)DONE_MS * 1000);
  wait_until_settled("a pause", TABLES, SETTLE_MS);
  readers_forget();
}

/* Then an operator skips what is dead, until the outbox is empty. */
static bool skip_dead(void) {
  bool any = false;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].present && sim.events[i].status == STATUS_DEAD) {
      skip(&sim.events[i]);
      any = true;
    }
  return any;
}

/* A table that another session keeps locked holds events with rows in it, and no others. */
static void hold_one_table(void) {
  lock_table(INT64_MAX);
  counts.held_tables++;
  wait_until_settled("a table was locked", sim.faults.locked, SETTLE_LOCKED_MS);
  sim.faults.locked_until = 0;
  sim_trace("the table is free");
}

void supervise(void *unused) {
  (void)unused;
  static const int64_t paces[] = {100000, 1000000, 4000000};
  int64_t until = sim_between(4000000, 50000000), pace = paces[sim_random(3)];
  start_next();
  fiber_start("producer", NULL, produce, NULL);
  readers_start();
  while (!sim.produced || fiber_now_us() < until) {
    fiber_sleep_us(sim_between(0, pace));
    if (fiber_now_us() < until)
      make_trouble();
    else if (living() == 0)
      start_next();
    check_instances();
  }
  end_trouble();
  if (sim_chance(200))
    hold_one_table();
  wait_until_settled("the last trouble", TABLES, SETTLE_MS);
  check_end();
  check_read();
  forget();
  if (sim_chance(500))
    while (skip_dead())
      wait_until_settled("a skip", TABLES, SETTLE_SKIP_MS);
  check_end();
  check_read();
  sim.over = true;
  for (guint i = 0; i < sim.instances->len; i++)
    instance_stop(sim.instances->pdata[i]);
}

/* operator.c - the person who runs retry, skip and refresh. */
#include "tests/sim/sim.h"

#include "projector/app/shared/resolve.h"

static bool is_blocking(const SimEvent *event) {
  return event->present && (event->status == STATUS_FAILED || event->status == STATUS_DEAD);
}

bool operator_skip(const SimEvent *event) {
  Selection selection = {.event_id = event->id, .states = resolve_blocking};
  Failure failure = {0};
  int64_t count;
  counts.skips++;
  return resolve_skip(&sim.config, sim.store, &selection, &count, &failure) && count == 1;
}

static void retry(const Selection *selection) {
  Failure failure = {0};
  int64_t count;
  counts.retries++;
  resolve_retry(&sim.config, sim.store, selection, &count, &failure);
}

static void refresh(unsigned aggregate) {
  char text[] = {'a', (char)('0' + aggregate), '\0'};
  Sought sought = {.type = "account", .text = text};
  Failure failure = {0};
  Refreshed done;
  counts.refreshes++;
  resolve_refresh(&sim.config, sim.store, &sought, &done, &failure);
}

void operate_retry(void *unused) {
  (void)unused;
  fiber_sleep_us(sim_between(0, 3000000));
  retry(&(Selection){.states = resolve_blocking});
  sim.operators--;
}

void operate_refresh(void *unused) {
  (void)unused;
  refresh(sim_random(ACCOUNTS));
  sim.operators--;
}

/* Everything that blocks an aggregate, or all aggregates. */
static void resolve_many(const SimEvent *event) {
  char text[] = {'a', (char)('0' + event->aggregate), '\0'};
  Selection selection = {.states = resolve_blocking};
  Failure failure = {0};
  int64_t count;
  if (sim_chance(500)) {
    selection.aggregate_type = is_account(event->aggregate) ? "account" : "meter";
    selection.aggregate_id = text;
  }
  if (sim_chance(700)) {
    retry(&selection);
  } else {
    counts.skips++;
    resolve_skip(&sim.config, sim.store, &selection, &count, &failure);
  }
}

void operate(void *unused) {
  (void)unused;
  const SimEvent *blocking[EVENTS_MAX];
  unsigned count = 0, dice = sim_random(10);
  for (unsigned i = 0; i < sim.event_count; i++)
    if (is_blocking(&sim.events[i]))
      blocking[count++] = &sim.events[i];
  const SimEvent *chosen = count ? blocking[sim_random(count)] : NULL;
  if (chosen && dice < 4)
    retry(&(Selection){.event_id = chosen->id, .states = resolve_blocking});
  else if (chosen && dice < 7)
    operator_skip(chosen);
  else if (chosen && dice == 7)
    resolve_many(chosen);
  else if (dice >= 8)
    refresh(chosen && is_account(chosen->aggregate) ? chosen->aggregate : sim_random(ACCOUNTS));
  sim.operators--;
}

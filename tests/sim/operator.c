/* operator.c - the person who runs retry, skip and refresh, as app/mend.c does. */
#include "tests/sim/sim.h"

#include "projector/app/refresh.h"

#include <stdio.h>

void operator_nudge(void) {
  if (sim.current && !sim.current->ended)
    sim.current->nudged = true;
}

static bool is_blocking(const SimEvent *event) {
  return event->present && (event->status == STATUS_FAILED || event->status == STATUS_DEAD);
}

static bool record_skipped(Session *session, const Ledger *ledger, Event *event,
                           Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  Item item = {.event = event, .verdict = VERDICT_SKIPPED};
  AggregateState *state = aggregate_set_open(set, &event->aggregate);
  bool repeated = false;
  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, ledger, set, arena, ret_failure) ||
      !ledger_insert(session, ledger, &item, 1, &repeated, ret_failure))
    return false;
  if (repeated)
    return true;
  order_pass(&state->position, event);
  state->moved = true;
  return ledger_write_positions(session, ledger, set, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

static Outbox *open_outbox(const char *command) {
  g_autofree char *owner = g_strdup_printf("%s:%u", command, sim_random(1000000));
  return outbox_new(sim.store, owner);
}

bool operator_skip(SimEvent *found) {
  Ledger ledger = {.projector = sim.config.name};
  Failure failure;
  bool skipped = false;
  g_autoptr(Outbox) outbox = open_outbox("skip");
  g_autoptr(Session) session = session_open(&sim.config.mysql, &failure);
  bson_t *document = mongo_document(found);
  g_autoptr(Event) event = event_decode(document);
  bson_destroy(document);
  counts.skips++;
  if (!session || !mongo_seize(outbox, found, &skipped, &failure) || !skipped)
    return false;
  bool recorded = record_skipped(session, &ledger, event, &failure);
  session_rollback(session);
  return recorded && outbox_acknowledge(outbox, &event, 1, &failure);
}

static void retry(SimEvent *event) {
  Failure failure;
  counts.retries++;
  mongo_retry(event, &failure);
}

static void refresh(unsigned aggregate) {
  char text[] = {'a', (char)('0' + aggregate), '\0'};
  Ledger ledger = {.projector = sim.config.name};
  Aggregate id = {"account", 7, {ID_STRING, 2, 0, (const uint8_t *)text}};
  Failure failure;
  int64_t version;
  g_autoptr(Outbox) outbox = open_outbox("refresh");
  g_autoptr(Session) session = session_open(&sim.config.mysql, &failure);
  counts.refreshes++;
  if (!session ||
      !refresh_aggregate(session, &ledger, outbox, sim.config.mapping, &id, &version, &failure))
    return;
  for (unsigned i = 0; i < sim.event_count; i++) {
    SimEvent *event = &sim.events[i];
    if (event->aggregate == aggregate && is_blocking(event) && event->version > 0 &&
        event->version <= version && !mongo_retry(event, &failure))
      return;
  }
}

void operate(void *unused) {
  (void)unused;
  SimEvent *blocking[EVENTS_MAX];
  unsigned count = 0, dice = sim_random(10);
  for (unsigned i = 0; i < sim.event_count; i++)
    if (is_blocking(&sim.events[i]))
      blocking[count++] = &sim.events[i];
  SimEvent *chosen = count ? blocking[sim_random(count)] : NULL;
  if (chosen && dice < 4) {
    retry(chosen);
  } else if (chosen && dice < 7) {
    operator_skip(chosen);
  } else if (chosen && dice == 7) {
    for (unsigned i = 0; i < count; i++)
      if (is_blocking(blocking[i]))
        retry(blocking[i]);
  } else if (dice >= 8) {
    refresh(chosen && is_account(chosen->aggregate) ? chosen->aggregate : sim_random(ACCOUNTS));
  }
  if (!sim_chance(100)) /* or the nudge is lost: the next sweep looks anyway */
    operator_nudge();
  sim.operators--;
}

/* workload.c - the events of a seed and what they mean, one by one. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char mapping_text[] =
    "{'projections': ["
    " {'aggregate_type': 'account', 'table': 'account', 'entities': 'accounts',"
    "  'key': {'account_id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "  'columns': {'name': {'from': 'name', 'type': 'varchar(40)'},"
    "              'balance': {'from': 'balance', 'type': 'bigint'},"
    "              'note': {'from': 'note', 'type': 'varchar(40)', 'null': true}},"
    "  'events': {'Opened': {'op': 'upsert'}, 'Restated': {'op': 'upsert'},"
    "             'Renamed': {'op': 'update', 'columns': ['name']},"
    "             'Noted': {'op': 'update', 'columns': ['note']},"
    "             'Deposited': {'op': 'add', 'columns': {'balance': 'amount'}},"
    "             'Withdrawn': {'op': 'subtract', 'columns': {'balance': 'amount'}},"
    "             'Doubled': {'op': 'sql', 'statement': 'UPDATE account SET balance ="
    " MOD(balance * 2 + 1, 1000003) WHERE account_id = :$aggregate_id'},"
    "             'Closed': {'op': 'delete'}, 'Seen': {'op': 'ignore'}}},"
    " {'aggregate_type': 'account', 'table': 'turnover', 'entities': 'accounts',"
    "  'key': {'account_id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "  'columns': {'total': {'from': 'total', 'type': 'bigint'}},"
    "  'events': {'Opened': {'op': 'upsert'}, 'Closed': {'op': 'delete'},"
    "             'Restated': {'op': 'add', 'columns': {'total': 'amount'}},"
    "             'Deposited': {'op': 'add', 'columns': {'total': 'amount'}},"
    "             'Withdrawn': {'op': 'add', 'columns': {'total': 'amount'}}}},"
    " {'aggregate_type': 'meter', 'table': 'meter',"
    "  'key': {'meter_id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "  'columns': {'label': {'from': 'name', 'type': 'varchar(40)'},"
    "              'reading': {'from': 'balance', 'type': 'bigint'}},"
    "  'events': {'Reset': {'op': 'upsert'}, 'Gone': {'op': 'delete'},"
    "             'Counted': {'op': 'add', 'columns': {'reading': 'amount'}},"
    "             'Labelled': {'op': 'update', 'columns': {'label': 'name'}}}}]}";

Mapping *workload_mapping(void) {
  g_autofree char *text = g_strdelimit(g_strdup(mapping_text), "'", '"');
  Failure failure = {0};
  json_t *file = json_loads(text, 0, NULL);
  Mapping *mapping = mapping_parse(file, &failure);
  if (!mapping)
    sim_fail("the simulation's own mapping is wrong: %s", failure.message);
  json_decref(file);
  return mapping;
}

/* --- meaning --------------------------------------------------------------------------------- */

const char *kind_name(Kind kind) {
  static const char *const names[] = {"Opened",   "Renamed",  "Noted",  "Deposited", "Withdrawn",
                                      "Restated", "Doubled",  "Closed", "Seen",      "Reset",
                                      "Counted",  "Labelled", "Gone",   "Nameless"};
  return names[kind];
}

static void take_row(State *state, const SimEvent *event) {
  state->present = true;
  g_strlcpy(state->name, event->name, sizeof state->name);
  state->balance = event->amount;
  state->note[0] = '\0';
}

static bool apply_to(State *state, const SimEvent *event) {
  switch (event->kind) {
  case OPENED:
    take_row(state, event);
    state->totalled = true;
    state->total = 0;
    return true;
  case RESET: take_row(state, event); return true;
  case RENAMED:
  case LABELLED: g_strlcpy(state->name, event->name, sizeof state->name); return state->present;
  case NOTED: g_strlcpy(state->note, event->name, sizeof state->note); return state->present;
  case DEPOSITED:
    state->balance += event->amount;
    state->total += event->amount;
    return state->present && state->totalled;
  case WITHDRAWN:
    state->balance -= event->amount;
    state->total += event->amount;
    return state->present && state->totalled;
  case RESTATED:
    take_row(state, event);
    state->total += event->amount;
    return state->totalled;
  case DOUBLED: state->balance = (state->balance * 2 + 1) % 1000003; return state->present;
  case COUNTED: state->balance += event->amount; return state->present;
  case CLOSED:
  case GONE: *state = (State){0}; return true;
  case SEEN: return true;
  case NAMELESS: break;
  }
  return false;
}

bool event_apply(State *state, const SimEvent *event) {
  State after = *state;
  if (event->unmappable || !apply_to(&after, event))
    return false;
  *state = after;
  return true;
}

bool event_has_deltas(const SimEvent *event) {
  return event->kind == DEPOSITED || event->kind == WITHDRAWN || event->kind == RESTATED ||
         event->kind == COUNTED;
}

bool event_needs_refresh(const SimEvent *event) {
  return event->kind == RENAMED || event->kind == NOTED || event->kind == DOUBLED ||
         event->kind == LABELLED;
}

bool event_apply_deltas(State *state, const SimEvent *event) {
  if (event->kind != RESTATED)
    return event_apply(state, event);
  if (!state->totalled || event->unmappable)
    return false;
  state->total += event->amount;
  return true;
}

State state_at(unsigned aggregate, int64_t version) {
  State state = {0};
  for (int64_t v = 1; v <= version; v++)
    for (unsigned i = 0; i < sim.event_count; i++)
      if (sim.events[i].aggregate == aggregate && sim.events[i].version == v)
        event_apply(&state, &sim.events[i]);
  return state;
}

bool state_equal(const State *a, const State *b) {
  return a->present == b->present && a->totalled == b->totalled &&
         (!a->present ||
          (a->balance == b->balance && !strcmp(a->name, b->name) && !strcmp(a->note, b->note))) &&
         (!a->totalled || a->total == b->total);
}

const char *state_text(const State *state) {
  static char texts[4][128];
  static unsigned next;
  char *text = texts[next++ % 4];
  snprintf(text, sizeof *texts, "(%s %lld '%s' '%s', %s %lld)", state->present ? "row" : "none",
           (long long)state->balance, state->name, state->note, state->totalled ? "row" : "none",
           (long long)state->total);
  return text;
}

int event_compare(const SimEvent *a, const SimEvent *b) {
  if (a->occurred_at != b->occurred_at)
    return a->occurred_at < b->occurred_at ? -1 : 1;
  if (a->version != b->version)
    return a->version < b->version ? -1 : 1;
  return strcmp(a->id, b->id);
}

/* "5f-012" is event 12; the random front makes the order of ids differ from that of events. */
SimEvent *event_of_id(const Id *id) {
  unsigned index = EVENTS_MAX;
  if (id->kind == ID_STRING && id->length == 6)
    index = (unsigned)strtoul((const char *)id->bytes + 3, NULL, 10);
  if (index >= sim.event_count)
    sim_fail("an event id that no event has");
  return &sim.events[index];
}

unsigned aggregate_of_id(const Id *id) {
  if (id->kind != ID_STRING || id->length != 2 || id->bytes[1] - '0' >= AGGREGATES)
    sim_fail("an aggregate id that no aggregate has");
  return id->bytes[1] - '0';
}

bool is_account(unsigned aggregate) {
  return aggregate < ACCOUNTS;
}

/* --- making ---------------------------------------------------------------------------------- */

static Kind random_kind(bool account, bool first) {
  static const Kind accounts[] = {OPENED,    RENAMED,   NOTED,     DEPOSITED, DEPOSITED, DEPOSITED,
                                  WITHDRAWN, WITHDRAWN, DEPOSITED, RESTATED,  DOUBLED,   DOUBLED,
                                  SEEN,      RENAMED,   CLOSED,    WITHDRAWN};
  static const Kind meters[] = {RESET, COUNTED, COUNTED, COUNTED, LABELLED, COUNTED, COUNTED, GONE};
  if (first && !sim_chance(50))
    return account ? OPENED : RESET;
  return account ? accounts[sim_random(G_N_ELEMENTS(accounts))]
                 : meters[sim_random(G_N_ELEMENTS(meters))];
}

/* If events of several aggregates break the connection each time, and none can be written, the
 * program blames the table: then they wait for an operator, and never end. So only one aggregate
 * has such events. */
static Harm choose_harm(const SimEvent *event) {
  Harm harm = (Harm)sim_random(3);
  if (event->poison_until != INT64_MAX || harm == HARM_REFUSED)
    return harm;
  for (unsigned i = 0; i < event->index; i++) {
    const SimEvent *other = &sim.events[i];
    if (other->aggregate != event->aggregate && other->poison_until == INT64_MAX &&
        other->harm != HARM_REFUSED)
      return HARM_REFUSED;
  }
  return harm;
}

static void spoil(SimEvent *event, unsigned permille) {
  if (!sim_chance(permille))
    return;
  unsigned dice = sim_random(10);
  if (dice < 3) {
    event->unmappable = event->kind != CLOSED && event->kind != GONE && event->kind != SEEN &&
                        event->kind != DOUBLED;
  } else if (dice == 3) {
    event->kind = NAMELESS;
  } else if (event->kind == OPENED || event->kind == RENAMED || event->kind == RESTATED ||
             event->kind == RESET || event->kind == LABELLED) {
    snprintf(event->name, sizeof event->name, "poison%u", event->index);
    event->poison_until = dice < 8 ? sim_between(0, 40000000) : INT64_MAX;
    event->harm = choose_harm(event);
  }
}

/* Events that share a millisecond come in the order of their versions, or ids. */
static void make_event(SimEvent *event, unsigned aggregate, int64_t version, int64_t time_ms) {
  static const unsigned spoiled[] = {0, 40, 120};
  *event = (SimEvent){.index = sim.event_count++, .aggregate = aggregate, .version = version};
  snprintf(event->id, sizeof event->id, "%02x-%03u", sim_random(256), event->index);
  event->kind = random_kind(is_account(aggregate), version <= 1 && event->index < AGGREGATES);
  event->amount = sim_between(1, 999);
  snprintf(event->name, sizeof event->name, "n%u", event->index);
  event->occurred_at = 1700000000000 + time_ms;
  spoil(event, spoiled[sim.seed % 3]);
}

/* The event before one that fails arrives after that has failed. */
static void come_late_before(const SimEvent *failing) {
  for (unsigned i = failing->index; i-- > 0;)
    if (sim.events[i].aggregate == failing->aggregate) {
      sim.events[i].insert_at = failing->insert_at + sim_between(0, 9000000);
      return;
    }
}

/* An aggregate's events arrive in order, with pauses; in some seeds, now and then, one is late, a
 * version never arrives, or times are equal. */
void workload_make(void) {
  int64_t version[AGGREGATES] = {0}, time_ms[AGGREGATES] = {0}, due[AGGREGATES] = {0};
  bool versioned[AGGREGATES];
  unsigned count = 10 + sim_random(EVENTS_MAX - 10);
  int64_t pace_us = sim_chance(500) ? 20000 : 700000;
  sim.orderly = sim_chance(500);
  for (unsigned i = 0; i < AGGREGATES; i++)
    versioned[i] = is_account(i) || sim_chance(500);
  for (unsigned i = 0; i < count; i++) {
    unsigned a = i < AGGREGATES ? i : sim_random(AGGREGATES);
    bool lost = versioned[a] && i >= AGGREGATES && sim_chance(15);
    version[a] += versioned[a] ? 1 + lost : 0;
    time_ms[a] += versioned[a] || !sim_chance(100) ? sim_between(1, 50) : 0;
    due[a] += sim_between(0, pace_us);
    SimEvent *event = &sim.events[i];
    make_event(event, a, version[a], time_ms[a]);
    event->insert_at = due[a];
    if (!sim.orderly && sim_chance(130))
      event->insert_at += sim_between(0, 9000000);
  }
  for (unsigned i = 0; !sim.orderly && i < count; i++)
    if (sim.events[i].poison_until > 0 && sim_chance(300))
      come_late_before(&sim.events[i]);
  for (unsigned i = 0; sim.orderly && i < count; i++) /* equal times: ids decide */
    for (unsigned j = 0; j < i; j++)
      if (sim.events[j].aggregate == sim.events[i].aggregate &&
          event_compare(&sim.events[j], &sim.events[i]) > 0)
        sim.events[i].occurred_at = sim.events[j].occurred_at + 1;
}

/* --- producing ------------------------------------------------------------------------------- */

/* The entity changes before its event is inserted, so that it always contains what is in the
 * outbox. */
static void advance_entity(const SimEvent *event) {
  Entity *entity = &sim.entities[event->aggregate];
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *other = &sim.events[i];
    if (other->aggregate != event->aggregate || other->version <= entity->version ||
        other->version > event->version)
      continue;
    event_apply(&entity->state, other);
    entity->version = other->version;
    entity->last_event_at = other->occurred_at;
  }
}

static SimEvent *next_due(void) {
  SimEvent *next = NULL;
  for (unsigned i = 0; i < sim.event_count; i++) {
    SimEvent *event = &sim.events[i];
    if (event->inserted_at < 0 && (!next || event->insert_at < next->insert_at))
      next = event;
  }
  return next;
}

/* A producer repeats itself: the same event again, after it was applied. */
static void repeat_one(void) {
  SimEvent *event = &sim.events[sim_random(sim.event_count)];
  int64_t age_s = (fiber_now_us() - event->ledgered_us) / 1000000;
  if (event->present || !event->ledgered || age_s > sim.config.settings.ledger_retention_s / 2)
    return;
  counts.duplicates++;
  sim_trace("event %s is written again", event->id);
  mongo_insert(event);
}

void produce(void *unused) {
  (void)unused;
  for (unsigned i = 0; i < sim.event_count; i++)
    sim.events[i].inserted_at = -1;
  SimEvent *event;
  while ((event = next_due())) {
    if (event->insert_at > fiber_now_us())
      fiber_sleep_us(event->insert_at - fiber_now_us());
    advance_entity(event);
    mongo_insert(event);
    if (sim_chance(100))
      repeat_one();
  }
  for (unsigned i = sim_random(8); i-- > 0;) {
    fiber_sleep_us(sim_between(0, 5000000));
    repeat_one();
  }
  sim.produced = true;
}

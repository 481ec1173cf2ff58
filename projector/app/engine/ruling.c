/* ruling.c - what a failed transaction means: the rules of domain/blame.h, applied to what a probe
 * of the server says and to what is remembered of events and tables. */
#include "projector/app/engine/steps.h"

#include "projector/domain/datetime.h"
#include "projector/infra/clock.h"
#include "projector/infra/mysql/probe.h"

bool ask_server(Worker *worker, Failure *ret_failure) {
  unsigned long hung = worker->hung;
  worker->hung = 0;
  return probe_server(&worker->config->mysql, worker->ledger, hung, ret_failure);
}

static const Item *first_open(const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (is_open(&items[i]))
      return &items[i];
  return NULL;
}

/* The store is at fault: the class must say so, whatever the error number was. */
static void blame_store(Failure *failure, const Failure *probe) {
  bool own_class = failure->class == FAILURE_SPACE || failure->class == FAILURE_FENCED ||
                   failure->class == FAILURE_CONFIG;
  if (!own_class)
    failure->class = FAILURE_UNAVAILABLE;
  if (probe->class == FAILURE_NONE)
    return;
  char cause[sizeof failure->message];
  g_strlcpy(cause, failure->message, sizeof cause);
  failure_set(failure, probe->class == FAILURE_CONFIG ? FAILURE_CONFIG : failure->class,
              failure->source, failure->code, "%s; and a transaction without events: %s", cause,
              probe->message);
}

/* This event may be what brings the server down. If the server comes back, that counts against
 * it. */
static void remember_break(Worker *worker, const Item *one, const Failure *failure) {
  OrderKey kept;
  if (!blame_is_break(failure) || failure->step < STEP_LEDGER)
    return;
  order_key_copy(&one->event->key, &kept, worker->broke_bytes);
  worker->broke = kept.event_id;
}

enum {
  FULL_AGAIN_MS = 300000, /* a lack of space that comes back within this time has not ended */
};

/* An event that has waited for space before has waited long enough. */
static int64_t full_for_ms(Worker *worker, const Item *alone) {
  int64_t now = clock_us();
  if (worker->full_at == 0 || now - worker->full_at > (int64_t)FULL_AGAIN_MS * 1000)
    worker->full_since = now;
  worker->full_at = now;
  return alone && watch_suspects(worker->lanes->watch, &alone->event->key.event_id)
             ? INT64_MAX
             : (now - worker->full_since) / 1000;
}

Ruling rule(Worker *worker, const Item *items, size_t count, Tries tries, Failure *failure) {
  const Item *one = first_open(items, count);
  Failure probe = {0};
  Case the_case = {.failure = failure,
                   .open = count_open(items, count),
                   .tries = tries.count,
                   .tried_ms = (clock_us() - tries.begun) / 1000};
  bool alone = the_case.open == 1;
  if (alone)
    the_case.breaks = watch_breaks(worker->lanes->watch, &one->event->key.event_id);
  if (failure->class == FAILURE_SPACE && failure->step == STEP_ROWS)
    the_case.full_ms = full_for_ms(worker, alone ? one : NULL);
  Ruling ruling = blame_rule(&the_case);
  if (ruling == RULING_PROBE) {
    the_case.probe = ask_server(worker, &probe) ? PROBE_GOOD : PROBE_BAD;
    ruling = blame_rule(&the_case);
  }
  switch (ruling) {
  case RULING_STORE:
    if (alone)
      remember_break(worker, one, failure);
    blame_store(failure, &probe);
    break;
  case RULING_EVENT: *failure = blame_report(failure, the_case.breaks + 1); break;
  case RULING_COUNT:
    if (alone)
      watch_count(worker->lanes->watch, &one->event->key.event_id);
    break;
  case RULING_WAIT:
    if (alone)
      watch_suspect(worker->lanes->watch, &one->event->key.event_id);
    break;
  default: break;
  }
  return ruling;
}

/* --- projections whose table is locked ------------------------------------------------------- */

static bool touches(const Item *item, const Projection *projection) {
  for (unsigned i = 0; i < item->changes.count; i++)
    if (item->changes.changes[i].rule->projection == projection)
      return true;
  return false;
}

/* {what is said of the table, what is logged} */
static const char *const *why_closed(const Failure *failure) {
  static const char *const locked[] = {"is locked by another session, its events wait",
                                       "a table is locked"};
  static const char *const forbidden[] = {"has rows for which a privilege is missing (of the "
                                          "definer of a trigger?), while other tables "
                                          "work; its events wait",
                                          "a table needs a privilege that is missing"};
  static const char *const refused[] = {"refuses the events of several aggregates, they wait",
                                        "a table refuses all events"};
  return blame_is_lock_wait(failure)        ? locked
         : failure->class == FAILURE_CONFIG ? forbidden
                                            : refused;
}

/* Returns why, as its events are told. */
static Failure close_projection(Worker *worker, const Projection *projection, bool rows,
                                const Failure *failure) {
  Failure why = *failure;
  const char *const *words = why_closed(failure);
  failure_prefix(&why, "table %s %s", projection->table, words[0]);
  watch_close(worker->lanes->watch, projection->index, &why, rows);
  log_failure(failure->class == FAILURE_CONFIG ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, words[1],
              &why);
  return why;
}

static void hold_at_gate(Worker *worker, Item *item, const Projection *projection,
                         const Failure *why) {
  watch_still_waits(worker->lanes->watch, projection->index, item->event->aggregate_hash);
  hold_item(worker, item, why);
}

/* Holds all open events of the projection, and so everything after them. */
static bool hold_projection(Worker *worker, Item *items, size_t count, const Projection *projection,
                            const Failure *why) {
  bool any = false;
  for (size_t i = 0; i < count; i++)
    if (is_open(&items[i]) && touches(&items[i], projection)) {
      hold_at_gate(worker, &items[i], projection, why);
      any = true;
    }
  return any;
}

bool hold_locked_table(Worker *worker, Item *items, size_t count, const Projection *projection,
                       const Failure *failure) {
  Failure locked = {0};
  if (!projection || failure->step != STEP_ROWS || !blame_is_lock_wait(failure) ||
      probe_table(&worker->config->mysql, projection, &locked) || !blame_is_lock_wait(&locked))
    return false;
  Failure why = close_projection(worker, projection, false, failure);
  return hold_projection(worker, items, count, projection, &why);
}

/* Whether MySQL admits this user to every other table; false if there is none. */
static bool others_work(Worker *worker, const Projection *projection) {
  const Mapping *mapping = worker->config->mapping;
  bool any = false;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *other = mapping_projection(mapping, i);
    Failure ignored = {0};
    if (other == projection)
      continue;
    if (!probe_table(&worker->config->mysql, other, &ignored))
      return false;
    any = true;
  }
  return any;
}

bool hold_forbidden_table(Worker *worker, Item *items, size_t count, const Projection *projection,
                          const Failure *failure) {
  if (!projection || failure->step != STEP_ROWS || failure->class != FAILURE_CONFIG ||
      !others_work(worker, projection))
    return false;
  Failure why = close_projection(worker, projection, true, failure);
  return hold_projection(worker, items, count, projection, &why);
}

/* A column without a default that the mapping does not know, a month without a partition: of no
 * event in particular. */
static bool is_of_table(const Failure *failure) {
  enum { NO_DEFAULT = 1364, NO_PARTITION = 1526 };
  return failure->source == SOURCE_MYSQL &&
         (failure->code == NO_DEFAULT || failure->code == NO_PARTITION);
}

bool tally(Worker *worker, const Item *one, const Projection *projection, const Failure *failure) {
  bool counts = projection && failure->step == STEP_ROWS &&
                (blame_is_lock_wait(failure) || failure->class == FAILURE_UNKNOWN ||
                 failure->class == FAILURE_SPACE || is_of_table(failure));
  if (!counts || !watch_tally(worker->lanes->watch, projection->index, one->event->aggregate_hash))
    return false;
  close_projection(worker, projection, true, failure);
  return true;
}

/* Chooses the event that tries the gate, if possible of an aggregate that did not help to close it:
 * three rows that stay locked must not hold up the others. */
static Item *choose(Worker *worker, Item *items, size_t count, const Projection *projection) {
  Item *chosen = NULL;
  for (size_t i = 0; i < count; i++) {
    if (!is_open(&items[i]) || !touches(&items[i], projection))
      continue;
    if (!watch_tallied(worker->lanes->watch, projection->index, items[i].event->aggregate_hash))
      return &items[i];
    chosen = chosen ? chosen : &items[i];
  }
  return chosen;
}

/* Examines the table first, which costs no event a lock wait. If only its rows are locked, one
 * event tests whether they still are. Returns true when the gate is open. */
static bool try_gate(Worker *worker, Item *items, size_t count, const Projection *projection,
                     Failure *why, bool rows) {
  Failure locked = {0};
  if (!probe_table(&worker->config->mysql, projection, &locked) && blame_is_lock_wait(&locked)) {
    watch_close(worker->lanes->watch, projection->index, why, rows);
    return false;
  }
  if (!rows) {
    watch_open(worker->lanes->watch, projection->index);
    return true;
  }
  Item *chosen = choose(worker, items, count, projection);
  for (size_t i = 0; i < count; i++)
    if (is_open(&items[i]) && touches(&items[i], projection) && &items[i] != chosen)
      hold_at_gate(worker, &items[i], projection, why);
  if (chosen) {
    queued_of(chosen)->on_trial = true;
    watch_suspect(worker->lanes->watch, &chosen->event->key.event_id);
  }
  return true;
}

void end_trials(Worker *worker, const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    for (unsigned j = 0; queued_of(&items[i])->on_trial && j < items[i].changes.count; j++)
      watch_end_trial(worker->lanes->watch, items[i].changes.changes[j].rule->projection->index);
}

void hold_behind_gates(Worker *worker, Item *items, size_t count) {
  const Mapping *mapping = worker->config->mapping;
  for (unsigned p = 0; p < mapping_projection_count(mapping); p++) {
    const Projection *projection = mapping_projection(mapping, p);
    Failure why;
    bool rows, any = false;
    for (size_t i = 0; i < count && !any; i++)
      any = is_open(&items[i]) && touches(&items[i], projection);
    if (!any)
      continue;
    switch (watch_gate(worker->lanes->watch, projection->index, &why, &rows)) {
    case GATE_OPEN: break;
    case GATE_TRIAL:
      if (try_gate(worker, items, count, projection, &why, rows))
        break;
      hold_projection(worker, items, count, projection, &why);
      break;
    case GATE_CLOSED: hold_projection(worker, items, count, projection, &why); break;
    }
  }
}

/* --- events from the future ------------------------------------------------------------------ */

void hold_early(Worker *worker, Item *items, size_t count) {
  int64_t future_ms = worker->config->settings.future_ms, now_ms = lanes_now_ms(worker->lanes);
  for (size_t i = 0; i < count; i++) {
    int64_t early_ms = order_early_ms(items[i].event, now_ms, future_ms);
    if (early_ms == 0 || !is_open(&items[i]))
      continue;
    char time[DATETIME_TEXT_SIZE], limit[DURATION_TEXT_SIZE];
    Failure failure;
    datetime_format(items[i].event->key.occurred_at * 1000, 3, time);
    failure_set(&failure, FAILURE_DATA, SOURCE_EVENT, 0,
                "occurred_at: %s is more than future_ms (%s) ahead of MongoDB's clock; the event "
                "is held until that time is near",
                time, duration_text(future_ms, limit));
    hold_item(worker, &items[i], &failure);
    queued_of(&items[i])->early_ms = early_ms;
  }
}

/* --- what was applied ------------------------------------------------------------------------ */

void acquit(Worker *worker, const Item *items, size_t count) {
  Watch *watch = worker->lanes->watch;
  for (size_t i = 0; i < count; i++) {
    const Item *item = &items[i];
    if (!verdict_outcome(item->verdict))
      continue;
    watch_acquit(watch, &item->event->key.event_id);
    for (unsigned j = 0; j < item->effect.count; j++)
      watch_open(watch, item->effect.changes[j].rule->projection->index);
  }
}

/* transaction.c - the steps fold and apply: one MySQL transaction, and what its failure means. */
#include "projector/app/engine/owner_session.h"
#include "projector/app/engine/steps.h"

#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

enum {
  RETRY_MS = 20, /* base of the pause between two attempts of a transaction */
  RETRY_MAX_MS = 1000,
  SUSPECT_WAIT_S = 1, /* for a lock, of an event that has waited for a lock before */
};

bool ensure_session(Worker *worker, Failure *ret_failure) {
  if (!worker->session)
    worker->session = owner_session_open(worker->config, worker->lanes, ret_failure);
  return worker->session != NULL;
}

/* Aggregates that were blocked in an earlier part of the batch stay blocked in the later parts. */
static void carry_blocks(AggregateSet *aggregates, const GHashTable *blocked, const Item *items,
                         size_t count) {
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    if (event_has_aggregate(event))
      aggregate_set_open(aggregates, &event->aggregate)->blocked =
          g_hash_table_contains((GHashTable *)blocked, &event->aggregate);
  }
}

static size_t count_known(const Item *items, size_t count) {
  size_t known = 0;
  for (size_t i = 0; i < count; i++)
    known += items[i].verdict == VERDICT_KNOWN;
  return known;
}

/* An event that would fail or be refreshed is never inserted into the ledger. It may be a repeated
 * one that was applied before: then there is nothing to do. */
static bool find_repetitions(Worker *worker, Item *items, size_t count, bool *ret_repeated,
                             Failure *ret_failure) {
  size_t suspects = 0, known = count_known(items, count);
  for (size_t i = 0; i < count; i++)
    suspects += items[i].verdict == VERDICT_FAILED || items[i].verdict == VERDICT_REFRESH;
  if (suspects == 0)
    return true;
  if (!ledger_find_known(worker->session, worker->ledger, items, count, ret_failure))
    return false;
  *ret_repeated = count_known(items, count) > known;
  return true;
}

/* A session that ended while it was idle (by wait_timeout, KILL, or a proxy) took nothing with it.
 * A new one tells whether the server is away. */
static bool renew_session(Worker *worker, Failure *ret_failure) {
  if (ret_failure->class != FAILURE_UNAVAILABLE)
    return false;
  g_clear_pointer(&worker->session, session_close);
  *ret_failure = (Failure){0};
  return ensure_session(worker, ret_failure);
}

static bool begin(Worker *worker, Failure *ret_failure) {
  static const char statement[] = "START TRANSACTION";
  return session_run(worker->session, ret_failure, statement) ||
         (renew_session(worker, ret_failure) &&
          session_run(worker->session, ret_failure, statement));
}

void note_commit(Worker *worker, const Item *items, size_t count) {
  last_applied_note(worker->lanes->last_applied, worker->number, items, count,
                    lanes_now_ms(worker->lanes));
}

/* Decides and applies the items in one transaction. `*ret_repeated`: the ledger already has at
 * least one of them, and nothing was written. */
static bool transact(Worker *worker, Item *items, size_t count, const GHashTable *blocked,
                     bool *ret_repeated, Culprit *ret_culprit, Failure *ret_failure) {
  *ret_repeated = false;
  if (!failure_at(ret_failure, STEP_CONNECT, ensure_session(worker, ret_failure)))
    return false;
  const Mapping *mapping = worker->config->mapping;
  g_autoptr(AggregateSet) aggregates = aggregate_set_new(worker->arena);
  g_autoptr(Fold) fold = NULL;
  int64_t begun = clock_us();
  if (worker->lanes->count == 1) /* one alone keeps the order across all */
    aggregate_set_keep_order(aggregates);
  carry_blocks(aggregates, blocked, items, count);

  if (!failure_at(ret_failure, STEP_BEGIN, begin(worker, ret_failure)))
    return false;
  Session *session = worker->session;
  if (!failure_at(ret_failure, STEP_ENTER,
                  ledger_enter(session, worker->ledger, aggregates, worker->arena, ret_failure)))
    return false;
  crash_point("after_begin");
  fold = plan_decide(mapping, items, count, aggregates, worker->arena);
  if (!failure_at(ret_failure, STEP_LEDGER,
                  find_repetitions(worker, items, count, ret_repeated, ret_failure)))
    return false;
  if (*ret_repeated)
    return true;
  if (!failure_at(ret_failure, STEP_LEDGER,
                  ledger_insert(session, worker->ledger, items, count, ret_repeated, ret_failure)))
    return false;
  if (*ret_repeated)
    return true;
  crash_point("after_ledger");
  if (!failure_at(ret_failure, STEP_ROWS, apply_fold(session, fold, ret_culprit, ret_failure)))
    return false;
  crash_point("after_rows");
  if (!failure_at(ret_failure, STEP_POSITIONS,
                  ledger_write_positions(session, worker->ledger, aggregates, ret_failure)))
    return false;
  crash_point("before_commit");
  if (!failure_at(ret_failure, STEP_COMMIT, session_run(session, ret_failure, "COMMIT"))) {
    last_applied_doubt(worker->lanes->last_applied, worker->number, items, count,
                       lanes_now_ms(worker->lanes));
    return false;
  }
  hand_commit(worker->hand, items, count);
  note_commit(worker, items, count);
  watch_recall_missing(worker->lanes->watch, items, count);
  metrics_committed(worker->metrics, items, count, clock_us() - begun);
  crash_point("after_commit");
  return true;
}

/* --- what a failed transaction means --- */

/* Before a retry, everything except settled verdicts is decided again: a row that was missing
 * after other events of the batch may be there without them. */
static void reopen(Item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    Item *item = &items[i];
    if (item->failure_is_provisional)
      item->failure = NULL;
    else if (!is_open(item))
      continue;
    item->failure_is_provisional = false;
    item->verdict = VERDICT_NONE;
  }
}

static void note_blocks(GHashTable *blocked, const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    Verdict verdict = items[i].verdict;
    if (event_has_aggregate(items[i].event) &&
        (verdict == VERDICT_FAILED || verdict == VERDICT_GAP || verdict == VERDICT_REFRESH))
      g_hash_table_add(blocked, &items[i].event->aggregate);
  }
}

bool retry_pause(Worker *worker, int tries) {
  int64_t delay = backoff_delay_ms(tries, RETRY_MS, RETRY_MAX_MS, g_rand_int(worker->random));
  return !stop_wait(worker->stop, delay);
}

/* The tables do not match the mapping: all events of that projection share the failure. */
static bool fail_projection(Worker *worker, Item *items, size_t count, const Projection *culprit,
                            const Failure *failure) {
  bool any = false;
  for (size_t i = 0; i < count; i++)
    for (unsigned j = 0; is_open(&items[i]) && j < items[i].effect.count; j++)
      if (items[i].effect.changes[j].rule->projection == culprit) {
        fail_item(worker, &items[i], failure);
        any = true;
      }
  return any;
}

/* In a transaction, which a proxy does not send to a replica that lags. */
static bool find_repeated(Worker *worker, Item *items, size_t count, Failure *ret_failure) {
  bool good = session_run(worker->session, ret_failure, "START TRANSACTION") &&
              ledger_find_known(worker->session, worker->ledger, items, count, ret_failure);
  session_rollback(worker->session);
  return good;
}

/* The ledger has some of the items already. Returns false when it does not say which. */
static bool learn_repeated(Worker *worker, Item *items, size_t count, size_t known,
                           Failure *ret_failure) {
  session_rollback(worker->session);
  reopen(items, count);
  if (!find_repeated(worker, items, count, ret_failure))
    return false;
  hand_commit(worker->hand, items, count);
  last_applied_settle(worker->lanes->last_applied, worker->number, items, count);
  /* the other transaction was rolled back after all, or another key is repeated */
  return count_known(items, count) > known ||
         failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MYSQL, 0,
                     "the ledger refused events that it does not contain");
}

/* What all parts of a batch share. */
typedef struct Attempt {
  GHashTable *blocked; /* aggregates that an earlier part blocked */
  int64_t begun;       /* when the batch was first tried; 0: nothing is retried any more */
  bool waited;         /* for a lock, in vain */
} Attempt;

static bool apply_part(Worker *worker, Item *items, size_t count, Attempt *attempt,
                       Failure *ret_failure);

/* An event that has waited for a lock before must not hold up others for as long again. */
static void set_lock_wait(Worker *worker, int seconds) {
  static const char statement[] =
      "SET SESSION innodb_lock_wait_timeout = %d, lock_wait_timeout = %d";
  Failure ignored = {0};
  worker->hurried = seconds != (int)worker->config->mysql.lock_wait_s;
  if (worker->session && !session_run(worker->session, &ignored, statement, seconds, seconds) &&
      renew_session(worker, &ignored))
    session_run(worker->session, &ignored, statement, seconds, seconds);
}

/* Separates the event whose statement failed from the others, if it is known; otherwise halves. */
static bool apply_parts(Worker *worker, Item *items, size_t count, const Change *statement,
                        Attempt *attempt, Failure *ret_failure) {
  size_t from = count / 2, to = from;
  for (size_t i = 0; i < count && statement; i++)
    if (is_open(&items[i]) && statement >= items[i].changes.changes &&
        statement < items[i].changes.changes + items[i].changes.count)
      from = i, to = i + 1;
  return (from == 0 || apply_part(worker, items, from, attempt, ret_failure)) &&
         (from == to || apply_part(worker, items + from, to - from, attempt, ret_failure)) &&
         (to == count || apply_part(worker, items + to, count - to, attempt, ret_failure));
}

/* Without an aggregate it cannot be held, and is given back. */
static void wait_undecided(Worker *worker, Item *item, const Failure *failure) {
  if (event_has_aggregate(item->event))
    hold_item(worker, item, failure);
  else
    item->verdict = VERDICT_NONE;
}

/* The open items, one event or those of one projection, all get the failure. Those that had failed
 * before only wait if it came before the ledger was asked whether they were applied once. */
static bool end_part(Worker *worker, Item *items, size_t count, bool excused, Attempt *attempt,
                     const Failure *failure) {
  for (size_t i = 0; i < count; i++)
    if (is_open(&items[i]))
      (excused ? hold_item : fail_item)(worker, &items[i], failure);
    else if (items[i].verdict == VERDICT_FAILED && failure->step < STEP_ROWS)
      wait_undecided(worker, &items[i], failure);
  note_blocks(attempt->blocked, items, count);
  return true;
}

void part_with_session(Worker *worker, const Failure *failure) {
  if (worker->session && blame_is_break(failure))
    worker->hung = session_id(worker->session);
  if (failure->class == FAILURE_UNAVAILABLE)
    g_clear_pointer(&worker->session, session_close);
}

/* Cleans up after a failed transaction: rolls back all of it, because some errors undo only one
 * statement, and drops a session whose state is in doubt. */
static void clear_up(Worker *worker, Item *items, size_t count, const Failure *failure) {
  if (worker->session)
    session_rollback(worker->session);
  part_with_session(worker, failure);
  reopen(items, count);
}

static void report_retry(Worker *worker, const Failure *failure) {
  if (failure->class == FAILURE_CONFLICT || failure->class == FAILURE_UNKNOWN)
    log_failure(LOG_LEVEL_WARNING, "a transaction is retried", failure);
  metrics_retry(worker->metrics, failure->class);
}

static bool give_up(Worker *worker, const Failure *failure, Failure *ret_failure) {
  if (failure->class == FAILURE_UNAVAILABLE)
    g_clear_pointer(&worker->session, session_close);
  *ret_failure = *failure;
  return false;
}

/* A stop has no time to find out whose fault it is. */
static bool is_over(const Worker *worker, const Failure *failure) {
  return stop_requested(worker->stop) && failure->class != FAILURE_DATA &&
         failure->class != FAILURE_MAPPING && failure->class != FAILURE_SIZE;
}

typedef enum PartState { PART_DONE, PART_AGAIN, PART_STOPPED } PartState;

static PartState done_if(bool good) {
  return good ? PART_DONE : PART_STOPPED;
}

/* What the failure of the whole part means: it is done, to be retried, or the worker cannot
 * continue. */
static PartState carry_out(Worker *worker, Item *items, size_t count, const Culprit *culprit,
                           int tries, Attempt *attempt, Failure *failure) {
  Ruling ruling = rule(worker, items, count, (Tries){tries, attempt->begun}, failure);
  size_t open = count_open(items, count);
  if (is_over(worker, failure))
    return PART_STOPPED;
  if (ruling == RULING_PROJECTION)
    ruling = open > 1 ? RULING_SPLIT : RULING_WAIT;
  switch (ruling) {
  case RULING_RETRY:
    report_retry(worker, failure);
    return retry_pause(worker, tries) ? PART_AGAIN : PART_STOPPED;
  case RULING_SPLIT:
    report_retry(worker, failure);
    if (blame_is_lock_wait(failure)) {
      set_lock_wait(worker, SUSPECT_WAIT_S);
      attempt->begun = 0;
    }
    return done_if(apply_parts(worker, items, count, culprit->statement, attempt, failure));
  case RULING_WAIT:
  case RULING_EVENT: {
    bool several = false;
    for (size_t i = 0; i < count; i++)
      if (is_open(&items[i]))
        several |= tally(worker, &items[i], culprit->projection, failure);
    return done_if(
        end_part(worker, items, count, several || ruling == RULING_WAIT, attempt, failure));
  }
  case RULING_COUNT: return done_if(end_part(worker, items, count, true, attempt, failure));
  default: return PART_STOPPED;
  }
}

static Item *only_open(Item *items, size_t count) {
  Item *open = NULL;
  for (size_t i = 0; i < count; i++)
    if (is_open(&items[i])) {
      if (open)
        return NULL;
      open = &items[i];
    }
  return open;
}

/* After a failure at the rows, rolled back: a newer event may have removed the row to which a late
 * one would add. Looks for it, and returns true when the late event, alone, is to be decided again
 * without it. `*failure` changes when the look itself fails. */
static bool learn_gone_rows(Worker *worker, Item *items, size_t count, Failure *failure) {
  Item *item = only_open(items, count);
  bool learnt = false;
  if (!item || !item->late || failure->step != STEP_ROWS || failure->class != FAILURE_DATA)
    return false;
  for (unsigned i = 0; i < item->changes.count; i++) {
    Change *change = &item->changes.changes[i];
    if (!operation_is_delta(change->rule->operation) || change->row != ROW_NOT_LOOKED_FOR)
      continue;
    if (!rows_look(worker->session, change->rule->projection, change->key, &change->row, failure)) {
      part_with_session(worker, failure);
      return failure_at(failure, STEP_ROWS, false);
    }
    learnt |= change->row != ROW_THERE;
  }
  return learnt;
}

static bool apply_part(Worker *worker, Item *items, size_t count, Attempt *attempt,
                       Failure *ret_failure) {
  for (int tries = 0;;) {
    bool repeated;
    Culprit culprit = {0};
    Failure failure = {0};
    size_t known = count_known(items, count);
    if (transact(worker, items, count, attempt->blocked, &repeated, &culprit, &failure)) {
      if (!repeated) {
        note_blocks(attempt->blocked, items, count);
        acquit(worker, items, count);
        return true;
      }
      if (failure_at(&failure, STEP_LEDGER, learn_repeated(worker, items, count, known, &failure)))
        continue;
    }
    clear_up(worker, items, count, &failure);
    attempt->waited |= blame_is_lock_wait(&failure);
    if (failure.step == STEP_ROWS && failure.class == FAILURE_MAPPING && culprit.projection &&
        fail_projection(worker, items, count, culprit.projection, &failure))
      continue;
    if (hold_locked_table(worker, items, count, culprit.projection, &failure) ||
        hold_forbidden_table(worker, items, count, culprit.projection, &failure) ||
        learn_gone_rows(worker, items, count, &failure))
      continue;
    PartState state = carry_out(worker, items, count, &culprit, ++tries, attempt, &failure);
    if (state == PART_STOPPED)
      return give_up(worker, &failure, ret_failure);
    if (state == PART_DONE)
      return true;
  }
}

/* Moves events that have failed alone before, and the events behind them, to the end, where each is
 * applied alone. Returns how many are not of that kind; their order stays. */
static size_t suspects_last(Worker *worker, Item *items, size_t count) {
  g_autoptr(GHashTable) behind = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  g_autofree Item *last = g_new(Item, count);
  size_t innocent = 0, suspects = 0;
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    if (event_has_aggregate(event) &&
        (g_hash_table_contains(behind, &event->aggregate) ||
         watch_suspects(worker->lanes->watch, &event->key.event_id))) {
      g_hash_table_add(behind, (gpointer)&event->aggregate);
      last[suspects++] = items[i];
    } else {
      items[innocent++] = items[i];
    }
  }
  if (suspects > 0)
    memcpy(items + innocent, last, suspects * sizeof *last);
  return innocent;
}

static bool apply_suspects(Worker *worker, Item *items, size_t count, Attempt *attempt,
                           Failure *ret_failure) {
  bool good = true;
  attempt->begun = 0; /* so that none of them is retried for long */
  if (!ensure_session(worker, ret_failure))
    return false;
  set_lock_wait(worker, SUSPECT_WAIT_S);
  for (size_t i = 0; i < count && good; i++)
    good = apply_part(worker, &items[i], 1, attempt, ret_failure);
  return good;
}

bool apply(Worker *worker, Item *items, size_t count, Failure *ret_failure) {
  g_autoptr(GHashTable) blocked = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  Attempt attempt = {.blocked = blocked, .begun = clock_us()};
  hold_early(worker, items, count);
  hold_behind_gates(worker, items, count);
  size_t innocent = suspects_last(worker, items, count);
  bool good = (innocent == 0 || apply_part(worker, items, innocent, &attempt, ret_failure)) &&
              (innocent == count ||
               apply_suspects(worker, items + innocent, count - innocent, &attempt, ret_failure));
  end_trials(worker, items, count);
  if (good && worker->hurried && innocent == count && !attempt.waited)
    set_lock_wait(worker, (int)worker->config->mysql.lock_wait_s);
  return good;
}

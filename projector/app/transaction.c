/* transaction.c - the steps fold and apply: one MySQL transaction, and what its failure means. */
#include "projector/app/worker.h"

#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/mysql/apply.h"

enum {
  LOCK_WAIT_TIMEOUT = 1205,
  APART_MS = 60000,      /* after one, a shard is taken together with no other */
  REPLAYS_MAX = 20,      /* of one transaction after deadlocks and lock waits, but */
  REPLAY_FOR_MS = 20000, /* not for longer: then the batch is split, so that others can go on */
  REPLAY_MS = 20,        /* base of the pause between them, at most */
  REPLAY_MAX_MS = 1000,  /* this */
  UNKNOWN_RETRIES = 3,   /* of a failure that no table knows, before it is the event's */
  IDLE_MIN_S = 2,        /* the server ends a worker's session that is silent for a lease, */
  IDLE_MAX_S = 60,       /* within these bounds */
};

/* A projector that froze inside a transaction holds the fence's lock, and with it everybody who
 * wants to take over, until the server ends its session: so that comes soon, and a session that has
 * been idle is looked at before it is used. */
bool ensure_session(Worker *worker, Failure *ret_failure) {
  int64_t idle_s = CLAMP(worker->config->settings.lease_ms / 1000, IDLE_MIN_S, IDLE_MAX_S);
  if (worker->session && session_idle_ms(worker->session) > idle_s * 1000 / 3) {
    Failure ignored;
    if (!session_run(worker->session, &ignored, "DO 0"))
      g_clear_pointer(&worker->session, session_close);
  }
  if (worker->session)
    return true;
  worker->session = session_open(&worker->config->mysql, ret_failure);
  if (worker->session &&
      !session_run(worker->session, ret_failure, "SET SESSION wait_timeout = %d", (int)idle_s))
    g_clear_pointer(&worker->session, session_close);
  return worker->session != NULL;
}

/* Aggregates that an earlier part of the batch blocked stay blocked in the later parts. */
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

/* What would fail or be refreshed never reaches the ledger's insert, but may be an event that was
 * applied before and sent again: then there is nothing to do. */
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

/* Decides and applies the items in one transaction. `*ret_repeated`: the ledger knows at least one
 * of them; nothing was written. */
static bool transact(Worker *worker, Item *items, size_t count, const GHashTable *blocked,
                     bool *ret_repeated, const Projection **ret_culprit, Failure *ret_failure) {
  *ret_repeated = false;
  if (!ensure_session(worker, ret_failure))
    return false;
  Session *session = worker->session;
  const Mapping *mapping = worker->config->mapping;
  g_autoptr(AggregateSet) aggregates = aggregate_set_new(worker->arena);
  g_autoptr(Fold) fold = NULL;
  int64_t begun = clock_us();
  carry_blocks(aggregates, blocked, items, count);

  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, worker->ledger, aggregates, worker->arena, ret_failure))
    return false;
  crash_point("after_begin");
  fold = plan_decide(mapping, items, count, aggregates, worker->arena);
  if (!find_repetitions(worker, items, count, ret_repeated, ret_failure))
    return false;
  if (*ret_repeated)
    return true;
  if (!ledger_insert(session, worker->ledger, items, count, ret_repeated, ret_failure))
    return false;
  if (*ret_repeated)
    return true;
  crash_point("after_ledger");
  if (!apply_fold(session, fold, ret_culprit, ret_failure))
    return false;
  crash_point("after_rows");
  if (!ledger_write_positions(session, worker->ledger, aggregates, ret_failure))
    return false;
  crash_point("before_commit");
  if (!session_run(session, ret_failure, "COMMIT"))
    return false;
  metrics_committed(worker->metrics, items, count, clock_us() - begun);
  crash_point("after_commit");
  return true;
}

/* --- resolve: what a failed transaction means --- */

static bool is_open(const Item *item) {
  return item->verdict != VERDICT_FAILED && item->verdict != VERDICT_KNOWN;
}

static size_t count_open(const Item *items, size_t count) {
  size_t open = 0;
  for (size_t i = 0; i < count; i++)
    open += is_open(&items[i]);
  return open;
}

/* Before a replay everything but what is certain is decided anew: a row that was missing after
 * others of the batch may be there without them. */
static size_t reopen(Item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    Item *item = &items[i];
    if (item->planned)
      item->failure = NULL;
    else if (!is_open(item))
      continue;
    item->planned = false;
    item->verdict = VERDICT_NONE;
  }
  return count_open(items, count);
}

void fail_item(Worker *worker, Item *item, const Failure *failure) {
  item->verdict = VERDICT_FAILED;
  item->failure = arena_alloc(worker->arena, 1, sizeof *failure);
  *item->failure = *failure;
}

static void note_blocks(GHashTable *blocked, const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    Verdict verdict = items[i].verdict;
    if (event_has_aggregate(items[i].event) &&
        (verdict == VERDICT_FAILED || verdict == VERDICT_GAP || verdict == VERDICT_REFRESH))
      g_hash_table_add(blocked, &items[i].event->aggregate);
  }
}

bool replay_pause(Worker *worker, int replays) {
  int64_t delay = backoff_delay_ms(replays, REPLAY_MS, REPLAY_MAX_MS, g_rand_int(worker->random));
  return !stop_wait(worker->stop, delay);
}

bool all_own(const Worker *worker, const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (home_of(worker, items[i].event) != worker->shards->shards[worker->number])
      return false;
  return true;
}

bool part_at_lock(Worker *worker, const Item *items, size_t count, bool batch_is_own,
                  const Failure *failure) {
  if (failure->source != SOURCE_MYSQL || failure->code != LOCK_WAIT_TIMEOUT)
    return false;
  for (size_t i = 0; i < count; i++)
    shard_keep_apart(home_of(worker, items[i].event), APART_MS);
  if (batch_is_own) {
    shards_release_all_but(worker->shards, worker->number, worker->shards->shards[worker->number]);
    return false;
  }
  log_failure(LOG_LEVEL_WARNING, "events of other workers are given back", failure);
  metrics_retry(worker->metrics, failure->class);
  return true;
}

bool is_worth_a_replay(const Failure *failure, int replays, int64_t begun) {
  return failure->class == FAILURE_CONFLICT
             ? replays <= REPLAYS_MAX && clock_us() - begun < (int64_t)REPLAY_FOR_MS * 1000
             : failure->class == FAILURE_UNKNOWN && replays <= UNKNOWN_RETRIES;
}

typedef enum Resolution { RESOLVED, REPLAY, SPLIT, GIVE_UP } Resolution;

static Resolution resolve(Worker *worker, const Failure *failure, size_t open, int replays,
                          int64_t begun) {
  switch (failure->class) {
  case FAILURE_CONFLICT:
  case FAILURE_UNKNOWN:
    log_failure(LOG_LEVEL_WARNING, "a transaction has to be tried again", failure);
    if (is_worth_a_replay(failure, replays, begun) && replay_pause(worker, replays))
      return REPLAY;
    return stop_requested(worker->stop) ? GIVE_UP : open > 1 ? SPLIT : RESOLVED;
  case FAILURE_DATA:
  case FAILURE_MAPPING:
  case FAILURE_SIZE: return open > 1 ? SPLIT : RESOLVED;
  default: return GIVE_UP; /* unavailable, space, fenced, configuration: not these events' fault */
  }
}

/* The tables are not what the mapping says: all events of that projection share the failure. */
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

/* The ledger knew some of the items. False: it does not say which. */
static bool learn_repeated(Worker *worker, Item *items, size_t count, size_t known,
                           Failure *ret_failure) {
  session_rollback(worker->session);
  reopen(items, count);
  if (!ledger_find_known(worker->session, worker->ledger, items, count, ret_failure))
    return false;
  /* The other transaction was rolled back after all, or something else repeats a key. */
  return count_known(items, count) > known ||
         failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MYSQL, 0,
                     "the ledger refused events that it does not have");
}

/* What the parts of a batch have in common. */
typedef struct Attempt {
  GHashTable *blocked; /* aggregates that an earlier part blocked */
  int64_t begun;       /* when the batch was tried first */
  bool own;            /* all its events are of the worker's own shard */
  bool given_back;     /* this part and the later ones */
} Attempt;

/* Nothing is known of these; the ledger may know more. */
static bool leave_open(Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict != VERDICT_KNOWN)
      items[i].verdict = VERDICT_NONE;
  return true;
}

static bool apply_part(Worker *worker, Item *items, size_t count, Attempt *attempt,
                       Failure *ret_failure) {
  if (attempt->given_back)
    return leave_open(items, count);
  for (int replays = 0;;) {
    bool repeated;
    const Projection *culprit = NULL;
    Failure failure = {0};
    size_t known = count_known(items, count);
    if (transact(worker, items, count, attempt->blocked, &repeated, &culprit, &failure)) {
      if (!repeated) {
        note_blocks(attempt->blocked, items, count);
        return true;
      }
      if (learn_repeated(worker, items, count, known, &failure))
        continue;
    }
    if (worker->session) /* always the whole transaction: some errors undo one statement only */
      session_rollback(worker->session);
    if (failure.class == FAILURE_UNAVAILABLE)
      g_clear_pointer(&worker->session, session_close);
    size_t open = reopen(items, count);
    if (failure.class == FAILURE_MAPPING && culprit &&
        fail_projection(worker, items, count, culprit, &failure))
      continue;
    if (part_at_lock(worker, items, count, attempt->own, &failure)) {
      attempt->given_back = true;
      return leave_open(items, count);
    }
    switch (resolve(worker, &failure, open, ++replays, attempt->begun)) {
    case REPLAY: metrics_retry(worker->metrics, failure.class); continue;
    case RESOLVED:
      for (size_t i = 0; i < count; i++)
        if (is_open(&items[i]))
          fail_item(worker, &items[i], &failure);
      note_blocks(attempt->blocked, items, count);
      return true;
    case SPLIT:
      metrics_retry(worker->metrics, failure.class);
      return apply_part(worker, items, count / 2, attempt, ret_failure) &&
             apply_part(worker, items + count / 2, count - count / 2, attempt, ret_failure);
    case GIVE_UP: *ret_failure = failure; return false;
    }
  }
}

bool apply(Worker *worker, Item *items, size_t count, Failure *ret_failure) {
  g_autoptr(GHashTable) blocked = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  Attempt attempt = {.blocked = blocked, .begun = clock_us(), .own = all_own(worker, items, count)};
  return apply_part(worker, items, count, &attempt, ret_failure);
}

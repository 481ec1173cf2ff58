/* pipeline.c - what happens to an event, from the queue to its row. Start reading here.
 *
 *   read ▶ decode ▶ order ▶ claim ▶ map ▶ fold ▶ apply ▶ acknowledge
 *
 * The reader (reader.c) has read and decoded the event and put it into the shard of its aggregate
 * (shard.c), which keeps the order. From there a worker takes a batch:
 *
 *   claim        mark the events in_progress in the outbox, so that the world sees who has them and
 *                every attempt counts, also one that kills this process
 *   map          events become changes of rows (domain/change.c); what does not fit fails here
 *   transaction  in MySQL, all or nothing:
 *                  fence      stop if another projector has taken over
 *                  positions  lock and read how far each aggregate is
 *                  decide     late, gap, superseded … and fold the rest (domain/plan.c)
 *                  ledger     insert the event ids; one that is there already was applied before
 *                  rows       the folded changes in few statements
 *                  positions  write
 *                COMMIT is the point at which the events count
 *   settle       acknowledge the applied (acker.c), mark the failed, give the others back
 *
 * A transaction that fails is replayed, split or given up by the class of its failure (resolve). An
 * answer to COMMIT that got lost needs nothing special: the replay meets its own ledger entries. */
#include "projector/app/pipeline.h"

#include "projector/app/refresh.h"
#include "projector/infra/crash.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/apply.h"

#include <string.h>

enum {
  REPLAYS_MAX = 20,    /* of one transaction after deadlocks and lock waits */
  REPLAY_MS = 20,      /* base of the pause between them */
  UNKNOWN_RETRIES = 3, /* of a failure that no table knows, before it is the event's */
  BACKOFF_MAX_MS = 300000,
  MAPPING_RETRY_MS = 5000, /* events of a table that does not fit the mapping */
  TAKEN_WAIT_MS = 50,      /* before an event that another has claimed is looked at again */
  PROBE_MS = 50,           /* first pause before an unreachable store is tried again, doubling to */
  PROBE_MAX_MS = 800,      /* this: work resumes within a second */
  IDLE_MIN_S = 2,          /* the server ends a worker's session that is silent for a lease, */
  IDLE_MAX_S = 60,         /* within these bounds */
};

struct Worker {
  const Config *config;
  const Ledger *ledger;
  Shard *shard;
  Acker *acker;
  Stop *stop;
  Outbox *outbox;
  Session *session; /* NULL: to be opened */
  Arena *arena;     /* of the batch in hand */
  GRand *random;
  Event **taken; /* room for a batch */
  int failures;  /* of a store, one after the other */
  GThread *thread;
  GMutex lock; /* of the counters */
  Counters counters;
};

/* --- apply: one transaction ------------------------------------------------------------------- */

/* A projector that froze inside a transaction holds the fence's lock, and with it everybody who
 * wants to take over, until the server ends its session: so that comes soon, and a session that has
 * been idle is looked at before it is used. */
static bool ensure_session(Worker *worker, Failure *ret_failure) {
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

/* What would fail or be refreshed never reaches the ledger's insert, but may be an event that was
 * applied before and sent again: then there is nothing to do. */
static bool find_repetitions(Worker *worker, Item *items, size_t count, bool *ret_repeated,
                             Failure *ret_failure) {
  size_t suspects = 0, known = 0, now_known = 0;
  for (size_t i = 0; i < count; i++) {
    suspects += items[i].verdict == VERDICT_FAILED || items[i].verdict == VERDICT_REFRESH;
    known += items[i].verdict == VERDICT_KNOWN;
  }
  if (suspects == 0)
    return true;
  if (!ledger_find_known(worker->session, worker->ledger, items, count, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    now_known += items[i].verdict == VERDICT_KNOWN;
  *ret_repeated = now_known > known;
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
  carry_blocks(aggregates, blocked, items, count);

  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, worker->ledger, ret_failure) ||
      !ledger_read_positions(session, worker->ledger, aggregates, worker->arena, ret_failure))
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
  crash_point("after_commit");
  return true;
}

/* --- resolve: what a failed transaction means ---------------------------------------------------
 */

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

static void fail_item(Worker *worker, Item *item, const Failure *failure) {
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

static bool replay_pause(Worker *worker, int replays) {
  int64_t delay = backoff_delay_ms(replays, REPLAY_MS, 1000, g_rand_int(worker->random));
  return !stop_wait(worker->stop, delay);
}

typedef enum Resolution { RESOLVED, REPLAY, SPLIT, GIVE_UP } Resolution;

static Resolution resolve(Worker *worker, const Failure *failure, size_t open, int replays) {
  switch (failure->class) {
  case FAILURE_CONFLICT:
    if (replays <= REPLAYS_MAX && replay_pause(worker, replays))
      return REPLAY;
    return stop_requested(worker->stop) ? GIVE_UP : open > 1 ? SPLIT : RESOLVED;
  case FAILURE_UNKNOWN:
    if (replays <= UNKNOWN_RETRIES && replay_pause(worker, replays))
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

/* Applies the items, in as many transactions as it takes: the good ones are applied, the culprits
 * of failures found by halving. False: the store or this owner cannot go on; what is undecided then
 * has VERDICT_NONE. */
static bool apply(Worker *worker, Item *items, size_t count, GHashTable *blocked,
                  Failure *ret_failure) {
  for (int replays = 0;;) {
    bool repeated;
    const Projection *culprit = NULL;
    Failure failure = {0};
    if (transact(worker, items, count, blocked, &repeated, &culprit, &failure)) {
      if (!repeated) {
        note_blocks(blocked, items, count);
        return true;
      }
      session_rollback(worker->session);
      size_t open = reopen(items, count);
      if (ledger_find_known(worker->session, worker->ledger, items, count, &failure)) {
        if (count_open(items, count) < open)
          continue;
        /* The other transaction was rolled back after all, or something else repeats a key. */
        failure_set(&failure, FAILURE_CONFLICT, SOURCE_MYSQL, 0,
                    "the ledger refused events that it does not have");
      }
    }
    if (worker->session) /* always the whole transaction: some errors undo one statement only */
      session_rollback(worker->session);
    if (failure.class == FAILURE_UNAVAILABLE)
      g_clear_pointer(&worker->session, session_close);
    size_t open = reopen(items, count);
    if (failure.class == FAILURE_MAPPING && culprit &&
        fail_projection(worker, items, count, culprit, &failure))
      continue;
    switch (resolve(worker, &failure, open, ++replays)) {
    case REPLAY: continue;
    case RESOLVED:
      for (size_t i = 0; i < count; i++)
        if (is_open(&items[i]))
          fail_item(worker, &items[i], &failure);
      note_blocks(blocked, items, count);
      return true;
    case SPLIT:
      return apply(worker, items, count / 2, blocked, ret_failure) &&
             apply(worker, items + count / 2, count - count / 2, blocked, ret_failure);
    case GIVE_UP: *ret_failure = failure; return false;
    }
  }
}

/* --- settle: what becomes of each event ----------------------------------------------------------
 */

static void log_event(LogLevel level, const char *message, const Event *event, int attempt,
                      const Failure *failure) {
  char id[ID_TEXT_SIZE], aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2];
  id_text(&event->key.event_id, id);
  aggregate_text(&event->aggregate, aggregate, sizeof aggregate);
  log_write(level, message,
            LOG_FIELDS(LOG_TEXT("event", id), LOG_TEXT("aggregate", aggregate),
                       LOG_NUMBER("attempt", attempt),
                       LOG_TEXT("class", failure_class_name(failure->class)),
                       LOG_NUMBER("code", failure->code), LOG_TEXT("reason", failure->message)));
}

/* Can a later attempt end differently without anybody doing something? */
static bool is_permanent(const Failure *failure) {
  return failure->class == FAILURE_DATA && failure->source == SOURCE_EVENT;
}

/* Keeps trying until MongoDB takes the mark or the projector stops; the sweeper finds what is left.
 */
#define until_stored(worker, call)                                                                 \
  for (Failure failure_ = {0}; !(call);) {                                                         \
    log_failure(LOG_LEVEL_WARNING, "cannot mark events in the outbox", &failure_);                 \
    if (failure_.class == FAILURE_CONFIG)                                                          \
      stop_request((worker)->stop, &failure_);                                                     \
    if (stop_wait((worker)->stop, PROBE_MAX_MS))                                                   \
      break;                                                                                       \
  }

static void settle_failed(Worker *worker, Item *item) {
  const Settings *settings = &worker->config->settings;
  Event *event = item->event;
  int attempt = event->attempts + 1;
  /* A table that does not fit the mapping is not the event's fault: it waits for the table. */
  bool burn = item->failure->class != FAILURE_MAPPING;
  /* Without a place in an order, trying again can only give the same. */
  bool dead = (burn && attempt >= settings->max_attempts) || !event_has_aggregate(event) ||
              (settings->permanent_is_dead && is_permanent(item->failure));
  int64_t delay_ms = burn ? backoff_delay_ms(attempt, settings->backoff_ms, BACKOFF_MAX_MS,
                                             g_rand_int(worker->random))
                          : MAPPING_RETRY_MS;
  log_event(dead ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, dead ? "event dead" : "event failed", event,
            attempt, item->failure);
  if (event_has_aggregate(event))
    shard_hold(worker->shard, event, dead ? HOLD_DEAD : HOLD_FAILED, dead ? DUE_NEVER : delay_ms);
  until_stored(worker, outbox_mark_failed(worker->outbox, &event, 1, item->failure, dead, burn,
                                          delay_ms, &failure_));
  shard_forget(worker->shard, event);
}

/* Gives events back unharmed: to the outbox, and to the queue when nothing holds their aggregate.
 */
static void give_back(Worker *worker, Event *const *events, size_t count) {
  if (count == 0)
    return;
  until_stored(worker, outbox_release(worker->outbox, events, count, &failure_));
  for (size_t i = 0; i < count; i++)
    shard_give_back(worker->shard, events[i]);
}

/* A late update: the row is taken from the entity. A failure to do so is the event's, unless a
 * store is away: then the event is given back. */
static void refresh(Worker *worker, Item *item) {
  Failure failure = {0};
  int64_t version;
  for (int replays = 1; ensure_session(worker, &failure); replays++) {
    if (refresh_aggregate(worker->session, worker->ledger, worker->outbox, worker->config->mapping,
                          &item->event->aggregate, item->event, &version, &failure)) {
      item->verdict = VERDICT_SUPERSEDED;
      return;
    }
    if (failure.class != FAILURE_CONFLICT || replays > REPLAYS_MAX ||
        !replay_pause(worker, replays))
      break;
  }
  if (failure.class == FAILURE_UNAVAILABLE || failure.class == FAILURE_SPACE)
    item->verdict = VERDICT_NONE;
  else if (failure.class == FAILURE_FENCED || failure.class == FAILURE_CONFIG)
    stop_request(worker->stop, &failure);
  else
    fail_item(worker, item, &failure);
}

static void count_verdicts(Worker *worker, const Item *items, size_t count) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&worker->lock);
  Counters *counters = &worker->counters;
  for (size_t i = 0; i < count; i++) {
    counters->applied += items[i].verdict == VERDICT_APPLIED;
    counters->superseded += items[i].verdict == VERDICT_SUPERSEDED;
    counters->ignored += items[i].verdict == VERDICT_IGNORED;
    counters->repeated += items[i].verdict == VERDICT_KNOWN;
    counters->failed += items[i].verdict == VERDICT_FAILED;
    counters->gaps += items[i].verdict == VERDICT_GAP;
  }
}

/* Every event of the batch leaves the worker here. Failures come before what is given back, because
 * their holds decide where that goes. */
static void settle(Worker *worker, Item *items, size_t count) {
  g_autofree Event **done = g_new(Event *, count), **back = g_new(Event *, count);
  size_t done_count = 0, back_count = 0;
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_REFRESH)
      refresh(worker, &items[i]);
  count_verdicts(worker, items, count);
  for (size_t i = 0; i < count; i++) {
    switch (items[i].verdict) {
    case VERDICT_APPLIED:
    case VERDICT_SUPERSEDED:
    case VERDICT_IGNORED:
    case VERDICT_SKIPPED:
    case VERDICT_KNOWN: done[done_count++] = items[i].event; break;
    case VERDICT_FAILED: settle_failed(worker, &items[i]); break;
    case VERDICT_GAP:
      shard_hold_gap(worker->shard, items[i].event, items[i].gap_first,
                     items[i].event->key.version - 1, worker->config->settings.gap_wait_ms);
      back[back_count++] = items[i].event;
      break;
    case VERDICT_WAIT:
    case VERDICT_REFRESH:
    case VERDICT_NONE: back[back_count++] = items[i].event; break;
    }
  }
  acker_push(worker->acker, worker->shard, done, done_count);
  give_back(worker, back, back_count);
}

/* --- claim -------------------------------------------------------------------------------------
 */

/* MongoDB answers, and will not have the mark: the document would grow beyond its limit, or a
 * validator is against it. */
static bool is_refusal(const Failure *failure) {
  return failure->class == FAILURE_SIZE || failure->class == FAILURE_DATA ||
         failure->class == FAILURE_UNKNOWN;
}

/* One by one after a refusal of all, so that an event that cannot be marked stops nothing but its
 * own aggregate. It is tried again later. */
static bool claim_each(Worker *worker, Event **events, size_t count, Claim *claims,
                       Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    if (outbox_claim(worker->outbox, &events[i], 1, &claims[i], ret_failure))
      continue;
    if (!is_refusal(ret_failure))
      return false;
    log_event(LOG_LEVEL_ERROR, "event cannot be claimed", events[i], events[i]->attempts,
              ret_failure);
    if (event_has_aggregate(events[i]))
      shard_hold(worker->shard, events[i], HOLD_FAILED, MAPPING_RETRY_MS);
    claims[i] = CLAIM_GONE;
  }
  return true;
}

/* Claims the events and makes items of those that are ours and may be applied now. What is gone is
 * forgotten. What another has taken holds its aggregate: an earlier owner that was frozen may claim
 * once more when it wakes up, and gives back when MySQL's fence stops it. */
static bool claim(Worker *worker, Event **events, size_t count, Item *items, size_t *ret_count,
                  Failure *ret_failure) {
  g_autofree Claim *claims = g_new0(Claim, count);
  g_autofree Event **back = g_new(Event *, count);
  size_t ours = 0, back_count = 0;
  if (!outbox_claim(worker->outbox, events, count, claims, ret_failure) &&
      !(is_refusal(ret_failure) && claim_each(worker, events, count, claims, ret_failure))) {
    for (size_t i = 0; i < count; i++)
      shard_requeue(worker->shard, events[i]);
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    if (claims[i] == CLAIM_OURS)
      continue;
    if (claims[i] == CLAIM_TAKEN && event_has_aggregate(events[i]))
      shard_hold(worker->shard, events[i], HOLD_FAILED, TAKEN_WAIT_MS);
    shard_forget(worker->shard, events[i]);
  }
  for (size_t i = 0; i < count; i++) {
    if (claims[i] != CLAIM_OURS)
      continue;
    if (shard_is_behind_hold(worker->shard, events[i]))
      back[back_count++] = events[i];
    else
      items[ours++] = (Item){.event = events[i]};
  }
  give_back(worker, back, back_count);
  *ret_count = ours;
  return true;
}

/* --- the worker ----------------------------------------------------------------------------------
 */

/* A store is away: what was not applied says so in the outbox, and keeps its attempt and its place.
 */
static void settle_outage(Worker *worker, Item *items, size_t count, const Failure *failure) {
  g_autofree Event **events = g_new(Event *, count);
  size_t open = 0, settled = 0;
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_NONE)
      events[open++] = items[i].event;
    else
      items[settled++] = items[i];
  if (open > 0)
    until_stored(worker, outbox_mark_failed(worker->outbox, events, open, failure, false, false, 0,
                                            &failure_));
  for (size_t i = 0; i < open; i++)
    shard_requeue(worker->shard, events[i]);
  settle(worker, items, settled);
}

/* A repeat of an applied event is no failure, even when it cannot be mapped any more. */
static void forgive_known(Worker *worker, Item *items, size_t count) {
  g_autofree Item *failed = g_new(Item, count);
  size_t failed_count = 0;
  Failure failure;
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED)
      failed[failed_count++] = items[i];
  if (failed_count == 0 || !ensure_session(worker, &failure) ||
      !ledger_find_known(worker->session, worker->ledger, failed, failed_count, &failure))
    return; /* a store that is away shows in the transaction */
  for (size_t i = 0, at = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED)
      items[i].verdict = failed[at++].verdict;
}

/* Without an answer from MySQL nothing counts as failed. In an outage nobody knows whether the
 * event was applied before, and it must not pay; the next owner has read already who waits for
 * whom. */
static void judge_nothing(Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED)
      items[i].verdict = VERDICT_NONE;
}

/* Projects one batch. False: a store is away or this owner has to stop. */
static bool project(Worker *worker, Event **events, size_t count, Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, count);
  g_autoptr(GHashTable) blocked = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  if (!claim(worker, events, count, items, &count, ret_failure))
    return false;
  if (count == 0)
    return true;
  crash_point("after_claim");
  for (size_t i = 0; i < count; i++)
    crash_event(items[i].event);
  arena_reset(worker->arena);
  plan_sort(items, count);
  plan_map(worker->config->mapping, items, count, worker->arena);
  forgive_known(worker, items, count);
  bool good = apply(worker, items, count, blocked, ret_failure);
  if (!good)
    judge_nothing(items, count);
  if (!good && (ret_failure->class == FAILURE_UNAVAILABLE || ret_failure->class == FAILURE_SPACE))
    settle_outage(worker, items, count, ret_failure);
  else
    settle(worker, items, count);
  return good;
}

/* After a failure: pause, and see whether MySQL answers at all before anything is claimed. */
static bool recovered(Worker *worker, int failures) {
  int64_t delay = PROBE_MS;
  for (int i = 1; i < failures && delay < PROBE_MAX_MS; i++)
    delay *= 2;
  if (stop_wait(worker->stop, MIN(delay, PROBE_MAX_MS)))
    return false;
  Failure failure;
  if (ensure_session(worker, &failure))
    return true;
  log_failure(LOG_LEVEL_WARNING, "MySQL cannot be reached", &failure);
  if (failure.class == FAILURE_CONFIG)
    stop_request(worker->stop, &failure);
  return false;
}

bool worker_step(Worker *worker, bool wait) {
  const Settings *settings = &worker->config->settings;
  size_t batch_bytes = (size_t)settings->memory_mb * 1024 * 1024 / 8 / (size_t)settings->workers;
  if (worker->failures > 0 && !recovered(worker, worker->failures)) {
    worker->failures++;
    return true;
  }
  /* While it is not sure that the store is back, one event tries. */
  size_t most = worker->failures > 0 ? 1 : (size_t)settings->batch;
  size_t count =
      shard_take(worker->shard, worker->taken, most, batch_bytes, wait, settings->linger_ms);
  if (count == 0)
    return false;
  if (stop_requested(worker->stop)) { /* a lease that ran out while nothing was there to do */
    for (size_t i = 0; i < count; i++)
      shard_requeue(worker->shard, worker->taken[i]);
    return false;
  }
  Failure failure = {0};
  if (project(worker, worker->taken, count, &failure)) {
    if (worker->failures > 0)
      log_info("store is back", NULL);
    worker->failures = 0;
    return true;
  }
  worker->failures++;
  if (failure.class == FAILURE_FENCED || failure.class == FAILURE_CONFIG)
    stop_request(worker->stop, &failure);
  else if (!stop_requested(worker->stop))
    log_failure(LOG_LEVEL_WARNING, "cannot project", &failure);
  return true;
}

Worker *worker_new(const Config *config, const Ledger *ledger, MongoStore *store, const char *owner,
                   Shard *shard, Acker *acker, Stop *stop) {
  Worker *worker = g_new0(Worker, 1);
  *worker = (Worker){.config = config,
                     .ledger = ledger,
                     .shard = shard,
                     .acker = acker,
                     .stop = stop,
                     .outbox = outbox_new(store, owner),
                     .arena = arena_new(),
                     .random = g_rand_new(),
                     .taken = g_new(Event *, config->settings.batch)};
  g_mutex_init(&worker->lock);
  return worker;
}

static gpointer run(gpointer data) {
  Worker *worker = data;
  mysql_thread_init();
  while (!stop_requested(worker->stop))
    worker_step(worker, true);
  g_clear_pointer(&worker->session, session_close);
  mysql_thread_end();
  return NULL;
}

void worker_start(Worker *worker) {
  worker->thread = g_thread_new("worker", run, worker);
}

void worker_join(Worker *worker) {
  g_thread_join(worker->thread);
}

void worker_free(Worker *worker) {
  if (!worker)
    return;
  session_close(worker->session);
  outbox_free(worker->outbox);
  arena_free(worker->arena);
  g_rand_free(worker->random);
  g_mutex_clear(&worker->lock);
  g_free(worker->taken);
  g_free(worker);
}

Counters worker_counters(Worker *worker) {
  G_GNUC_UNUSED g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&worker->lock);
  return worker->counters;
}

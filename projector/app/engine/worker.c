/* worker.c - what happens to an event, from the queue to its row. Start reading here.
 *
 *   read ▶ decode ▶ order ▶ claim ▶ map ▶ fold ▶ apply ▶ acknowledge
 *
 * The reader (reader.c) has read and decoded the event and put it into the lane of its aggregate
 * (lane.c), which keeps the order. From there a worker takes a batch:
 *
 *   claim        claim.c: say in MongoDB which events this worker has, in one document for the
 *                batch, so that every attempt counts, also one that kills this process;
 *                marker.c says it in their own documents when that takes long
 *   map          domain/plan.c: events become changes of rows; what does not fit fails here
 *   transaction  transaction.c: in MySQL, all or nothing:
 *                  fence      stop if another projector has taken over
 *                  positions  lock and read how far each aggregate is
 *                  decide     late, gap, superseded … and fold the rest (domain/plan.c)
 *                  ledger     insert the event ids; one that is there was applied before
 *                  rows       the folded changes in few statements
 *                  positions  write
 *                COMMIT is the point at which the events count
 *   settle       settle.c: acknowledge the applied (acker.c), mark the failed, give the
 *                others back
 *
 * A transaction that fails is retried, split, given back or given up by its failure, by what was
 * being done, and by what the server says to a probe (ruling.c, domain/blame.h).
 * An answer to COMMIT that got lost needs nothing special: the retry meets its own ledger
 * entries. */
#include "projector/app/engine/worker.h"

#include "projector/app/engine/steps.h"
#include "projector/domain/claim.h"
#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/lock.h"
#include "projector/infra/mysql/session_thread.h"

enum {
  PROBE_MS = 50,      /* first pause before an unreachable store is tried again; doubled up to */
  PROBE_MAX_MS = 800, /* this, so that work resumes within a second */
};

/* Without an answer from MySQL nothing counts as failed. In an outage it is unknown whether the
 * event was applied before, so it keeps its attempt; and the next owner may have read already which
 * events wait for it. */
static void judge_nothing(Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED)
      items[i].verdict = VERDICT_NONE;
}

/* Projects one batch. Returns false when a store is unreachable or this owner has to stop. */
static bool project_batch(Worker *worker, QueuedEvent **events, size_t count,
                          Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, count);
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
  if (apply(worker, items, count, ret_failure))
    return settle(worker, items, count, ret_failure);
  Failure ignored;
  judge_nothing(items, count);
  if (failure_class_is_outage(ret_failure->class))
    settle_outage(worker, items, count, ret_failure);
  else
    settle(worker, items, count, &ignored);
  return false;
}

static bool project(Worker *worker, QueuedEvent **events, size_t count, Failure *ret_failure) {
  int64_t begun = clock_us(), patience_us = worker->config->settings.claim_mark_ms * 1000;
  pulse_begin(&worker->pulse);
  bool good = project_batch(worker, events, count, ret_failure);
  if (!good || clock_us() - begun > patience_us)
    worker->stalled_until = clock_us();
  pulse_end(&worker->pulse);
  return good;
}

/* An event that was alone when MySQL broke counts as a suspect once MySQL works again without
 * it. */
static void count_break(Worker *worker) {
  if (worker->broke.length > 0 || worker->broke.kind == ID_INT)
    watch_count(worker->lanes->watch, &worker->broke);
  worker->broke = (Id){.kind = ID_STRING};
}

static void note_trouble(Worker *worker, const Failure *failure) {
  SCOPED_LOCK(&worker->lock);
  worker->trouble = *failure;
}

/* After a failure: pauses, and checks whether MySQL works at all before anything is claimed. */
static bool recovered(Worker *worker, int failures) {
  int64_t delay = PROBE_MS;
  for (int i = 1; i < failures && delay < PROBE_MAX_MS; i++)
    delay *= 2;
  if (stop_wait(worker->stop, MIN(delay, PROBE_MAX_MS)))
    return false;
  Failure failure = {0};
  bool reached = ensure_session(worker, &failure);
  if (reached && (!worker->refused || ask_server(worker, &failure))) {
    count_break(worker);
    return true;
  }
  note_trouble(worker, &failure);
  log_failure(LOG_LEVEL_WARNING,
              reached ? "MySQL accepts no transaction" : "MySQL cannot be reached", &failure);
  metrics_retry(worker->metrics, failure.class);
  if (failure.class == FAILURE_CONFIG)
    stop_request(worker->stop, &failure);
  return false;
}

static bool mongodb_answers(Worker *worker) {
  Failure failure = {0};
  g_autoptr(EventCursor) cursor = outbox_find_events(worker->outbox, NULL, 0);
  event_cursor_next(cursor, &failure);
  return failure.class == FAILURE_NONE;
}

/* In a pause no event tells whether the store is back. MySQL has been asked. */
static void stay_paused(Worker *worker, int failures) {
  if (failures > 0 && (worker->refused || mongodb_answers(worker)))
    g_atomic_int_set(&worker->failures, 0);
  pace_grant(worker->lanes->pace, 0); /* pauses briefly */
  worker->stalled_until = clock_us();
}

/* The lease may have expired, or a pause begun, while there was nothing to do. */
static bool is_called_off(Worker *worker) {
  return stop_requested(worker->stop) || pace_is_stopped(worker->lanes->pace);
}

static void project_taken(Worker *worker, size_t count, int failures) {
  Failure failure = {0};
  if (project(worker, worker->taken, count, &failure)) {
    if (failures > 0)
      log_info("store is back", NULL);
    g_atomic_int_set(&worker->failures, 0);
    return;
  }
  note_trouble(worker, &failure);
  g_atomic_int_inc(&worker->failures);
  worker->refused = failure.source == SOURCE_MYSQL;
  metrics_retry(worker->metrics, failure.class);
  if (failure.class == FAILURE_FENCED || failure.class == FAILURE_CONFIG)
    stop_request(worker->stop, &failure);
  else if (!stop_requested(worker->stop))
    log_failure(LOG_LEVEL_WARNING, "cannot project", &failure);
}

/* Takes and projects one batch, or checks whether a store is back. */
static void step(Worker *worker) {
  const Settings *settings = &worker->config->settings;
  size_t batch_bytes = (size_t)settings->memory_mb * 1024 * 1024 / 8 / (size_t)settings->workers;
  int failures = g_atomic_int_get(&worker->failures);
  if (failures > 0 && !recovered(worker, failures)) {
    g_atomic_int_inc(&worker->failures);
    return;
  }
  if (pace_is_stopped(worker->lanes->pace)) {
    stay_paused(worker, failures);
    return;
  }
  /* Until the store is known to be back, only one event is tried. */
  size_t most = pace_grant(worker->lanes->pace, failures > 0 ? 1 : (size_t)settings->batch);
  if (most == 0)
    return;
  Taking how = {
      .max_events = most, .max_bytes = batch_bytes, .linger_ms = settings->linger_ms, .wait = true};
  size_t count = lane_take(worker->lane, &how, worker->taken);
  pace_return(worker->lanes->pace, most - count);
  if (count == 0)
    return;
  const Event *first = worker->taken[0]->event;
  bool alone = claim_runs_alone(first);
  if (alone)
    watch_suspect(worker->lanes->watch, &first->key.event_id);
  solo_enter(worker->lanes->solo, alone);
  if (is_called_off(worker))
    for (size_t i = 0; i < count; i++)
      lane_requeue(worker->lane, worker->taken[i]);
  else
    project_taken(worker, count, failures);
  solo_leave(worker->lanes->solo, alone);
}

Worker *worker_new(const WorkerParts *parts, unsigned number) {
  Worker *worker = g_new0(Worker, 1);
  *worker = (Worker){.config = parts->config,
                     .ledger = parts->ledger,
                     .lanes = parts->lanes,
                     .number = number,
                     .lane = parts->lanes->lanes[number],
                     .acker = parts->acker,
                     .stop = parts->stop,
                     .outbox = outbox_new(parts->store, parts->owner),
                     .hand = hand_new(),
                     .arena = arena_new(),
                     .random = g_rand_new(),
                     .broke = {.kind = ID_STRING},
                     .taken = g_new(QueuedEvent *, parts->config->settings.batch)};
  g_mutex_init(&worker->lock);
  return worker;
}

void worker_count_in(Worker *worker, Metrics *metrics) {
  worker->metrics = metrics;
}

static gpointer run(gpointer data) {
  Worker *worker = data;
  while (!stop_requested(worker->stop))
    step(worker);
  end_claims(worker);
  g_clear_pointer(&worker->session, session_close);
  return NULL;
}

void worker_start(Worker *worker) {
  worker->thread = session_thread_new("worker", run, worker);
}

void worker_join(Worker *worker) {
  g_thread_join(worker->thread);
}

Pulse *worker_pulse(Worker *worker) {
  return &worker->pulse;
}

void worker_free(Worker *worker) {
  if (!worker)
    return;
  session_close(worker->session);
  outbox_free(worker->outbox);
  hand_free(worker->hand);
  arena_free(worker->arena);
  g_rand_free(worker->random);
  g_mutex_clear(&worker->lock);
  g_free(worker->taken);
  g_free(worker);
}

Hand *worker_hand(Worker *worker) {
  return worker->hand;
}

Counters worker_counters(Worker *worker) {
  SCOPED_LOCK(&worker->lock);
  return worker->counters;
}

Failure worker_trouble(Worker *worker) {
  SCOPED_LOCK(&worker->lock);
  return worker_is_waiting(worker) ? worker->trouble : (Failure){0};
}

bool worker_is_waiting(Worker *worker) {
  return g_atomic_int_get(&worker->failures) > 0;
}

/* settle.c - how each event of a batch ends. */
#include "projector/app/engine/steps.h"

#include "projector/infra/lock.h"

#include <string.h>

/* --- failed events --- */

/* Whether no later attempt can succeed without an operator. */
static bool is_permanent(const Failure *failure) {
  return failure->class == FAILURE_DATA && failure->source == SOURCE_EVENT;
}

static FailedMark judge(Worker *worker, const Item *item) {
  const Settings *settings = &worker->config->settings;
  const QueuedEvent *queued = queued_of(item);
  g_assert(item->failure);
  FailureClass class = item->failure->class;
  int attempt = item->event->attempts + 1;
  FailedMark mark = {.failure = item->failure};
  /* A table that does not fit the mapping and a lock of another session are not the event's fault:
   * it waits for them. */
  mark.counts = !queued->excused && class != FAILURE_MAPPING && class != FAILURE_CONFLICT;
  /* Without an aggregate it has no place in any order, and another attempt can only fail the same
   * way. */
  mark.dead = (mark.counts && attempt >= settings->max_attempts) ||
              !event_has_aggregate(item->event) ||
              (settings->permanent_is_dead && !queued->excused && is_permanent(item->failure));
  mark.delay_ms = queued->early_ms ? queued->early_ms
                  : mark.counts    ? backoff_delay_ms(attempt, settings->backoff_ms, BACKOFF_MAX_MS,
                                                      g_rand_int(worker->random))
                                   : UNCOUNTED_RETRY_MS;
  return mark;
}

static void hold_failed(Worker *worker, const Item *item, const FailedMark *mark) {
  QueuedEvent *queued = queued_of(item);
  const Event *event = item->event;
  if (queued->early_ms > 0) {
    report_event(worker->lanes->watch, LOG_LEVEL_WARNING, "event held", event, item->failure);
    lane_hold(worker->lane, queued, HOLD_FUTURE, queued->early_ms);
    return;
  }
  report_event(worker->lanes->watch, mark->dead ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
               mark->dead ? "event dead" : "event failed", event, item->failure);
  item->event->status = mark->dead ? STATUS_DEAD : STATUS_FAILED; /* as those who wait are told */
  metrics_event(worker->metrics, event, OUTCOME_FAILED);
  if (mark->dead)
    metrics_event(worker->metrics, event, OUTCOME_DEAD);
  if (event_has_aggregate(event))
    lane_hold(worker->lane, queued, mark->dead ? HOLD_DEAD : HOLD_FAILED,
              mark->dead ? DUE_NEVER : mark->delay_ms);
}

static bool is_same_failure(const Item *a, const Item *b) {
  return a->event->attempts == b->event->attempts &&
         event_has_aggregate(a->event) == event_has_aggregate(b->event) &&
         queued_of(a)->excused == queued_of(b)->excused &&
         queued_of(a)->early_ms == queued_of(b)->early_ms &&
         a->failure->class == b->failure->class && a->failure->code == b->failure->code &&
         !strcmp(a->failure->message, b->failure->message);
}

/* One by one, after MongoDB has refused them together: an event that cannot be marked must not
 * affect the others. */
static void mark_alike(Worker *worker, QueuedEvent *const *failed, size_t count,
                       const FailedMark *mark) {
  g_autofree Event **events = queued_events_bare(failed, count);
  Failure failure = {0};
  while (!outbox_mark_failed(worker->outbox, events, count, mark, &failure)) {
    if (failure_is_refusal(&failure) && count > 1) {
      for (size_t i = 0; i < count; i++)
        mark_alike(worker, failed + i, 1, mark);
      return;
    }
    if (failure_is_refusal(&failure)) {
      report_refused(worker->lanes->watch, worker->metrics, "failed event cannot be marked",
                     events[0], &failure);
      if (event_has_aggregate(events[0]) && !mark->dead) /* its attempts do not rise */
        lane_hold(worker->lane, failed[0], HOLD_FAILED, MAX(mark->delay_ms, UNCOUNTED_RETRY_MS));
    }
    if (!pause_before_marking_again(worker, &failure))
      return;
  }
}

/* An event that MySQL refuses is found after the plan. Whatever follows it in its aggregate waits,
 * even if it cannot be mapped: it is not its turn. */
static void wait_behind_failed(Item *items, size_t count) {
  g_autoptr(GHashTable) blocked = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  for (size_t i = 0; i < count; i++) {
    Item *item = &items[i];
    if (item->verdict != VERDICT_FAILED || !event_has_aggregate(item->event) ||
        g_hash_table_add(blocked, &item->event->aggregate))
      continue;
    item->verdict = VERDICT_WAIT;
    queued_of(item)->excused = false;
    queued_of(item)->early_ms = 0;
  }
}

/* Marks failed events; those with the same failure in one command. */
static void settle_failed(Worker *worker, const Item *items, size_t count) {
  g_autofree QueuedEvent **alike = g_new(QueuedEvent *, count);
  g_autofree bool *done = g_new0(bool, count);
  for (size_t i = 0; i < count; i++) {
    if (done[i] || items[i].verdict != VERDICT_FAILED)
      continue;
    FailedMark mark = judge(worker, &items[i]);
    size_t alike_count = 0;
    for (size_t j = i; j < count; j++) {
      if (done[j] || items[j].verdict != VERDICT_FAILED || !is_same_failure(&items[i], &items[j]))
        continue;
      done[j] = true;
      hold_failed(worker, &items[j], &mark);
      alike[alike_count++] = queued_of(&items[j]);
    }
    mark_alike(worker, alike, alike_count, &mark);
    for (size_t j = 0; j < alike_count; j++)
      lane_forget(worker->lane, alike[j]);
  }
}

/* --- settle --- */

static void count_verdicts(Worker *worker, const Item *items, size_t count) {
  SCOPED_LOCK(&worker->lock);
  Counters *counters = &worker->counters;
  for (size_t i = 0; i < count; i++) {
    counters->applied += items[i].verdict == VERDICT_APPLIED;
    counters->superseded += items[i].verdict == VERDICT_SUPERSEDED;
    counters->ignored += items[i].verdict == VERDICT_IGNORED;
    counters->repeated += items[i].verdict == VERDICT_KNOWN;
    counters->failed += items[i].verdict == VERDICT_FAILED && queued_of(&items[i])->early_ms == 0;
    counters->gaps += items[i].verdict == VERDICT_GAP;
  }
}

/* Only about events that are done; the others will come again. */
static void report_reused_versions(Worker *worker, const Item *items, size_t count) {
  static const Failure reason = {
      .class = FAILURE_DATA,
      .source = SOURCE_EVENT,
      .message = "a later event has a version that this aggregate had before: MongoDB was restored "
                 "to an earlier state, or the writers' clocks differ; compare with reconcile"};
  for (size_t i = 0; i < count; i++) {
    if (!items[i].reuses_version || !verdict_outcome(items[i].verdict))
      continue;
    report_event(worker->lanes->watch, LOG_LEVEL_WARNING,
                 items[i].verdict == VERDICT_SUPERSEDED
                     ? "event superseded: its version was used before"
                     : "version used before",
                 items[i].event, &reason);
    metrics_event(worker->metrics, items[i].event, OUTCOME_REUSED);
  }
}

/* The row shows a newer state, but nothing can tell whether that state is complete. */
static void report_unhealed(Worker *worker, const Item *items, size_t count) {
  static const Failure reason = {
      .class = FAILURE_DATA,
      .source = SOURCE_EVENT,
      .message = "a newer event was applied, so this late one changes nothing, and there is no "
                 "entity to take the row from; logged once per aggregate"};
  for (size_t i = 0; i < count; i++) {
    if (!items[i].unhealed || items[i].verdict != VERDICT_SUPERSEDED)
      continue;
    metrics_event(worker->metrics, items[i].event, OUTCOME_UNHEALED);
    if (watch_is_first(worker->lanes->watch, items[i].event->aggregate_hash))
      report_event(worker->lanes->watch, LOG_LEVEL_WARNING, "event superseded without an entity",
                   items[i].event, &reason);
  }
}

/* Whether every event is in the ledger. */
static bool is_over(const Item *items, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict != VERDICT_KNOWN && !verdict_outcome(items[i].verdict))
      return false;
  return true;
}

/* Failed events come before those that are given back, because their holds decide where these
 * go. */
bool settle(Worker *worker, Item *items, size_t count, Failure *ret_failure) {
  g_autofree QueuedEvent **done = g_new(QueuedEvent *, count), **back = g_new(QueuedEvent *, count);
  size_t done_count = 0, back_count = 0;
  bool good = refresh_late(worker, items, count, ret_failure);
  wait_behind_failed(items, count);
  count_verdicts(worker, items, count);
  report_reused_versions(worker, items, count);
  report_unhealed(worker, items, count);
  if (is_over(items, count))
    hand_empty(worker->hand);
  else
    leave_claim(worker);
  settle_failed(worker, items, count);
  for (size_t i = 0; i < count; i++) {
    QueuedEvent *queued = queued_of(&items[i]);
    switch (items[i].verdict) {
    case VERDICT_FAILED: break;
    case VERDICT_KNOWN:
      queued->repeated = true;
      done[done_count++] = queued;
      break;
    case VERDICT_APPLIED:
    case VERDICT_SUPERSEDED:
    case VERDICT_IGNORED:
    case VERDICT_SKIPPED: done[done_count++] = queued; break;
    case VERDICT_GAP:
      metrics_event(worker->metrics, queued->event, OUTCOME_GAP);
      lane_hold_gap(worker->lane, queued, items[i].gap_first, queued->event->key.version - 1,
                    worker->config->settings.gap_wait_ms);
      queued->event->status = STATUS_PENDING; /* what it waits for now is no failure */
      back[back_count++] = queued;
      break;
    case VERDICT_WAIT:
    case VERDICT_REFRESH:
    case VERDICT_NONE: back[back_count++] = queued; break;
    }
  }
  acker_push(worker->acker, done, done_count);
  give_back(worker, back, back_count);
  return good;
}

void settle_outage(Worker *worker, Item *items, size_t count, const Failure *failure) {
  g_autofree QueuedEvent **open = g_new(QueuedEvent *, count);
  FailedMark mark = {.failure = failure};
  size_t open_count = 0, settled = 0;
  Failure ignored;
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_NONE)
      open[open_count++] = queued_of(&items[i]);
    else
      items[settled++] = items[i];
  g_autofree Event **events = queued_events_bare(open, open_count);
  leave_claim(worker);
  bool marked = open_count == 0;
  while (!marked) {
    marked = outbox_mark_failed(worker->outbox, events, open_count, &mark, &ignored);
    if (!marked && !pause_before_marking_again(worker, &ignored))
      break;
  }
  for (size_t i = 0; i < open_count; i++) {
    open[i]->left_failed = marked;
    open[i]->read_at = 0;
    lane_requeue(worker->lane, open[i]);
  }
  settle(worker, items, settled, &ignored);
}

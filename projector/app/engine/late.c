/* late.c - late updates, whose rows are taken from the entity. */
#include "projector/app/engine/steps.h"

#include "projector/app/shared/refresh.h"
#include "projector/infra/clock.h"

static void report_doubtful(Worker *worker, const Event *late, int64_t count) {
  Failure reason = {.class = FAILURE_DATA, .source = SOURCE_EVENT};
  g_snprintf(
      reason.message, sizeof reason.message,
      "the row was taken from the entity, which may already contain %lld waiting events that "
      "have no version; what they add would then count twice: have the writer number its "
      "events; reconcile finds the difference",
      (long long)count);
  report_event(worker->lanes->watch, LOG_LEVEL_WARNING, "events may count twice", late, &reason);
}

/* `*ret_culprit`: the projection whose rows failed; NULL: another step. */
static bool refresh_once(Worker *worker, const Item *item, const Projection **ret_culprit,
                         Failure *ret_failure) {
  Refresh one = {.aggregate = &item->event->aggregate,
                 .late = item->event,
                 .entity_needed = item->else_superseded};
  RefreshWith with = {worker->session, worker->ledger, worker->outbox, worker->config->mapping,
                      NULL};
  bool good = refresh_aggregates(&with, &one, 1, ret_failure);
  *ret_culprit = one.culprit;
  if (!good)
    return false;
  *ret_failure = one.failure;
  if (one.failure.class == FAILURE_NONE && one.doubtful > 0)
    report_doubtful(worker, item->event, one.doubtful);
  return one.failure.class == FAILURE_NONE;
}

/* Whether to retry the refresh; otherwise changes its failure to what it means for the event. */
static bool refresh_again(Worker *worker, Item *item, Tries tries, Failure *failure,
                          Ruling *ret_ruling) {
  if (failure->source == SOURCE_EVENT || failure->source == SOURCE_PROJECTOR)
    *ret_ruling = failure->class == FAILURE_FENCED ? RULING_STORE : RULING_EVENT;
  else if (failure->source == SOURCE_MONGODB) /* it may refuse to read this one entity */
    *ret_ruling = failure_is_refusal(failure) ? RULING_EVENT : RULING_STORE;
  else
    *ret_ruling = rule(worker, item, 1, tries, failure);
  return *ret_ruling == RULING_RETRY && retry_pause(worker, tries.count);
}

static void take_as_superseded(Worker *worker, Item *item, int64_t begun) {
  item->verdict = VERDICT_SUPERSEDED;
  hand_commit(worker->hand, item, 1);
  note_commit(worker, item, 1);
  metrics_committed(worker->metrics, item, 1, clock_us() - begun);
  acquit(worker, item, 1);
  for (unsigned i = 0; i < item->changes.count; i++)
    watch_open(worker->lanes->watch, item->changes.changes[i].rule->projection->index);
}

/* A late update: the row is taken from the entity. A failure is the event's, unless it is a
 * store's: then the event is given back. */
static bool refresh(Worker *worker, Item *item, Failure *ret_failure) {
  /* One that has waited for a lock before is a suspect, and waits briefly, and only once. */
  bool suspect = watch_suspects(worker->lanes->watch, &item->event->key.event_id);
  Tries tries = {.begun = suspect ? 0 : clock_us()};
  Ruling ruling = RULING_STORE;
  const Projection *culprit = NULL;
  do {
    int64_t begun = clock_us();
    *ret_failure = (Failure){0};
    if (!ensure_session(worker, ret_failure))
      break;
    if (refresh_once(worker, item, &culprit, ret_failure)) {
      take_as_superseded(worker, item, begun);
      return true;
    }
    part_with_session(worker, ret_failure);
    if (hold_locked_table(worker, item, 1, culprit, ret_failure) ||
        hold_forbidden_table(worker, item, 1, culprit, ret_failure))
      return true;
    tries.count++;
  } while (refresh_again(worker, item, tries, ret_failure, &ruling));
  if (ruling == RULING_STORE) {
    if (ret_failure->class == FAILURE_UNAVAILABLE)
      g_clear_pointer(&worker->session, session_close);
    return false;
  }
  if (item->else_superseded && ruling == RULING_EVENT && ret_failure->source != SOURCE_MONGODB)
    queued_of(item)->no_entity = true; /* decided again on its return */
  else if (!stop_requested(worker->stop)) {
    bool several = tally(worker, item, culprit, ret_failure);
    (ruling == RULING_EVENT && !several ? fail_item : hold_item)(worker, item, ret_failure);
  }
  return true;
}

/* Another one of the batch may have found the table locked. */
static bool refresh_unless_held(Worker *worker, Item *item, Failure *ret_failure) {
  hold_behind_gates(worker, item, 1);
  bool good = !is_open(item) || refresh(worker, item, ret_failure);
  end_trials(worker, item, 1);
  return good;
}

bool refresh_late(Worker *worker, Item *items, size_t count, Failure *ret_failure) {
  bool good = true;
  for (size_t i = 0; i < count && good; i++)
    if (items[i].verdict == VERDICT_REFRESH)
      good = refresh_unless_held(worker, &items[i], ret_failure);
  return good;
}

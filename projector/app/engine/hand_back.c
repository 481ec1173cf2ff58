/* hand_back.c - events that leave a worker unapplied: their marks in MongoDB, and the reports about
 * those that MongoDB refuses to mark. */
#include "projector/app/engine/steps.h"

enum {
  MARK_AGAIN_MS = 800, /* between two attempts to mark events in the outbox */
};

bool is_refusal(const Failure *failure) {
  return failure->class == FAILURE_SIZE || failure->class == FAILURE_DATA ||
         failure->class == FAILURE_UNKNOWN;
}

void log_event(Worker *worker, LogLevel level, const char *message, const Event *event,
               const Failure *failure) {
  char id[ID_TEXT_SIZE], aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2];
  int64_t suppressed = 0;
  if (!watch_may_log(worker->lanes->watch, &event->key.event_id, message, failure, &suppressed))
    return;
  id_text(&event->key.event_id, id);
  aggregate_text(&event->aggregate, aggregate, sizeof aggregate);
  Failure redacted = log_redacted(failure);
  LogField fields[8] = {LOG_TEXT("event", id),
                        LOG_TEXT("aggregate", aggregate),
                        LOG_NUMBER("attempt", event->attempts + 1),
                        LOG_TEXT("class", failure_class_name(failure->class)),
                        LOG_NUMBER("code", failure->code),
                        LOG_TEXT("reason", redacted.message)};
  if (suppressed > 0)
    fields[6] = (LogField)LOG_NUMBER("repeated", suppressed);
  log_write(level, message, fields);
}

void report_refused(Worker *worker, const Event *event, const Failure *failure) {
  log_event(worker, LOG_LEVEL_ERROR, "event cannot be claimed", event, failure);
  metrics_refused(worker->metrics, failure);
  watch_refuse(worker->lanes->watch, &event->key.event_id, failure);
}

bool mark_again(Worker *worker, const Failure *failure) {
  g_atomic_int_add(&worker->moves, 2);
  log_failure(LOG_LEVEL_WARNING, "cannot mark events in the outbox", failure);
  if (failure->class == FAILURE_CONFIG)
    stop_request(worker->stop, failure);
  return !is_refusal(failure) && !stop_wait(worker->stop, MARK_AGAIN_MS);
}

void give_back(Worker *worker, QueuedEvent *const *events, size_t count) {
  g_autofree Event **marked = g_new(Event *, count);
  size_t marked_count = 0;
  Failure failure;
  for (size_t i = 0; i < count; i++)
    if (events[i]->marked)
      marked[marked_count++] = events[i]->event;
  while (marked_count > 0 && !outbox_release(worker->outbox, marked, marked_count, &failure) &&
         mark_again(worker, &failure))
    ;
  for (size_t i = 0; i < count; i++)
    lane_give_back(worker->lane, events[i]);
}

ClaimKey claim_key(const Worker *worker) {
  return (ClaimKey){
      .name = worker->ledger->projector, .epoch = worker->ledger->epoch, .worker = worker->number};
}

void leave_claim(Worker *worker) {
  const ClaimKey key = claim_key(worker);
  Failure failure = {0};
  hand_empty(worker->hand);
  while (worker->claims_batch && !claims_write(worker->outbox, &key, NULL, 0, &failure) &&
         mark_again(worker, &failure))
    ;
  worker->claims_batch = false;
}

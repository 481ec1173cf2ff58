/* hand_back.c - events that leave a worker unapplied: their marks in MongoDB. */
#include "projector/app/engine/steps.h"

enum {
  MARK_AGAIN_MS = 800, /* between two attempts to mark events in the outbox */
};

bool pause_before_marking_again(Worker *worker, const Failure *failure) {
  log_failure(LOG_LEVEL_WARNING, "cannot mark events in the outbox", failure);
  if (failure->class == FAILURE_CONFIG)
    stop_request(worker->stop, failure);
  return !failure_is_refusal(failure) && !stop_wait(worker->stop, MARK_AGAIN_MS);
}

void give_back(Worker *worker, QueuedEvent *const *events, size_t count) {
  g_autofree Event **marked = g_new(Event *, count);
  size_t marked_count = 0;
  Failure failure;
  for (size_t i = 0; i < count; i++)
    if (events[i]->marked)
      marked[marked_count++] = events[i]->event;
  while (marked_count > 0 && !outbox_release(worker->outbox, marked, marked_count, &failure) &&
         pause_before_marking_again(worker, &failure))
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
  const LastCommit last = last_applied_of(worker->lanes->last_applied, worker->number);
  hand_empty(worker->hand);
  while (worker->claims_batch && !claims_write(worker->outbox, &key, NULL, 0, &last, &failure) &&
         pause_before_marking_again(worker, &failure))
    ;
  worker->claims_batch = false;
}

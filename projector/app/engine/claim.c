/* claim.c - the claim step. */
#include "projector/app/engine/steps.h"

enum {
  TAKEN_WAIT_MS = 50, /* before an event that another has claimed is looked at */
};

bool is_refusal(const Failure *failure) {
  return failure->class == FAILURE_SIZE || failure->class == FAILURE_DATA ||
         failure->class == FAILURE_UNKNOWN;
}

/* One by one after a refusal of all, so that an event that cannot be marked stops nothing but its
 * own aggregate. It is tried again later. */
static bool claim_each(Worker *worker, Event **events, size_t count, Claim *claims,
                       Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    *ret_failure = (Failure){0};
    if (outbox_claim(worker->outbox, &events[i], 1, &claims[i], ret_failure))
      continue;
    if (!is_refusal(ret_failure))
      return false;
    tell_refused(worker, events[i], ret_failure);
    claims[i] = CLAIM_REFUSED;
  }
  return true;
}

/* What is gone is settled. What another has taken holds its aggregate: an earlier owner that was
 * frozen may claim once more when it wakes up, and gives back when MySQL's fence stops it. */
static void let_go(Worker *worker, Event *event, Claim won) {
  if (won == CLAIM_GONE) {
    lane_settle(home_of(worker, event), event);
    return;
  }
  if (event_has_aggregate(event))
    lane_hold(home_of(worker, event), event, HOLD_TAKEN,
              won == CLAIM_REFUSED ? UNBURNT_RETRY_MS : TAKEN_WAIT_MS);
  lane_forget(home_of(worker, event), event);
}

bool claim(Worker *worker, Event **events, size_t count, Item *items, size_t *ret_count,
           Failure *ret_failure) {
  g_autofree Claim *claims = g_new0(Claim, count);
  g_autofree Event **back = g_new(Event *, count);
  size_t ours = 0, back_count = 0;
  if (!outbox_claim(worker->outbox, events, count, claims, ret_failure) &&
      !(is_refusal(ret_failure) && claim_each(worker, events, count, claims, ret_failure))) {
    for (size_t i = 0; i < count; i++)
      lane_requeue(home_of(worker, events[i]), events[i]);
    return false;
  }
  for (size_t i = 0; i < count; i++)
    if (claims[i] != CLAIM_OURS)
      let_go(worker, events[i], claims[i]);
  for (size_t i = 0; i < count; i++) {
    if (claims[i] != CLAIM_OURS)
      continue;
    if (lane_is_behind_hold(home_of(worker, events[i]), events[i]))
      back[back_count++] = events[i];
    else
      items[ours++] = (Item){.event = events[i]};
  }
  give_back(worker, back, back_count);
  *ret_count = ours;
  return true;
}

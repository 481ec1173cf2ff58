/* holds.c - aggregates that wait, as worker and janitor see them. */
#include "projector/app/engine/lane_private.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

void lane_hold(Lane *lane, QueuedEvent *queued, HoldReason reason, int64_t delay_ms) {
  SCOPED_LOCK(&lane->lock);
  queued->has_hold = true;
  lane_open_hold(lane, queued, reason, delay_ms);
}

void lane_hold_gap(Lane *lane, QueuedEvent *queued, int64_t first, int64_t last, int64_t delay_ms) {
  SCOPED_LOCK(&lane->lock);
  queued->has_hold = true;
  Hold *hold = lane_open_hold(lane, queued, HOLD_GAP, delay_ms);
  if (hold) {
    hold->gap_first = first;
    hold->gap_last = last;
  }
}

/* The hold may be that of an earlier event, which has failed: this one is behind it then. */
void lane_hold_applied(Lane *lane, QueuedEvent *queued, int64_t delay_ms) {
  SCOPED_LOCK(&lane->lock);
  queued->has_hold = true;
  lane_open_hold(lane, queued, HOLD_TAKEN, delay_ms);
  lane_find_hold(lane, queued->event)->keeps_applied = true;
}

bool lane_keeps(Lane *lane, const Event *event) {
  SCOPED_LOCK(&lane->lock);
  const Hold *hold = lane_find_hold(lane, event);
  return hold && hold->keeps_applied && lane_has_to_wait(hold, event);
}

void lane_review_holds(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  GHashTableIter iter;
  gpointer value;
  g_hash_table_iter_init(&iter, lane->holds);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Hold *hold = value;
    if (hold->reason != HOLD_GAP && hold->state != STATE_DRAINING)
      lane_call(lane, hold, CALL_REVIEW);
  }
}

static void show(const Hold *hold, HoldView *ret_view) {
  *ret_view = (HoldView){.aggregate = aggregate_copy(hold->aggregate),
                         .reason = hold->reason,
                         .call = hold->call,
                         .draining = hold->state == STATE_DRAINING,
                         .looks = hold->looks,
                         .from_start = hold->from_start,
                         .gap_first = hold->gap_first,
                         .gap_last = hold->gap_last};
  order_key_copy(&hold->key, &ret_view->key, ret_view->key_bytes);
  if (ret_view->draining && !hold->from_start)
    order_key_copy(&hold->next, &ret_view->next, ret_view->next_bytes);
}

void hold_view_clear(HoldView *view) {
  g_clear_pointer(&view->aggregate, g_free);
}

unsigned lane_take_due(Lane *lane, HoldView *ret_views, unsigned max) {
  SCOPED_LOCK(&lane->lock);
  int64_t now = clock_us();
  unsigned count = 0;
  while (count < max && !g_sequence_is_empty(lane->due)) {
    Hold *hold = g_sequence_get(g_sequence_get_begin_iter(lane->due));
    if (hold->due > now)
      break;
    g_assert(hold->state != STATE_CHECKED); /* it becomes due again when the janitor has decided */
    lane_set_due(lane, hold, DUE_NEVER);
    hold->looks++;
    show(hold, &ret_views[count++]);
    if (hold->state == STATE_WAITING)
      hold->state = STATE_CHECKED;
  }
  return count;
}

int64_t lane_due_in(Lane *lane) {
  SCOPED_LOCK(&lane->lock);
  if (g_sequence_is_empty(lane->due))
    return DUE_NEVER;
  const Hold *hold = g_sequence_get(g_sequence_get_begin_iter(lane->due));
  int64_t left = hold->due - clock_us();
  return left <= 0 ? 0 : left / 1000 + 1;
}

static Hold *find_in(Lane *lane, const Aggregate *aggregate, HoldState state) {
  Hold *hold = g_hash_table_lookup(lane->holds, aggregate);
  return hold && hold->state == state ? hold : NULL;
}

static void put_off(Lane *lane, const HoldView *view, HoldReason reason, HoldCall call,
                    bool undecided, int64_t delay_ms) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = find_in(lane, view->aggregate, STATE_CHECKED);
  if (hold) {
    if (reason != HOLD_FUTURE)
      lane_end_future(lane, hold);
    hold->state = STATE_WAITING;
    hold->reason = reason;
    hold->call = call;
    hold->undecided = undecided;
    lane_set_due(lane, hold, delay_ms);
  }
}

void lane_put_off(Lane *lane, const HoldView *view, HoldReason reason, int64_t delay_ms) {
  put_off(lane, view, reason, CALL_DUE, false, delay_ms);
}

void lane_look_again(Lane *lane, const HoldView *view, HoldReason reason, int64_t delay_ms) {
  put_off(lane, view, reason, view->call, reason != HOLD_TAKEN, delay_ms);
}

bool lane_offer_head(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  const Hold *hold = lane_find_hold(lane, queued->event);
  if (hold && hold->state == STATE_CHECKED)
    return lane_queue(lane, queued);
  queued_event_free(queued);
  return false;
}

static void mark_reached(Hold *hold, const Event *event) {
  order_key_copy(&event->key, &hold->next, hold->next_bytes);
  hold->from_start = false;
  if (order_key_compare(&event->key, &hold->reached) > 0)
    order_key_copy(&event->key, &hold->reached, hold->reached_bytes);
}

/* The draining goes on with what was left out while it was under way: all of it is behind the place
 * reached. */
static void go_back(Lane *lane, Hold *hold) {
  order_key_copy(&hold->reached, &hold->next, hold->next_bytes);
  hold->from_start = false;
  hold->missed_from = INT64_MAX;
  lane_set_due(lane, hold, 0);
}

Offer lane_offer_around(Lane *lane, QueuedEvent *queued) {
  SCOPED_LOCK(&lane->lock);
  const Event *event = queued->event;
  Hold *hold = lane_find_hold(lane, event);
  Offer result = OFFER_BLOCKED;
  if (hold && hold->state != STATE_WAITING && !lane->stopped) {
    const QueuedEvent *known = lane_find_known(lane, event);
    if (!known && !lane_has_room_around(lane)) {
      result = OFFER_FULL;
    } else if (hold->state == STATE_DRAINING && hold->missed_from <= event->key.occurred_at &&
               order_key_compare(&event->key, &hold->reached) > 0) {
      go_back(lane, hold);
    } else if (known ? known->has_hold : event->status != STATUS_PENDING) {
      /* It may be waiting for an event that the draining let through, or for the end of the hold
       * itself. */
      lane_hold_as_read(lane, queued, hold->state == STATE_DRAINING ? CALL_RETRY : CALL_REVIEW);
    } else {
      if (hold->state == STATE_DRAINING)
        mark_reached(hold, event);
      lane_queue(lane, queued);
      return OFFER_GO_ON;
    }
  }
  queued_event_free(queued);
  return result;
}

bool lane_begin_drain(Lane *lane, HoldView *view) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = find_in(lane, view->aggregate, STATE_CHECKED);
  if (!hold)
    return false;
  lane_end_future(lane, hold);
  hold->state = STATE_DRAINING;
  hold->behind_since = MIN(hold->behind_since, hold->rest_since);
  hold->rest_since = INT64_MAX;
  order_key_copy(&hold->key, &hold->reached, hold->reached_bytes);
  hold->from_start = view->draining = view->from_start = true;
  hold->missed_from = INT64_MAX;
  return true;
}

void lane_go_on_draining(Lane *lane, const HoldView *view, int64_t delay_ms) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = find_in(lane, view->aggregate, STATE_DRAINING);
  if (hold)
    lane_set_due(lane, hold, delay_ms);
}

void lane_note_end(Lane *lane, const Event *last) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = lane_find_hold(lane, last);
  if (hold && order_key_compare(&last->key, &hold->key) <= 0)
    hold->rest_since = INT64_MAX;
}

void lane_end_drain(Lane *lane, const HoldView *view) {
  SCOPED_LOCK(&lane->lock);
  Hold *hold = g_hash_table_lookup(lane->holds, view->aggregate);
  if (!hold)
    return;
  hold->rest_since = INT64_MAX; /* also if an event that was let through blocks meanwhile */
  if (hold->state != STATE_DRAINING)
    return;
  if (hold->missed_from != INT64_MAX) {
    go_back(lane, hold);
    return;
  }
  g_assert(!hold->place);
  g_hash_table_remove(lane->holds, hold->aggregate);
  lane_count_hold(lane, -1);
  lane_wake_worker(lane); /* the worker may have been waiting for fewer holds */
}

/* lane.h - the events in memory of a part of the aggregates: a bounded queue in order, and the
 * aggregates on hold.
 *
 * An aggregate always belongs to the same lane, and a lane to one worker. The queue yields the
 * smallest event first. A hold keeps the later events of an aggregate out of the queue while an
 * earlier one has failed or is missing; they stay in the outbox and are read again when the hold
 * ends, so a hold costs the same however many events wait behind it. All functions may be called
 * from any thread. */
#pragma once

#include "projector/app/engine/alarm.h"
#include "projector/app/engine/queued_event.h"

typedef struct Lane Lane;

typedef struct LaneLimits {
  size_t events, bytes; /* queued */
  bool by_aggregate;    /* see lane_take */
  size_t holds;         /* from here on nothing new is taken, only what may end a hold */
  gint *all_holds;      /* atomic: of all lanes, which `holds` is for; NULL: of this one */
} LaneLimits;

/* `due` (NULL: nobody) rings when a hold is due earlier than all others. It is not owned. */
Lane *lane_new(LaneLimits limits, Alarm *due);
void lane_free(Lane *lane);

/* --- the reading side --- */

/* Waits until there is room in the queue. False when the lane was stopped. */
bool lane_wait_room(Lane *lane);
bool lane_has_room(Lane *lane);
/* Takes ownership of an event read from the outbox: a failed or dead one becomes a hold. Returns
 * true when it was queued; it is dropped when it is already in memory or behind a hold. */
bool lane_offer(Lane *lane, QueuedEvent *queued);
/* Ends all waits; lane_take returns nothing from now on. */
void lane_stop(Lane *lane);

/* --- the worker's side --- */

typedef struct Taking {
  size_t max_events, max_bytes; /* of a batch; of bytes, at least one event */
  int64_t linger_ms;            /* waits that long for more */
  bool wait;                    /* until there is something */
} Taking;

/* Takes the smallest events, or, by aggregate, the smallest and then the next ones of its
 * aggregate, and so on; an event that may end the process comes alone. 0: stopped, or nothing
 * there. */
size_t lane_take(Lane *lane, const Taking *how, QueuedEvent **events);
/* Puts an event that was taken back into the queue. */
void lane_requeue(Lane *lane, QueuedEvent *queued);
/* Returns a taken event that stays in the outbox to the queue or, behind a hold, to the events that
 * are read again when it ends. May free it. */
void lane_give_back(Lane *lane, QueuedEvent *queued);
/* The event stays in the outbox and has a hold. Frees it. */
void lane_forget(Lane *lane, QueuedEvent *queued);
/* The event has left the outbox. A hold on it, or on a later one that failed before this was taken,
 * becomes due at once. Frees it. */
void lane_settle(Lane *lane, QueuedEvent *queued);
/* Holds of other lanes have ended: the worker may continue where it could not. */
void lane_wake(Lane *lane);
/* Whether a hold keeps the event out of the queue. */
bool lane_is_behind_hold(Lane *lane, const Event *event);
/* Whether the event is in memory: queued or in hand. */
bool lane_knows(Lane *lane, const Id *event_id);

/* --- holds ---
 *
 *   waiting ──due, retry, review──▶ checked ────▶ waiting (put off), draining, or gone
 *   draining ──page by page──▶ gone, or waiting (one of those behind blocks again)
 *
 * The janitor checks holds that are due. If the hold is renewed meanwhile (its event failed again,
 * an earlier one was settled), it is waiting again and the janitor's decision has no effect. */

typedef enum HoldReason {
  HOLD_FAILED, /* its event is retried when the hold is due */
  HOLD_DEAD,   /* its event waits for an operator */
  HOLD_TAKEN,  /* its event is in progress elsewhere, or cannot be claimed */
  HOLD_GAP,    /* versions before its event are missing */
  HOLD_FUTURE, /* its event's time is far ahead, and it is tried when that time is near */
} HoldReason;

typedef enum HoldCall {
  CALL_DUE,    /* its time has come */
  CALL_RETRY,  /* an event at or before its own was settled: now it may succeed. Remains until its
                * event is tried */
  CALL_REVIEW, /* an operator may have changed its event */
} HoldCall;

typedef struct HoldView {
  Aggregate *aggregate; /* free with hold_view_clear */
  HoldReason reason;
  HoldCall call;
  bool draining;
  unsigned looks;  /* number of checks since it was opened or woken, including this one */
  OrderKey key;    /* of the event that blocks */
  OrderKey next;   /* draining: continue reading after this */
  bool from_start; /* draining: nothing was read yet */
  int64_t gap_first, gap_last; /* HOLD_GAP: the missing versions */
  uint8_t key_bytes[EVENT_ID_MAX], next_bytes[EVENT_ID_MAX];
} HoldView;

void hold_view_clear(HoldView *view);

enum { DUE_NEVER = -1 };

/* Puts the aggregate of an event in hand on hold behind it, due after `delay_ms` (DUE_NEVER:
 * resolved by the operator). */
void lane_hold(Lane *lane, QueuedEvent *queued, HoldReason reason, int64_t delay_ms);
/* The same for a gap before the event. */
void lane_hold_gap(Lane *lane, QueuedEvent *queued, int64_t first, int64_t last, int64_t delay_ms);
/* The same for an applied event that cannot leave the outbox; until it can, applied events behind
 * it stay too (lane_keeps). */
void lane_hold_applied(Lane *lane, QueuedEvent *queued, int64_t delay_ms);
/* Whether an applied event stays in the outbox, because an earlier one of its aggregate does. */
bool lane_keeps(Lane *lane, const Event *event);
/* Makes every hold except gaps due at once, so that its event is checked again. */
void lane_review_holds(Lane *lane);

/* Returns at most `max` due holds, the earliest first. */
unsigned lane_take_due(Lane *lane, HoldView *ret_views, unsigned max);
/* When the next hold will be due: ms from now, 0 when one is, DUE_NEVER when none. */
int64_t lane_due_in(Lane *lane);
/* Decided: the hold is due by itself next time. */
void lane_put_off(Lane *lane, const HoldView *view, HoldReason reason, int64_t delay_ms);
/* Nothing could be decided yet: the hold is checked again for the same cause. */
void lane_look_again(Lane *lane, const HoldView *view, HoldReason reason, int64_t delay_ms);
/* Lets the blocking event itself through to the queue; the hold stays. Returns false when it is in
 * memory (one that failed just now, until its mark is written), or the hold has changed. */
bool lane_offer_head(Lane *lane, QueuedEvent *queued);

typedef enum Offer {
  OFFER_GO_ON,
  OFFER_FULL,    /* refused: there is no room now */
  OFFER_BLOCKED, /* it blocks the aggregate itself, the hold has changed, or the draining has gone
                  * back to what it left out before the event */
} Offer;

/* Takes over an event before the blocking one or, when the hold drains, any event of the aggregate;
 * to be offered in order. */
Offer lane_offer_around(Lane *lane, QueuedEvent *queued);
/* Begins to let the events behind the hold through. Those that arrive from elsewhere meanwhile are
 * left out and noted, if the draining has not reached their place, and otherwise queued. Returns
 * false when the hold has changed. */
bool lane_begin_drain(Lane *lane, HoldView *view);
/* More is to be read, after `delay_ms`. */
void lane_go_on_draining(Lane *lane, const HoldView *view, int64_t delay_ms);
/* The last event there is was read, and not let through: if it blocks itself, nothing is behind. */
void lane_note_end(Lane *lane, const Event *last);
/* All was read: the hold ends, unless events were left out; then the draining goes back to them. */
void lane_end_drain(Lane *lane, const HoldView *view);

/* --- how long events wait; times in ms since 1970 by MongoDB's clock --- */

/* From now on, events whose readable_at is not known (found by a scan, or behind a hold) count as
 * waiting since this time: everything that could be read before it is settled. */
void lane_assume(Lane *lane, int64_t settled_until);
/* Since when the longest-waiting event has waited, in memory or behind a hold; INT64_MAX: none
 * waits. A dead event does not wait, but those behind it do; an event whose time is far ahead does
 * not, nor do those behind it, whose times are later still. */
int64_t lane_waiting_since(Lane *lane);

/* --- figures --- */

typedef struct LaneFigures {
  size_t queued, in_hand, bytes; /* in_hand: taken, not settled */
  size_t takeable;               /* of those queued, what would be taken now */
  size_t holds, dead, gaps, future;
  size_t undecided; /* holds that were looked at and are about to be decided; not those of events
                     * that are in progress elsewhere */
  bool full;        /* of holds */
} LaneFigures;

LaneFigures lane_figures(Lane *lane);

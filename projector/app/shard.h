/* shard.h - the events in memory of a part of the aggregates: a bounded queue in order, and the
 * aggregates on hold.
 *
 * An aggregate always belongs to the same shard, and a shard to one worker at a time: while that
 * one has events of it in hand, nobody else takes any. The queue gives the smallest event first. A
 * hold keeps the later events of an aggregate out of the queue while an earlier one has failed or
 * is missing; they stay in the outbox and are read again when the hold ends, so a hold costs the
 * same however many events wait behind it. All functions may be called from any thread. */
#pragma once

#include "projector/app/alarm.h"
#include "projector/domain/event.h"

typedef struct Shard Shard;

typedef struct ShardLimits {
  size_t events, bytes; /* queued */
  size_t holds;         /* from here on nothing new is taken, only what may end a hold */
  gint *all_holds;      /* atomic: of all shards, which `holds` is for; NULL: of this one */
} ShardLimits;

/* `due` (NULL: nobody) rings when a hold is due earlier than all others. It is not owned. */
Shard *shard_new(ShardLimits limits, Alarm *due);
void shard_free(Shard *shard);

/* --- the reading side --- */

/* Waits until there is room in the queue. False when the shard was stopped. */
bool shard_wait_room(Shard *shard);
bool shard_has_room(Shard *shard);
/* Takes the event over, as it was read from the outbox: a failed or dead one becomes a hold. True
 * when it was queued; dropped when it is in memory already or behind a hold. */
bool shard_offer(Shard *shard, Event *event);
/* Nobody waits any longer; shard_take gives nothing any more. */
void shard_stop(Shard *shard);

/* --- the worker's side; shards.h puts the taking together --- */

/* An event that was attempted so often comes alone: should it kill its process, it takes no others
 * with it. */
static inline bool comes_alone(const Event *event) {
  return event->attempts >= 2;
}

typedef struct Taken {
  Event **events;
  size_t count, bytes;          /* so far */
  size_t max_events, max_bytes; /* of bytes, at least one event */
} Taken;

/* The worker of this shard comes for events, the smallest first; what it took before is settled.
 * Unless another worker has the shard, it has it from now on, even when there is nothing to take.
 */
void shard_take(Shard *shard, unsigned worker, Taken *taken);
/* The same for the worker of another shard, while this is not kept apart and at most `queued_most`
 * events are queued; else it does not have the shard any more. */
void shard_take_along(Shard *shard, unsigned worker, size_t queued_most, Taken *taken);
/* The worker is done with the shard, if it has it. */
void shard_release(Shard *shard, unsigned worker);
/* For that time it is taken together with no other. */
void shard_keep_apart(Shard *shard, int64_t for_ms);
bool shard_is_apart(Shard *shard);
/* Rises with everything that the shard's worker may wait for. */
uint64_t shard_news(Shard *shard);
/* Waits for something that was not `seen`. False: stopped. */
bool shard_wait_news(Shard *shard, uint64_t seen);
/* When something is queued, waits until `wanted` events are, at most that long. The worker is done
 * with what it took before. */
void shard_linger(Shard *shard, unsigned worker, size_t wanted, int64_t linger_ms);
/* Puts an event that was taken back into the queue. */
void shard_requeue(Shard *shard, Event *event);
/* Gives back an event that was taken and stays in the outbox: into the queue, or, when a hold
 * stands before it, to what is read again at its end. May free it. */
void shard_give_back(Shard *shard, Event *event);
/* The event stays in the outbox, and a hold stands for it. Frees it. */
void shard_forget(Shard *shard, Event *event);
/* The event is gone from the outbox. A hold that stands for it, or for a later one that failed
 * before this was taken, is looked at at once. Frees it. */
void shard_settle(Shard *shard, Event *event);
/* Holds of other shards have ended: the worker may go on where it could not. */
void shard_wake(Shard *shard);
/* Whether a hold keeps the event out of the queue. */
bool shard_is_behind_hold(Shard *shard, const Event *event);
/* Whether the event is in memory: queued or in hand. */
bool shard_knows(Shard *shard, const Id *event_id);

/* --- holds ---
 *
 *   waiting ──due, retry, review──▶ looked at ──▶ waiting (put off), draining, or gone
 *   draining ──page by page──▶ gone, or waiting (one of those behind blocks again)
 *
 * The keeper looks at what is due. Whatever renews the hold meanwhile (its event failed again, one
 * before it was settled) makes it waiting again, and then what the keeper decides has no effect. */

typedef enum HoldReason {
  HOLD_FAILED, /* its event is tried again when the hold is due */
  HOLD_DEAD,   /* its event waits for a person */
  HOLD_TAKEN,  /* its event is in progress elsewhere, or cannot be claimed */
  HOLD_GAP,    /* versions before its event are missing */
} HoldReason;

typedef enum HoldCall {
  CALL_DUE,    /* its time has come */
  CALL_RETRY,  /* an event at or before its own was settled: now it may work. Stands until its
                * event is tried */
  CALL_REVIEW, /* somebody may have changed its event */
} HoldCall;

typedef struct HoldView {
  Aggregate *aggregate; /* free with hold_view_clear */
  HoldReason reason;
  HoldCall call;
  bool draining;
  unsigned looks;  /* how often it has been looked at since it was opened or woken, with this one */
  OrderKey key;    /* of the event that blocks */
  OrderKey next;   /* draining: read on behind this */
  bool from_start; /* draining: nothing was read yet */
  int64_t gap_first, gap_last; /* HOLD_GAP: the missing versions */
  uint8_t key_bytes[EVENT_ID_MAX], next_bytes[EVENT_ID_MAX];
} HoldView;

void hold_view_clear(HoldView *view);

enum { DUE_NEVER = -1 };

/* Puts the aggregate of an event in hand on hold behind it, due after `delay_ms` (DUE_NEVER: by
 * hand). */
void shard_hold(Shard *shard, Event *event, HoldReason reason, int64_t delay_ms);
/* The same for a gap before the event. */
void shard_hold_gap(Shard *shard, Event *event, int64_t first, int64_t last, int64_t delay_ms);
/* Makes every hold that is no gap due at once, to have its event looked at again. */
void shard_review_holds(Shard *shard);

/* Gives at most `max` holds that are due to be looked at, the earliest first. */
unsigned shard_take_due(Shard *shard, HoldView *ret_views, unsigned max);
/* When the next hold will be due: ms from now, 0 when one is, DUE_NEVER when none. */
int64_t shard_due_in(Shard *shard);
/* Decided: the hold is due by itself next time. */
void shard_put_off(Shard *shard, const HoldView *view, HoldReason reason, int64_t delay_ms);
/* Nothing could be decided yet: the hold is looked at again for the same cause. */
void shard_look_again(Shard *shard, const HoldView *view, HoldReason reason, int64_t delay_ms);
/* Lets the blocking event itself through to the queue; the hold stays. False: it is in memory (one
 * that failed just now, until its mark is written), or the hold has changed. */
bool shard_offer_head(Shard *shard, Event *event);

typedef enum Offer {
  OFFER_GO_ON,
  OFFER_FULL,    /* not taken: there is no room now */
  OFFER_BLOCKED, /* it blocks the aggregate itself, or the hold has changed */
} Offer;

/* Takes over an event before the one that blocks, or, when the hold drains, any event of the
 * aggregate; they are to be offered in order. */
Offer shard_offer_around(Shard *shard, Event *event);
/* Begins to let the events behind the hold through. What arrives from elsewhere meanwhile is left
 * out and noticed. False: the hold has changed. */
bool shard_begin_drain(Shard *shard, HoldView *view);
/* More is to be read, after `delay_ms`. */
void shard_go_on_draining(Shard *shard, const HoldView *view, int64_t delay_ms);
/* All was read: the hold ends, unless something was left out; then the draining goes back to it. */
void shard_end_drain(Shard *shard, const HoldView *view);

/* --- how long events wait; times in ms since 1970 by MongoDB's clock --- */

/* From now on, events whose readable_at is not known (found by a scan, or behind a hold) are taken
 * to wait since this time: everything that could be read before it is settled. */
void shard_assume(Shard *shard, int64_t settled_until);
/* Since when the event has waited that has waited for the longest, in memory or behind a hold;
 * INT64_MAX: none does. A dead event does not wait, those behind it do. */
int64_t shard_waiting_since(Shard *shard);

/* --- figures --- */

typedef struct ShardFigures {
  size_t queued, in_hand, bytes; /* in_hand: taken, not settled */
  size_t takeable;               /* of those queued, what would be taken now */
  size_t holds, dead, gaps, looked_at;
  bool full; /* of holds */
} ShardFigures;

ShardFigures shard_figures(Shard *shard);

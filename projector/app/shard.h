/* shard.h - the events in memory of one worker: a bounded queue in order, and the aggregates on
 * hold.
 *
 * An aggregate always belongs to the same shard. The queue gives the smallest event first. A hold
 * keeps the later events of an aggregate out of the queue while an earlier one has failed or is
 * missing; they stay in the outbox and are read again when the hold ends, so a hold costs the same
 * however many events wait behind it. All functions may be called from any thread. */
#pragma once

#include "projector/domain/event.h"

typedef struct Shard Shard;

typedef enum HoldReason {
  HOLD_FAILED, /* its event is tried again when the hold is due */
  HOLD_DEAD,   /* its event waits for a person */
  HOLD_GAP,    /* versions before its event are missing */
} HoldReason;

typedef struct HoldView {
  Aggregate *aggregate; /* free with g_free */
  HoldReason reason;
  OrderKey key; /* of the event that blocks; its id points into id_bytes */
  uint8_t id_bytes[EVENT_ID_MAX];
  int64_t gap_first, gap_last; /* HOLD_GAP: the missing versions */
  bool woken;                  /* due before its time, because an event was settled or by request */
} HoldView;

enum { DUE_NEVER = -1 };

/* Limits of the queue: events and bytes. */
Shard *shard_new(size_t event_limit, size_t byte_limit);
void shard_free(Shard *shard);

/* --- the reading side --- */

/* Waits until there is room. False when the shard was stopped. */
bool shard_wait_room(Shard *shard);
/* Takes the event over. Dropped (false) when it is in memory already or behind a hold. */
bool shard_offer(Shard *shard, Event *event);
/* Nobody waits any longer; shard_take gives nothing any more. */
void shard_stop(Shard *shard);

/* --- the worker's side --- */

/* Waits for events, if it is to `wait`, and takes up to `max_events` of them, `max_bytes` in all
 * but at least one, the smallest first. An event that was attempted twice or more comes alone:
 * should it kill its process, it takes no others with it. With `linger_ms` it waits that long for
 * more. 0: stopped, or nothing there. */
size_t shard_take(Shard *shard, Event **events, size_t max_events, size_t max_bytes, bool wait,
                  int64_t linger_ms);
/* Puts an event that was taken back into the queue. */
void shard_requeue(Shard *shard, Event *event);
/* Gives back an event that was taken and stays in the outbox: into the queue, or, when a hold
 * stands before it, to what is read again at its end. May free it. */
void shard_give_back(Shard *shard, Event *event);
/* The event has left memory's care for good: applied and acknowledged, or it waits in the outbox.
 * Frees it. */
void shard_forget(Shard *shard, Event *event);

/* --- holds --- */

/* Puts the event's aggregate on hold behind it, due after `delay_ms` (DUE_NEVER: by hand). */
void shard_hold(Shard *shard, const Event *event, HoldReason reason, int64_t delay_ms);
/* The same for a gap before the event. */
void shard_hold_gap(Shard *shard, const Event *event, int64_t first, int64_t last,
                    int64_t delay_ms);
/* Whether a hold keeps the event out of the queue. */
bool shard_is_behind_hold(Shard *shard, const Event *event);
/* Whether a hold stands for the event or one before it. */
bool shard_holds(Shard *shard, const Event *event);
/* Whether the event is in memory: queued or in hand. */
bool shard_knows(Shard *shard, const Id *event_id);
/* An event of the aggregate was settled: when it is the one that blocked, or one before it, the
 * hold becomes due at once. */
void shard_settled(Shard *shard, const Event *event);
/* Makes every hold due at once, to have its event looked at again. */
void shard_review_holds(Shard *shard);
/* The first hold that is due, which is then not due any more until it is put off, drained or ended;
 * false: none is due. What is then done to the hold has no effect if it was woken or renewed, maybe
 * for another event, in the meantime. */
bool shard_next_due(Shard *shard, HoldView *ret_view);
/* When the next hold will be due: ms from now, 0 when one is, DUE_NEVER when none. */
int64_t shard_due_in(Shard *shard);
void shard_put_off(Shard *shard, const Aggregate *aggregate, HoldReason reason, int64_t delay_ms);
/* Lets the blocking event itself through to the queue; the hold stays. False: it is in memory (one
 * that failed just now, until its mark is written), or the hold has changed. */
bool shard_offer_head(Shard *shard, Event *event);
/* Draining: the events behind a hold are read from the outbox page by page and offered with
 * shard_offer_drained, which says whether the draining may go on. What arrives meanwhile is left
 * out and noticed. shard_end_drain ends the hold, unless something was left out (false): read on
 * from the time `*ret_from`. */
bool shard_begin_drain(Shard *shard, const Aggregate *aggregate);
bool shard_offer_drained(Shard *shard, Event *event);
bool shard_end_drain(Shard *shard, const Aggregate *aggregate, int64_t *ret_from);

/* --- figures --- */

typedef struct ShardFigures {
  size_t queued, in_hand, bytes; /* in_hand: taken, not settled */
  size_t holds, dead, gaps;
} ShardFigures;

ShardFigures shard_figures(Shard *shard);

/* hand.h - what a worker has claimed by the batch and not committed yet.
 *
 * The worker puts a batch in and takes out what commits; the marker (marker.h) looks at it from its
 * own thread, and marks in the outbox what has been in hand for long, so that what is stuck can be
 * seen there. */
#pragma once

#include "projector/app/engine/queued_event.h"

typedef struct Hand Hand;

Hand *hand_new(void);
void hand_free(Hand *hand);

/* --- the worker's side --- */

/* Claimed just now. The hand is empty. */
void hand_take(Hand *hand, QueuedEvent *const *events, size_t count);
/* What is in the ledger is never marked any more. */
void hand_commit(Hand *hand, const Item *items, size_t count);
/* Nothing is marked any more, and what was to be marked is: the worker is about to say otherwise in
 * the outbox. Waits for the marker's write. */
void hand_empty(Hand *hand);

/* --- the marker's side --- */

/* Of a batch that has been in hand for that long, the ids of at most `most` events that are not
 * marked yet; from now on they count as marked. 0: none. Else hand_end_marks is to follow the
 * write. */
size_t hand_begin_marks(Hand *hand, int64_t mark_ms, size_t most, bson_t *ids);
void hand_end_marks(Hand *hand);

/* hand.h - the events that a worker has claimed by the batch and not committed yet.
 *
 * The worker adds a batch and removes events that commit; the marker (marker.h) reads it from its
 * own thread and marks events in the outbox that have been in hand for long, so that stuck ones are
 * visible there. */
#pragma once

#include "projector/app/engine/queued_event.h"

typedef struct Hand Hand;

Hand *hand_new(void);
void hand_free(Hand *hand);

/* --- the worker's side --- */

/* Claimed just now. The hand is empty. */
void hand_take(Hand *hand, QueuedEvent *const *events, size_t count);
/* Events in the ledger are no longer marked. */
void hand_commit(Hand *hand, const Item *items, size_t count);
/* Stops marking and waits for the marker's write in progress: the worker is about to write a
 * different state into the outbox. */
void hand_empty(Hand *hand);

/* --- the marker's side --- */

/* The ids of at most `most` unmarked events of a batch that has been in hand for that long; from
 * now on they count as marked. 0: none. Otherwise call hand_end_marks after the write. */
size_t hand_begin_marks(Hand *hand, int64_t mark_ms, size_t most, bson_t *ids);
void hand_end_marks(Hand *hand);

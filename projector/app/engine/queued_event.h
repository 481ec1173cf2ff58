/* queued_event.h - an event of the outbox, from the reader to the acker, with what the engine knows
 * of it beyond its document. */
#pragma once

#include "projector/domain/plan.h"

/* In a lane's queue, or taken from it until the lane gets it back. */
typedef enum QueuedPlace { PLACE_NEW, PLACE_QUEUE, PLACE_TAKEN } QueuedPlace;

typedef struct QueuedEvent QueuedEvent;

struct QueuedEvent {
  Event *event;
  QueuedEvent *later; /* in the queue: the next one of the same aggregate */
  QueuedPlace place;  /* under the lane's lock */
  int64_t
      readable_at; /* ms since 1970 by MongoDB's clock: it waits since then at most; 0: not known */
  int64_t read_at; /* its document was so then; monotonic, us; 0: long ago */
  uint64_t batch;  /* of its lane, with which it was taken */
  bool gap_waited; /* in vain: missing versions are not waited for again */
  bool no_entity;  /* there is none to take its row from */
  bool marked;     /* its own document says in_progress, or may say so */
  bool has_hold;   /* it has a hold, or was to get one */
  bool repeated;   /* the ledger had it when it was tried */
  bool left_failed; /* its document was marked as failed in an outage, and not read since */
  /* Of the attempt in hand: */
  bool excused;     /* it failed for a reason that is not its own, and does not pay */
  bool on_trial;    /* whether its table takes events again is tried with this one */
  int64_t early_ms; /* excused, because its time is far ahead: it waits that long */
};

/* Takes ownership of the event. */
QueuedEvent *queued_event_new(Event *event);
void queued_event_free(QueuedEvent *queued);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QueuedEvent, queued_event_free)

/* In bytes. */
size_t queued_event_memory(const QueuedEvent *queued);
/* The events alone, in the same order; free with g_free. */
Event **queued_events_bare(QueuedEvent *const *queued, size_t count);

/* Begins an attempt. */
Item queued_event_begin(QueuedEvent *queued);
/* The queued event of an item that was begun so. */
static inline QueuedEvent *queued_of(const Item *item) {
  return item->carrier;
}

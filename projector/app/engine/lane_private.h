/* lane_private.h - what lane.c and holds.c share: the queue and the holds are under one lock. */
#pragma once

#include "projector/app/engine/event_queue.h"
#include "projector/app/engine/lane.h"

typedef enum HoldState { STATE_WAITING, STATE_CHECKED, STATE_DRAINING } HoldState;

typedef struct Hold {
  Aggregate *aggregate;
  HoldState state;
  HoldReason reason;
  HoldCall call;
  unsigned looks;
  uint64_t batch; /* the last one taken when the hold was opened */
  OrderKey key;
  int64_t gap_first, gap_last;
  int64_t due;          /* monotonic, us */
  GSequenceIter *place; /* among those that will be due; NULL: it will not be, by itself */
  OrderKey reached;     /* by the draining: up to here the events have been let through */
  OrderKey next;        /* it continues reading after this */
  bool from_start;
  int64_t head_since;   /* the event that blocks waits since then, */
  int64_t behind_since; /* and those behind it; INT64_MAX: none is */
  int64_t rest_since;   /* and those that a draining had not read when this event blocked */
  bool keeps_applied;   /* its event is applied and cannot leave the outbox */
  int64_t missed_from;  /* earliest time of what was left out while draining; INT64_MAX: nothing */
  bool undecided;       /* the janitor has looked, and will soon look again */
  uint8_t key_bytes[EVENT_ID_MAX], reached_bytes[EVENT_ID_MAX], next_bytes[EVENT_ID_MAX];
} Hold;

/* Threads are woken only for what they wait for: waking costs a system call, and there are
 * thousands of events a second. */
struct Lane {
  GMutex lock;
  GCond room;        /* in the queue, for those who read */
  GCond work;        /* for the lane's own worker */
  unsigned for_room; /* how many wait */
  size_t wanted;     /* events in the queue before the worker is woken; 0: it does not wait */
  EventQueue *queue;
  GHashTable *known; /* Id → QueuedEvent, everything in memory */
  GHashTable *holds; /* Aggregate → Hold */
  GSequence *due;    /* of Hold, the earliest first */
  Alarm *alarm;
  LaneLimits limits;
  size_t bytes;
  int64_t assumed;   /* see lane_assume */
  uint64_t batch;    /* the last one taken */
  QueuedEvent *next; /* queued, and to be taken before smaller ones; NULL: none */
  bool stopped;
};

/* All of these are called with the lock held; lane.c has them. */
void lane_call(Lane *lane, Hold *hold, HoldCall why);
void lane_count_hold(Lane *lane, gint more);
void lane_end_future(const Lane *lane, Hold *hold);
Hold *lane_find_hold(const Lane *lane, const Event *event);
QueuedEvent *lane_find_known(const Lane *lane, const Event *event);
bool lane_has_room_around(const Lane *lane);
bool lane_has_to_wait(const Hold *hold, const Event *event);
void lane_hold_as_read(Lane *lane, const QueuedEvent *queued, HoldCall call);
Hold *lane_open_hold(Lane *lane, const QueuedEvent *queued, HoldReason reason, int64_t delay_ms);
bool lane_queue(Lane *lane, QueuedEvent *queued);
void lane_set_due(Lane *lane, Hold *hold, int64_t delay_ms);
void lane_wake_worker(Lane *lane);

/* event_queue.h - events in memory that are to be taken in order: the smallest of all, or the
 * smallest of one aggregate. They are the caller's, and different. */
#pragma once

#include "projector/app/engine/queued_event.h"

typedef struct EventQueue EventQueue;

EventQueue *event_queue_new(void);
void event_queue_free(EventQueue *queue);
size_t event_queue_count(const EventQueue *queue);
void event_queue_push(EventQueue *queue, QueuedEvent *event);
/* NULL: there is none. */
QueuedEvent *event_queue_pop(EventQueue *queue);
/* The smallest of the same aggregate. An event that has no aggregate is like no other. */
QueuedEvent *event_queue_pop_like(EventQueue *queue, const QueuedEvent *event);
/* Takes this one out, when it is queued and no smaller one of its aggregate is. */
bool event_queue_take(EventQueue *queue, QueuedEvent *event);

/* Asked once for each aggregate, of its smallest event; the answer holds for all of them. */
typedef bool EventTest(const Event *event, gconstpointer data);

/* Of the aggregates that pass the test: takes the smallest event, or counts all. */
QueuedEvent *event_queue_pop_where(EventQueue *queue, EventTest *test, gconstpointer data);
size_t event_queue_count_where(const EventQueue *queue, EventTest *test, gconstpointer data);

/* event_heap.h - events in an array of pointers, the smallest at 0. */
#pragma once

#include "projector/app/engine/queued_event.h"

void event_heap_push(GPtrArray *heap, QueuedEvent *queued);
/* Takes the event at that index out. */
QueuedEvent *event_heap_remove(GPtrArray *heap, unsigned at);
/* Whether the event at `a` sorts before the one at `b`. */
bool event_heap_before(const GPtrArray *heap, unsigned a, unsigned b);

/* queued_event.c - an event on its way: from its document until a lane settles or forgets it. */
#include "projector/app/engine/queued_event.h"

QueuedEvent *queued_event_new(Event *event) {
  QueuedEvent *queued = g_new0(QueuedEvent, 1);
  queued->event = event;
  return queued;
}

void queued_event_free(QueuedEvent *queued) {
  if (!queued)
    return;
  event_free(queued->event);
  g_free(queued);
}

size_t queued_event_memory(const QueuedEvent *queued) {
  return sizeof *queued + event_memory(queued->event);
}

Event **queued_events_bare(QueuedEvent *const *queued, size_t count) {
  Event **events = g_new(Event *, count);
  for (size_t i = 0; i < count; i++)
    events[i] = queued[i]->event;
  return events;
}

Item queued_event_begin(QueuedEvent *queued) {
  queued->excused = queued->on_trial = false;
  queued->early_ms = 0;
  return (Item){.event = queued->event,
                .carrier = queued,
                .gap_waited = queued->gap_waited,
                .no_entity = queued->no_entity};
}

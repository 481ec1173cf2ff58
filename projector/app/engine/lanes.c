/* lanes.c - which lanes a worker takes its batch from. */
#include "projector/app/engine/lanes.h"

#include "projector/domain/claim.h"

enum { TOGETHER = 64 /* most events of a batch from several lanes */ };

void lanes_release_all_but(const Lanes *lanes, unsigned worker, const Lane *kept) {
  for (unsigned i = 0; i < lanes->count; i++)
    if (lanes->lanes[i] != kept)
      lane_release(lanes->lanes[i], worker);
}

static bool has_room(const Taken *taken, size_t most) {
  return taken->count < most &&
         (taken->count == 0 ||
          !claim_comes_alone(taken->events[taken->count - 1]->event->attempts));
}

/* From its own lane and, while events are few, from free other lanes: a transaction costs
 * its round trips, not its events. What is empty is kept from the others' workers too, so that the
 * next events wait for the next batch instead of becoming small ones beside this one. */
static void take(const Lanes *lanes, unsigned worker, bool alone, Taken *taken) {
  size_t most = MIN(TOGETHER, taken->max_events);
  Lane *own = lanes->lanes[worker];
  lane_take(own, worker, taken);
  alone = alone || lane_is_apart(own);
  for (unsigned i = 1; i < lanes->count; i++) {
    Lane *other = lanes->lanes[(worker + i) % lanes->count];
    if (!alone && has_room(taken, most))
      lane_take_along(other, worker, most - taken->count, taken);
    else
      lane_release(other, worker);
  }
  if (taken->count == 0)
    lanes_release_all_but(lanes, worker, NULL);
}

size_t lanes_take(const Lanes *lanes, unsigned worker, const Taking *how, QueuedEvent **events) {
  Lane *own = lanes->lanes[worker];
  uint64_t seen;
  do {
    seen = lane_news(own);
    if (how->linger_ms > 0)
      lane_linger(own, worker, how->max_events, how->linger_ms);
    Taken taken = {.events = events, .max_events = how->max_events, .max_bytes = how->max_bytes};
    take(lanes, worker, how->alone || how->linger_ms > 0, &taken);
    if (taken.count > 0)
      return taken.count;
  } while (how->wait && lane_wait_news(own, seen));
  return 0;
}

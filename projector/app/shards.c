/* shards.c - which shards a worker takes its batch from. */
#include "projector/app/shards.h"

enum { TOGETHER = 64 /* most events of a batch from several shards */ };

void shards_release_all_but(const Shards *shards, unsigned worker, const Shard *kept) {
  for (unsigned i = 0; i < shards->count; i++)
    if (shards->shards[i] != kept)
      shard_release(shards->shards[i], worker);
}

static bool has_room(const Taken *taken, size_t most) {
  return taken->count < most &&
         (taken->count == 0 || !comes_alone(taken->events[taken->count - 1]));
}

/* From its own shard, and while they are few, from the others that nobody has: a transaction costs
 * its round trips, not its events. What is empty is kept from the others' workers too, so that the
 * next events wait for the next batch instead of becoming small ones beside this one. */
static void take(const Shards *shards, unsigned worker, bool alone, Taken *taken) {
  size_t most = MIN(TOGETHER, taken->max_events);
  Shard *own = shards->shards[worker];
  shard_take(own, worker, taken);
  alone = alone || shard_is_apart(own);
  for (unsigned i = 1; i < shards->count; i++) {
    Shard *other = shards->shards[(worker + i) % shards->count];
    if (!alone && has_room(taken, most))
      shard_take_along(other, worker, most - taken->count, taken);
    else
      shard_release(other, worker);
  }
  if (taken->count == 0)
    shards_release_all_but(shards, worker, NULL);
}

size_t shards_take(const Shards *shards, unsigned worker, const Taking *how, Event **events) {
  Shard *own = shards->shards[worker];
  uint64_t seen;
  do {
    seen = shard_news(own);
    if (how->linger_ms > 0)
      shard_linger(own, worker, how->max_events, how->linger_ms);
    Taken taken = {.events = events, .max_events = how->max_events, .max_bytes = how->max_bytes};
    take(shards, worker, how->alone || how->linger_ms > 0, &taken);
    if (taken.count > 0)
      return taken.count;
  } while (how->wait && shard_wait_news(own, seen));
  return 0;
}

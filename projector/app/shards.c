/* shards.c - which shards a worker takes its batch from. */
#include "projector/app/shards.h"

enum { TOGETHER = 64 /* most events of a batch from several shards */ };

/* From its own shard, and while they are few, from the others that nobody has: a transaction costs
 * its round trips, not its events. What is empty is kept from the others' workers too, so that the
 * next events wait for the next batch instead of becoming small ones beside this one. */
static void take(const Shards *shards, unsigned worker, bool alone, Batch *batch) {
  size_t most = MIN(TOGETHER, batch->max_events);
  shard_take(shards->shards[worker], worker, SIZE_MAX, batch);
  for (unsigned i = 1; i < shards->count; i++) {
    Shard *other = shards->shards[(worker + i) % shards->count];
    if (alone || batch->count >= most)
      shard_release(other, worker);
    else
      shard_take(other, worker, most - batch->count, batch);
  }
  if (batch->count == 0)
    shards_release(shards, worker);
}

size_t shards_take(const Shards *shards, unsigned worker, const Taking *how, Event **events) {
  Shard *own = shards->shards[worker];
  uint64_t seen;
  do {
    seen = shard_news(own);
    if (how->linger_ms > 0)
      shard_linger(own, how->max_events, how->linger_ms);
    Batch batch = {.events = events, .max_events = how->max_events, .max_bytes = how->max_bytes};
    take(shards, worker, how->alone, &batch);
    if (batch.count > 0)
      return batch.count;
  } while (how->wait && shard_wait_news(own, seen));
  return 0;
}

void shards_release(const Shards *shards, unsigned worker) {
  for (unsigned i = 0; i < shards->count; i++)
    shard_release(shards->shards[i], worker);
}

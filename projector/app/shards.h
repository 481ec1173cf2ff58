/* shards.h - all shards of a running projector: an aggregate's events always go to the same one. */
#pragma once

#include "projector/app/shard.h"

typedef struct Shards {
  Shard **shards;
  unsigned count;
} Shards;

static inline Shard *shard_of(const Shards *shards, uint64_t aggregate_hash) {
  g_assert(shards->count > 0);
  return shards->shards[aggregate_hash % shards->count];
}

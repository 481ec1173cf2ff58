/* shards.h - all shards of a running projector: an aggregate's events always go to the same one. */
#pragma once

#include "projector/app/alarm.h"
#include "projector/app/shard.h"

typedef struct Shards {
  Shard **shards;
  unsigned count;
  Alarm *due;    /* rings when a hold is due earlier than those before */
  gint scanning; /* atomic; the reader is reading the whole outbox */
} Shards;

static inline Shard *shard_of(const Shards *shards, uint64_t aggregate_hash) {
  g_assert(shards->count > 0);
  return shards->shards[aggregate_hash % shards->count];
}

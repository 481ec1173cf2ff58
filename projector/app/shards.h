/* shards.h - all shards of a running projector, one for each worker: an aggregate's events always
 * go to the same one. */
#pragma once

#include "projector/app/alarm.h"
#include "projector/app/shard.h"
#include "projector/app/watch.h"

typedef struct Shards {
  Shard **shards;
  unsigned count;
  Alarm *due;    /* rings when a hold is due earlier than those before */
  gint holds;    /* atomic; of all shards */
  Watch *watch;  /* what the workers have found out; not used here */
  gint scanning; /* atomic; the reader is reading the whole outbox */
} Shards;

static inline Shard *shard_of(const Shards *shards, uint64_t aggregate_hash) {
  g_assert(shards->count > 0);
  return shards->shards[aggregate_hash % shards->count];
}

typedef struct Taking {
  size_t max_events, max_bytes; /* of a batch; of bytes, at least one event */
  int64_t linger_ms;            /* waits that long for more, of its own shard only */
  bool wait;                    /* until there is something */
  bool alone;                   /* from its own shard only */
} Taking;

/* Takes a batch for the worker, whose own shard has its number; what it took before is settled.
 * 0: stopped, or nothing there. */
size_t shards_take(const Shards *shards, unsigned worker, const Taking *how, Event **events);
/* The worker cannot go on for a while; the others need not wait for it. It has no events of other
 * shards than the one that it keeps (NULL: of none) in hand. */
void shards_release_all_but(const Shards *shards, unsigned worker, const Shard *kept);

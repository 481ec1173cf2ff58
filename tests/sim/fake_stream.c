/* fake_stream.c - the change stream, behind infra/mongo/stream.h: gives each insert once or twice,
 * soon or late, until it is lost. */
#include "projector/infra/mongo/stream.h"

#include "tests/sim/sim.h"

enum { IDLE_US = 1000000, BATCH = 10, AGAIN_US = 5000000 };

struct Stream {
  unsigned position, batch_left;
  bson_t *document; /* delivered last */
};

static const SimEvent *inserted(unsigned position) {
  return &sim.events[g_array_index(sim.inserts, unsigned, position)];
}

Stream *stream_open(MongoStore *store, uint32_t seconds, uint32_t increment) {
  (void)store;
  (void)seconds;
  Stream *stream = g_new0(Stream, 1);
  stream->position = increment;
  for (unsigned again = sim_random(3); again > 0 && stream->position > 0; again--)
    if (fiber_now_us() - inserted(stream->position - 1)->inserted_at < AGAIN_US)
      stream->position--;
  counts.rescans++;
  return stream;
}

void stream_free(Stream *stream) {
  if (!stream)
    return;
  if (stream->document)
    bson_destroy(stream->document);
  g_free(stream);
}

/* The oplog no longer reaches back, a token is dead, the collection was renamed … */
static bool lose_history(Failure *ret_failure) {
  static const int codes[] = {286, 280, 260, 136, 10334};
  int code = codes[sim_random(G_N_ELEMENTS(codes))];
  counts.histories++;
  return failure_set(ret_failure, failure_class_of_mongodb(code), SOURCE_MONGODB, code,
                     "history lost");
}

static bool get_more(Stream *stream, Failure *ret_failure) {
  if (!call_begin(MONGO, "stream", ret_failure))
    return false;
  if (fiber_now_us() < sim.faults.history_until || (!sim.quiet && sim_chance(10)))
    return lose_history(ret_failure);
  stream->batch_left = 1 + sim_random(BATCH);
  return true;
}

StreamResult stream_next(Stream *stream, bson_t *ret_document, int64_t *ret_at_ms,
                         Failure *ret_failure) {
  *ret_at_ms = 0;
  if (fiber_now_us() < sim.faults.stream_lags_until) {
    counts.lags++;
    fiber_sleep_us(sim_between(1, IDLE_US));
    return STREAM_IDLE;
  }
  *ret_at_ms = sim_server_ms(MONGO);
  if (stream->position == sim.inserts->len) {
    fiber_wait_on(sim.inserts, IDLE_US);
    stream->batch_left = 0;
    if (stream->position == sim.inserts->len)
      return fiber_now_us() < sim.faults.history_until && !lose_history(ret_failure) ? STREAM_LOST
                                                                                     : STREAM_IDLE;
  }
  if (stream->batch_left == 0 && !get_more(stream, ret_failure))
    return STREAM_LOST;
  stream->batch_left--;
  SimEvent as_inserted = *inserted(stream->position++);
  *ret_at_ms -= (fiber_now_us() - as_inserted.inserted_at) / 1000;
  as_inserted.status = STATUS_PENDING;
  as_inserted.attempts = 0;
  if (stream->document)
    bson_destroy(stream->document);
  stream->document = mongo_document(&as_inserted);
  bson_init_static(ret_document, bson_get_data(stream->document), stream->document->len);
  return STREAM_EVENT;
}

/* reader.c - the read and decode steps.
 *
 * The outbox is scanned in order, as it was at one moment, and the change stream starts at that
 * moment; the lanes drop an id that they hold and the claim fails for one that is gone. Whatever
 * ends the stream, the next scan finds what it missed: the outbox itself is the record of what is
 * still to do, so no position in the stream is ever kept. */
#include "projector/app/engine/reader.h"

#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mongo/stream.h"

enum {
  PAUSE_MS = 100,      /* first pause before another attempt; doubles up to PAUSE_MAX_MS */
  PAUSE_MAX_MS = 5000, /* a lost history must not cause a storm of requests */
  ONCE_POLL_MS = 5,
  BEHIND_MS = 1000,
};

struct Reader {
  MongoStore *store;
  Lanes *lanes;
  Stop *stop;
  bool once;
  Outbox *outbox;
  GThread *thread;
  Pulse pulse;
  gint state, restarts; /* atomic */
  bool scanned;         /* at least once */
  bool behind;          /* the stream's next events may be old */
  GMutex lock;          /* of what follows; see reader_given_until */
  int64_t given_until, heard_at;
};

/* Nothing is queued, in hand, or about to be retried. */
static bool all_idle(const Lanes *lanes) {
  for (unsigned i = 0; i < lanes->count; i++) {
    LaneFigures figures = lane_figures(lanes->lanes[i]);
    if (figures.takeable > 0 || figures.in_hand > 0 || figures.gaps > 0 || figures.undecided > 0 ||
        lane_due_in(lanes->lanes[i]) == 0)
      return false;
  }
  return true;
}

/* With `once` the wait also ends when so many aggregates are blocked that nothing can continue. */
static bool wait_room(Reader *reader, Lane *lane) {
  if (!reader->once)
    return lane_wait_room(lane);
  while (!lane_has_room(lane))
    if (stop_wait(reader->stop, ONCE_POLL_MS) || all_idle(reader->lanes))
      return false;
  return true;
}

static void note_given(Reader *reader, int64_t until) {
  SCOPED_LOCK(&reader->lock);
  reader->given_until = MAX(reader->given_until, until);
  reader->heard_at = g_get_monotonic_time();
}

/* Decodes the document and puts it into its lane, waiting for room. Returns false when stopped. */
static bool offer(Reader *reader, const bson_t *document, int64_t readable_at, int64_t read_at,
                  int64_t *taken) {
  g_autoptr(QueuedEvent) queued = queued_event_new(event_decode(document));
  queued->readable_at = readable_at;
  queued->read_at = read_at;
  Lane *lane = lane_of(reader->lanes, queued->event->aggregate_hash);
  Pulse *pulse = pulse_put_down();
  bool has_room = wait_room(reader, lane);
  pulse_take_up(pulse);
  if (!has_room)
    return false;
  *taken += lane_offer(lane, g_steal_pointer(&queued));
  return true;
}

static bool scan_all(Reader *reader, uint32_t *ret_seconds, uint32_t *ret_increment,
                     int64_t *ret_taken, Failure *ret_failure) {
  *ret_taken = 0;
  /* An event that a second scan finds may be acknowledged before it is offered. */
  int64_t read_at = reader->scanned ? 0 : clock_us();
  reader->scanned = true;
  g_autoptr(EventCursor) cursor =
      outbox_scan(reader->outbox, ret_seconds, ret_increment, ret_failure);
  if (!cursor)
    return false;
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure)))
    if (!offer(reader, document, 0, read_at, ret_taken))
      return true;
  if (ret_failure->class == FAILURE_NONE)
    note_given(reader, (int64_t)*ret_seconds * 1000);
  return ret_failure->class == FAILURE_NONE;
}

/* Reads the whole outbox once. `*ret_taken` counts what the lanes took. */
static bool scan(Reader *reader, uint32_t *ret_seconds, uint32_t *ret_increment, int64_t *ret_taken,
                 Failure *ret_failure) {
  g_atomic_int_set(&reader->state, READER_SCANNING);
  g_atomic_int_set(&reader->lanes->scanning, 1);
  pulse_begin(&reader->pulse);
  bool good = scan_all(reader, ret_seconds, ret_increment, ret_taken, ret_failure);
  pulse_end(&reader->pulse);
  g_atomic_int_set(&reader->lanes->scanning, 0);
  return good;
}

/* Whether the insert was long ago by MongoDB's clock: the stream lags, or delivers again what it
 * has delivered before. */
static bool is_old(const Reader *reader, int64_t at_ms) {
  return lanes_now_ms(reader->lanes) - at_ms > BEHIND_MS;
}

/* The driver reads many events at once; they stay in its buffer while there is no room. */
static bool offer_live(Reader *reader, const bson_t *document, int64_t at_ms) {
  int64_t taken = 0, begun = clock_us();
  crash_point("after_read");
  if (!offer(reader, document, at_ms, reader->behind || is_old(reader, at_ms) ? 0 : begun, &taken))
    return false;
  reader->behind |= clock_us() - begun > (int64_t)BEHIND_MS * 1000;
  return true;
}

static bool follow_stream(Reader *reader, uint32_t seconds, uint32_t increment, bool *ret_worked,
                          Failure *ret_failure) {
  g_autoptr(Stream) stream = stream_open(reader->store, seconds, increment);
  int64_t at_ms;
  reader->behind = false;
  while (!stop_requested(reader->stop)) {
    bson_t document;
    switch (stream_next(stream, &document, &at_ms, ret_failure)) {
    case STREAM_EVENT:
      g_atomic_int_set(&reader->state, READER_STREAMING);
      *ret_worked = true;
      if (!offer_live(reader, &document, at_ms))
        return true;
      note_given(reader, at_ms - 1); /* another of the same millisecond may follow */
      break;
    case STREAM_IDLE:
      reader->behind = false;
      g_atomic_int_set(&reader->state, READER_STREAMING);
      *ret_worked = true;
      note_given(reader, at_ms);
      break;
    case STREAM_LOST: return false;
    }
  }
  return true;
}

/* Follows the stream until it is lost (false) or the projector stops. */
static bool follow(Reader *reader, uint32_t seconds, uint32_t increment, bool *ret_worked,
                   Failure *ret_failure) {
  pulse_begin(&reader->pulse);
  bool good = follow_stream(reader, seconds, increment, ret_worked, ret_failure);
  pulse_end(&reader->pulse);
  return good;
}

static void read_live(Reader *reader) {
  int64_t pause_ms = PAUSE_MS;
  while (!stop_requested(reader->stop)) {
    uint32_t seconds, increment;
    int64_t taken;
    bool worked = false;
    Failure failure = {0};
    if (scan(reader, &seconds, &increment, &taken, &failure) &&
        follow(reader, seconds, increment, &worked, &failure))
      return;
    g_atomic_int_set(&reader->state, READER_WAITING);
    g_atomic_int_inc(&reader->restarts);
    log_failure(LOG_LEVEL_WARNING, "reading the outbox again", &failure);
    if (failure.class == FAILURE_CONFIG)
      stop_request(reader->stop, &failure);
    pause_ms = worked ? PAUSE_MS : MIN(pause_ms * 2, PAUSE_MAX_MS);
    stop_wait(reader->stop, pause_ms);
  }
}

static void read_once(Reader *reader) {
  int64_t taken = 1;
  while (!stop_requested(reader->stop) && taken > 0) {
    uint32_t seconds, increment;
    Failure failure = {0};
    if (!scan(reader, &seconds, &increment, &taken, &failure)) {
      log_failure(LOG_LEVEL_WARNING, "reading the outbox again", &failure);
      if (failure.class == FAILURE_CONFIG)
        stop_request(reader->stop, &failure);
      stop_wait(reader->stop, PAUSE_MAX_MS / 5);
      taken = 1;
      continue;
    }
    while (!all_idle(reader->lanes) && !stop_wait(reader->stop, ONCE_POLL_MS))
      ;
  }
  stop_request(reader->stop, NULL);
}

static gpointer run(gpointer data) {
  Reader *reader = data;
  if (reader->once)
    read_once(reader);
  else
    read_live(reader);
  return NULL;
}

Reader *reader_start(MongoStore *store, Lanes *lanes, Stop *stop, bool once) {
  Reader *reader = g_new0(Reader, 1);
  *reader = (Reader){.store = store, .lanes = lanes, .stop = stop, .once = once};
  reader->outbox = outbox_new(store, "");
  reader->heard_at = g_get_monotonic_time();
  g_mutex_init(&reader->lock);
  reader->thread = g_thread_new("reader", run, reader);
  return reader;
}

void reader_finish(Reader *reader) {
  if (!reader)
    return;
  g_thread_join(reader->thread);
  outbox_free(reader->outbox);
  g_mutex_clear(&reader->lock);
  g_free(reader);
}

int64_t reader_given_until(Reader *reader, int64_t *ret_heard_at) {
  SCOPED_LOCK(&reader->lock);
  *ret_heard_at = reader->heard_at;
  return reader->given_until;
}

Pulse *reader_pulse(Reader *reader) {
  return &reader->pulse;
}

ReaderState reader_state(Reader *reader) {
  return (ReaderState)g_atomic_int_get(&reader->state);
}

int64_t reader_restarts(Reader *reader) {
  return g_atomic_int_get(&reader->restarts);
}

/* event_readers.c - the threads that stream events. */
#include "projector/app/web/event_readers.h"

#include "projector/app/shared/event_query.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  READERS_MAX = 4,
  LOOK_MS = 250,  /* how often to check that the client is still connected */
  BUSY_SHARE = 4, /* while events are being applied, a page is followed by a longer rest */
  NICENESS = 10,
};

struct EventReaders {
  const Config *config;
  Metrics *metrics;
  GMutex lock;
  GCond changed;
  GPtrArray *active; /* of EventReader */
  bool ending;
};

typedef struct EventReader {
  EventReaders *readers;
  HttpRequest *request;
  HttpStream *stream; /* NULL: not started */
  EventQuery query;
} EventReader;

static HttpAnswer refuse(unsigned status, const char *why) {
  g_autofree char *text = g_strconcat(why, "\n", NULL);
  return (HttpAnswer){.status = status,
                      .type = "text/plain; charset=utf-8",
                      .body = g_bytes_new(text, strlen(text))};
}

static void reader_free(EventReader *reader) {
  event_query_clear(&reader->query);
  g_free(reader);
}

/* --- reading -------------------------------------------------------------------------------- */

static bool write_line(const char *line, size_t length, void *data) {
  const EventReader *reader = data;
  return http_stream_write(reader->stream, line, length);
}

static bool is_busy(const EventReaders *readers) {
  g_auto(Figures) figures = metrics_read(readers->metrics);
  return figures.role == ROLE_WORKING && figures.tenure.queued > 0;
}

/* Returns false when the reader has disconnected (which only a stream notices), or the process
 * ends. */
static bool rest(int64_t ms, void *data) {
  const EventReader *reader = data;
  EventReaders *readers = reader->readers;
  int64_t left_ms = is_busy(readers) ? ms * BUSY_SHARE : ms;
  for (bool more = true; more;) {
    if (reader->stream && !http_stream_has_reader(reader->stream))
      return false;
    int64_t part_ms = MIN(left_ms, LOOK_MS), until = g_get_monotonic_time() + part_ms * 1000;
    left_ms -= part_ms;
    SCOPED_LOCK(&readers->lock);
    while (!readers->ending)
      if (!g_cond_wait_until(&readers->changed, &readers->lock, until))
        break;
    more = left_ms > 0 && !readers->ending;
  }
  return !readers->ending;
}

/* Returns false when the process ends. */
static bool begin_stream(EventReader *reader) {
  EventReaders *readers = reader->readers;
  SCOPED_LOCK(&readers->lock);
  if (!readers->ending)
    reader->stream = http_stream_begin(reader->request, "application/x-ndjson");
  return reader->stream != NULL;
}

static void end_stream(EventReader *reader) {
  EventReaders *readers = reader->readers;
  SCOPED_LOCK(&readers->lock);
  http_stream_end(reader->stream);
  reader->stream = NULL;
}

/* Returns false when the reader cannot be served: it has its answer. */
static bool begin(EventReader *reader, const EventReading *reading, Archive *archive,
                  Failure *failure) {
  bool good = archive && event_query_look(reading, archive, failure);
  if (!good && failure->class != FAILURE_NONE)
    http_answer(reader->request,
                refuse(failure->class == FAILURE_HISTORY ? 409 : 503, failure->message));
  else if (!good || !begin_stream(reader))
    http_answer(reader->request, refuse(503, "the projector is stopping"));
  return reader->stream != NULL;
}

static void read_events(EventReader *reader) {
  Failure failure = {0};
  const Config *config = reader->readers->config;
  g_autoptr(Archive) archive = archive_open(&config->mongodb, &failure);
  EventReading reading = {
      .config = config, .query = &reader->query, .sink = write_line, .pause = rest, .data = reader};
  if (!begin(reader, &reading, archive, &failure))
    return;
  bool good = event_query_run(&reading, archive, &failure);
  if (!good) /* the last piece of the body is missing, so the client knows that it is incomplete */
    http_stream_break(reader->stream);
  end_stream(reader);
  if (!good)
    log_failure(LOG_LEVEL_WARNING, "events on demand ended early", &failure);
  log_info("events on demand", LOG_FIELDS(LOG_NUMBER("events", reading.lines),
                                          LOG_NUMBER("after", reader->query.after)));
}

static gpointer run(gpointer data) {
  EventReader *reader = data;
  EventReaders *readers = reader->readers;
  setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
  read_events(reader);
  SCOPED_LOCK(&readers->lock);
  g_ptr_array_remove(readers->active, reader);
  g_cond_broadcast(&readers->changed);
  reader_free(reader);
  return NULL;
}

/* --- taking requests ------------------------------------------------------------------------ */

typedef struct Parsing {
  EventQuery *query;
  GHashTable *seen; /* of names */
  Failure *failure;
} Parsing;

static bool take_query(const char *name, const char *value, void *data) {
  const Parsing *parsing = data;
  g_autofree char *spaced = g_strdup(value);
  g_autofree char *text = g_uri_unescape_string(g_strdelimit(spaced, "+", ' '), NULL);
  if (!text)
    return failure_refuse(parsing->failure, "%.40s: not a valid query string", name);
  if (!g_hash_table_add(parsing->seen, g_strdup(name)))
    return failure_refuse(parsing->failure, "%.40s: expected once", name);
  return event_query_set(parsing->query, name, text, parsing->failure);
}

/* NULL: started. */
static const char *start(EventReaders *readers, EventReader *reader) {
  SCOPED_LOCK(&readers->lock);
  if (readers->ending)
    return "the projector is stopping";
  if (readers->active->len >= READERS_MAX)
    return "too many read events at once; try again later";
  http_defer(reader->request);
  g_ptr_array_add(readers->active, reader);
  g_thread_unref(g_thread_new("events", run, reader));
  return NULL;
}

void event_readers_take(EventReaders *readers, HttpRequest *request) {
  Failure failure = {0};
  EventReader *reader = g_new0(EventReader, 1);
  *reader = (EventReader){.readers = readers, .request = request};
  event_query_init(&reader->query);
  g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  Parsing parsing = {&reader->query, seen, &failure};
  http_request_each_query(request, take_query, &parsing);
  if (failure.class != FAILURE_NONE ||
      !event_query_check(&reader->query, readers->config, &failure)) {
    http_answer(request, refuse(readers->config->mongodb.archive ? 400 : 409, failure.message));
    reader_free(reader);
    return;
  }
  const char *why = start(readers, reader);
  if (why) {
    http_answer(request, refuse(readers->ending ? 503 : 429, why));
    reader_free(reader);
  }
}

unsigned event_readers_count(EventReaders *readers) {
  SCOPED_LOCK(&readers->lock);
  return readers->active->len;
}

EventReaders *event_readers_new(const Config *config, Metrics *metrics) {
  EventReaders *readers = g_new0(EventReaders, 1);
  readers->config = config;
  readers->metrics = metrics;
  readers->active = g_ptr_array_new();
  g_mutex_init(&readers->lock);
  g_cond_init(&readers->changed);
  return readers;
}

void event_readers_end(EventReaders *readers) {
  if (!readers)
    return;
  SCOPED_LOCK(&readers->lock);
  readers->ending = true;
  g_cond_broadcast(&readers->changed);
  for (guint i = 0; i < readers->active->len; i++) {
    const EventReader *reader = readers->active->pdata[i];
    if (reader->stream)
      http_stream_break(reader->stream);
  }
  while (readers->active->len > 0)
    g_cond_wait(&readers->changed, &readers->lock);
}

void event_readers_free(EventReaders *readers) {
  if (!readers)
    return;
  g_ptr_array_unref(readers->active);
  g_mutex_clear(&readers->lock);
  g_cond_clear(&readers->changed);
  g_free(readers);
}

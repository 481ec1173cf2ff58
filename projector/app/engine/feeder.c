/* feeder.c - the thread that copies into the feeds. */
#include "projector/app/engine/feeder.h"

#include "projector/app/engine/event_reports.h"
#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/feeds.h"

enum {
  LOOK_MS = 1000,
  SHARE = 10, /* if looking takes long, it takes at most one part in so many of the time, */
  REST_MAX_MS = 10000, /* with pauses that are no longer than this */
  MARKED_MAX =
      100000, /* hashes that are kept; if there are more, each event is read again for its copy */
  MARK_AGAIN_S = 10,
  MARKS_MOST = 50, /* marks tried again in one look */
};

struct Feeder {
  Outbox *outbox;
  Stop *stop;
  GThread *thread;
  Pulse pulse;
  Moment before; /* of the last look */
  GMutex lock;
  GHashTable *marked;   /* hashes of the ids that have been marked and may still be in memory */
  bool marked_many;     /* more than MARKED_MAX */
  int64_t acknowledged; /* events, so far */
  Watch *watch;
  Metrics *metrics;
  GHashTable *refused; /* hashes of the aggregates of copies that were refused in this look */
  /* Hash of an event that is copied and could not be marked → the second of the try. */
  GHashTable *unmarkable;
};

void feeder_note_acknowledged(Feeder *feeder, size_t count) {
  if (!feeder)
    return;
  SCOPED_LOCK(&feeder->lock);
  feeder->acknowledged += (int64_t)count;
}

bool feeder_has_marked_none(Feeder *feeder, Event *const *events, size_t count) {
  if (!feeder)
    return true;
  SCOPED_LOCK(&feeder->lock);
  bool none = !feeder->marked_many;
  for (size_t i = 0; none && i < count; i++)
    none = !g_hash_table_contains(feeder->marked,
                                  GUINT_TO_POINTER(id_hash_key(&events[i]->key.event_id)));
  return none;
}

static int64_t count_acknowledged(Feeder *feeder) {
  SCOPED_LOCK(&feeder->lock);
  return feeder->acknowledged;
}

/* Call before the mark is set. */
static void note_marked(Feeder *feeder, const Id *id) {
  SCOPED_LOCK(&feeder->lock);
  feeder->marked_many |= g_hash_table_size(feeder->marked) >= MARKED_MAX;
  if (!feeder->marked_many)
    g_hash_table_add(feeder->marked, GUINT_TO_POINTER(id_hash_key(id)));
}

/* Forgets the ids once no marked event is left in the outbox. */
static bool forget_marked(Feeder *feeder, Failure *ret_failure) {
  bool any;
  g_mutex_lock(&feeder->lock);
  bool known = feeder->marked_many || g_hash_table_size(feeder->marked) > 0;
  g_mutex_unlock(&feeder->lock);
  if (!known)
    return true;
  if (!feeds_have_marked(feeder->outbox, &any, ret_failure))
    return false;
  if (any)
    return true;
  SCOPED_LOCK(&feeder->lock);
  g_hash_table_remove_all(feeder->marked);
  feeder->marked_many = false;
  return true;
}

/* The next page, empty at the end. Returns whether more may follow. */
static bool read_page(Feeder *feeder, EventCursor *cursor, GPtrArray *page, Failure *ret_failure) {
  const bson_t *document = NULL;
  while (page->len < FEED_PAGE && (document = event_cursor_next(cursor, ret_failure))) {
    Event *event = event_decode(document);
    g_ptr_array_add(page, event);
    note_marked(feeder, &event->key.event_id);
  }
  return document != NULL;
}

static gpointer aggregate_of(const Event *event) {
  return GSIZE_TO_POINTER(event->aggregate_hash);
}

/* By the aggregate too: who shares another's hash would be marked without a copy. */
static gpointer hash_of(const Event *event) {
  return GSIZE_TO_POINTER(event->aggregate_hash ^
                          (gsize)id_hash_key(&event->key.event_id) * 0x9E3779B97F4A7C15u);
}

static gpointer this_second(void) {
  return GINT_TO_POINTER((gint)(clock_us() / 1000000));
}

/* MongoDB refuses this one. If only its mark, it is in the feeds, and this owner does not copy it
 * again; what follows it in its aggregate goes on. */
static void leave_out(Feeder *feeder, const Event *event, bool copied, const Failure *failure) {
  report_refused(feeder->watch, feeder->metrics,
                 copied ? "event cannot be marked as copied into the feeds"
                        : "waiting event cannot be copied into the feeds",
                 event, failure);
  if (copied)
    g_hash_table_insert(feeder->unmarkable, hash_of(event), this_second());
  else
    g_hash_table_add(feeder->refused, aggregate_of(event));
}

static bool is_mark_due(Feeder *feeder, const Event *event) {
  gpointer tried;
  return g_hash_table_lookup_extended(feeder->unmarkable, hash_of(event), NULL, &tried) &&
         GPOINTER_TO_INT(this_second()) - GPOINTER_TO_INT(tried) >= MARK_AGAIN_S;
}

/* What MongoDB refused may have been for a moment. */
static bool mark_again(Feeder *feeder, Event *const *events, size_t count, unsigned *left,
                       Failure *ret_failure) {
  for (size_t i = 0; *left > 0 && i < count && !stop_requested(feeder->stop); i++) {
    if (!is_mark_due(feeder, events[i]))
      continue;
    bson_t ids = BSON_INITIALIZER;
    event_append_id(events[i], &ids, "0");
    bool good = feeds_mark(feeder->outbox, &ids, ret_failure);
    bson_destroy(&ids);
    --*left;
    if (good)
      g_hash_table_remove(feeder->unmarkable, hash_of(events[i]));
    else if (failure_is_refusal(ret_failure))
      g_hash_table_insert(feeder->unmarkable, hash_of(events[i]), this_second());
    else
      return false;
    *ret_failure = (Failure){0};
  }
  return true;
}

/* If MongoDB refuses events together, halving finds those that it refuses alone; in a stop nothing
 * more is copied, because it might follow what was not. */
static bool copy_some(Feeder *feeder, Event *const *events, size_t count, int64_t *copied_count,
                      Failure *ret_failure) {
  if (stop_requested(feeder->stop))
    return true;
  bson_t ids = BSON_INITIALIZER;
  uint32_t wanted = 0;
  int64_t marked = 0;
  bool copied = false;
  for (size_t i = 0; i < count; i++) {
    char buffer[16];
    const char *key;
    if (g_hash_table_contains(feeder->refused, aggregate_of(events[i])) ||
        g_hash_table_contains(feeder->unmarkable, hash_of(events[i])))
      continue;
    bson_uint32_to_string(wanted++, &key, buffer, sizeof buffer);
    event_append_id(events[i], &ids, key);
  }
  bool good =
      wanted == 0 || feeds_copy_and_mark(feeder->outbox, &ids, &marked, &copied, ret_failure);
  bson_destroy(&ids);
  *copied_count += marked;
  if (good || !failure_is_refusal(ret_failure))
    return good;
  if (count == 1)
    leave_out(feeder, events[0], copied, ret_failure);
  *ret_failure = (Failure){0};
  return count == 1 ||
         (copy_some(feeder, events, count / 2, copied_count, ret_failure) &&
          copy_some(feeder, events + count / 2, count - count / 2, copied_count, ret_failure));
}

/* Copies what was there at that moment and still is. Events that have left the outbox since were
 * copied on the way. */
static bool copy_since(Feeder *feeder, const Moment *moment, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = feeds_find(feeder->outbox, moment);
  int64_t acknowledged = count_acknowledged(feeder);
  unsigned marks = MARKS_MOST;
  bool more = true, good = true;
  g_hash_table_remove_all(feeder->refused);
  while (more && good && !stop_requested(feeder->stop)) {
    g_autoptr(GPtrArray) page = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    int64_t copied = 0;
    more = read_page(feeder, cursor, page, ret_failure);
    good = ret_failure->class == FAILURE_NONE &&
           mark_again(feeder, (Event *const *)page->pdata, page->len, &marks, ret_failure) &&
           copy_some(feeder, (Event *const *)page->pdata, page->len, &copied, ret_failure);
    int64_t before = acknowledged;
    acknowledged = count_acknowledged(feeder);
    more &= copied == 0 || acknowledged == before;
  }
  return good;
}

static bool look(Feeder *feeder, Failure *ret_failure) {
  bool any;
  Moment now, before = feeder->before;
  feeder->before = (Moment){0};
  if (!feeds_look(feeder->outbox, &any, &now, ret_failure) ||
      (any && before.seconds && !copy_since(feeder, &before, ret_failure)) ||
      (!any && !forget_marked(feeder, ret_failure)))
    return false;
  if (!any)
    g_hash_table_remove_all(feeder->unmarkable);
  feeder->before = now;
  return true;
}

/* Returns the ms until the next. */
static int64_t step(Feeder *feeder) {
  Failure failure = {0};
  int64_t begun = clock_us();
  pulse_begin(&feeder->pulse);
  bool good = look(feeder, &failure);
  pulse_end(&feeder->pulse);
  if (!good && !stop_requested(feeder->stop)) {
    log_failure(LOG_LEVEL_WARNING, "cannot copy waiting events into the feeds", &failure);
    if (failure.class == FAILURE_CONFIG)
      stop_request(feeder->stop, &failure);
  }
  int64_t pause_ms = (clock_us() - begun) * SHARE / 1000;
  return good ? CLAMP(pause_ms, LOOK_MS, REST_MAX_MS) : LOOK_MS;
}

static gpointer run(gpointer data) {
  Feeder *feeder = data;
  while (!stop_wait(feeder->stop, step(feeder)))
    ;
  return NULL;
}

Feeder *feeder_new(MongoStore *store, const char *owner, Stop *stop, Watch *watch,
                   Metrics *metrics) {
  const char *const *feeds = mongo_store_settings(store)->feeds;
  if (!feeds || !*feeds)
    return NULL;
  Feeder *feeder = g_new0(Feeder, 1);
  feeder->outbox = outbox_new(store, owner);
  feeder->stop = stop;
  feeder->watch = watch;
  feeder->metrics = metrics;
  feeder->marked = g_hash_table_new(NULL, NULL);
  feeder->refused = g_hash_table_new(NULL, NULL);
  feeder->unmarkable = g_hash_table_new(NULL, NULL);
  g_mutex_init(&feeder->lock);
  return feeder;
}

void feeder_start(Feeder *feeder) {
  if (feeder)
    feeder->thread = g_thread_new("feeder", run, feeder);
}

Pulse *feeder_pulse(Feeder *feeder) {
  return feeder ? &feeder->pulse : NULL;
}

void feeder_free(Feeder *feeder) {
  if (!feeder)
    return;
  if (feeder->thread)
    g_thread_join(feeder->thread);
  outbox_free(feeder->outbox);
  g_hash_table_unref(feeder->marked);
  g_hash_table_unref(feeder->refused);
  g_hash_table_unref(feeder->unmarkable);
  g_mutex_clear(&feeder->lock);
  g_free(feeder);
}

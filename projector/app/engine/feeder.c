/* feeder.c - the thread that copies into the feeds. */
#include "projector/app/engine/feeder.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/feeds.h"

enum {
  LOOK_MS = 1000,
  SHARE = 10, /* if looking takes long, it takes at most one part in so many of the time */
  MARKED_MAX =
      100000, /* hashes that are kept; if there are more, each event is read again for its copy */
};

struct Feeder {
  Outbox *outbox;
  Stop *stop;
  GThread *thread;
  Moment before; /* of the last look */
  GMutex lock;
  GHashTable *marked;   /* hashes of the ids that have been marked and may still be in memory */
  bool marked_many;     /* more than MARKED_MAX */
  int64_t acknowledged; /* events, so far */
};

bool feeder_has_marked_none(Feeder *feeder, Event *const *events, size_t count) {
  if (!feeder)
    return true;
  SCOPED_LOCK(&feeder->lock);
  feeder->acknowledged += (int64_t)count;
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

/* The next page of ids, empty at the end. Returns whether more may follow. */
static bool read_page(Feeder *feeder, EventCursor *cursor, bson_t *ids, Failure *ret_failure) {
  const bson_t *document = NULL;
  uint32_t count = 0;
  while (count < FEED_PAGE && (document = event_cursor_next(cursor, ret_failure))) {
    char buffer[16];
    const char *key;
    g_autoptr(Event) event = event_decode(document);
    bson_uint32_to_string(count++, &key, buffer, sizeof buffer);
    event_append_id(event, ids, key);
    note_marked(feeder, &event->key.event_id);
  }
  return document != NULL;
}

/* Copies what was there at that moment and still is. Events that have left the outbox since were
 * copied on the way. */
static bool copy_since(Feeder *feeder, const Moment *moment, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = feeds_find(feeder->outbox, moment);
  int64_t acknowledged = count_acknowledged(feeder);
  bool more = true;
  while (more && !stop_requested(feeder->stop)) {
    bson_t ids = BSON_INITIALIZER;
    int64_t copied = 0;
    more = read_page(feeder, cursor, &ids, ret_failure);
    if (ret_failure->class == FAILURE_NONE && !bson_empty(&ids))
      more &= feeds_copy_and_mark(feeder->outbox, &ids, &copied, ret_failure);
    bson_destroy(&ids);
    int64_t before = acknowledged;
    acknowledged = count_acknowledged(feeder);
    more &= copied == 0 || acknowledged == before;
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool look(Feeder *feeder, Failure *ret_failure) {
  bool any;
  Moment now, before = feeder->before;
  feeder->before = (Moment){0};
  if (!feeds_look(feeder->outbox, &any, &now, ret_failure) ||
      (any && before.seconds && !copy_since(feeder, &before, ret_failure)) ||
      (!any && !forget_marked(feeder, ret_failure)))
    return false;
  feeder->before = now;
  return true;
}

/* Returns the ms until the next. */
static int64_t step(Feeder *feeder) {
  Failure failure = {0};
  int64_t begun = clock_us();
  if (!look(feeder, &failure) && !stop_requested(feeder->stop)) {
    log_failure(LOG_LEVEL_WARNING, "cannot copy waiting events into the feeds", &failure);
    if (failure.class == FAILURE_CONFIG)
      stop_request(feeder->stop, &failure);
  }
  int64_t pause_ms = (clock_us() - begun) * SHARE / 1000;
  return MAX(LOOK_MS, pause_ms);
}

static gpointer run(gpointer data) {
  Feeder *feeder = data;
  while (!stop_wait(feeder->stop, step(feeder)))
    ;
  return NULL;
}

Feeder *feeder_new(MongoStore *store, const char *owner, Stop *stop) {
  const char *const *feeds = mongo_store_settings(store)->feeds;
  if (!feeds || !*feeds)
    return NULL;
  Feeder *feeder = g_new0(Feeder, 1);
  feeder->outbox = outbox_new(store, owner);
  feeder->stop = stop;
  feeder->marked = g_hash_table_new(NULL, NULL);
  g_mutex_init(&feeder->lock);
  return feeder;
}

void feeder_start(Feeder *feeder) {
  if (feeder)
    feeder->thread = g_thread_new("feeder", run, feeder);
}

void feeder_free(Feeder *feeder) {
  if (!feeder)
    return;
  if (feeder->thread)
    g_thread_join(feeder->thread);
  outbox_free(feeder->outbox);
  g_hash_table_unref(feeder->marked);
  g_mutex_clear(&feeder->lock);
  g_free(feeder);
}

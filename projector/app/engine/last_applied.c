/* last_applied.c - the last event, and since when MySQL does not have it. */
#include "projector/app/engine/last_applied.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

#include <string.h>

enum { PATIENCE_MS = 5000 };

struct LastApplied {
  const Config *config;
  GMutex lock;           /* of what follows */
  GArray *events;        /* LastCommit, by the number of the worker; at_ms 0: none */
  int64_t missing_since; /* monotonic, us; 0: they were there */
};

LastApplied *last_applied_new(const Config *config) {
  LastApplied *last = g_new0(LastApplied, 1);
  last->config = config;
  last->events = g_array_new(FALSE, TRUE, sizeof(LastCommit));
  g_mutex_init(&last->lock);
  return last;
}

void last_applied_free(LastApplied *last) {
  if (!last)
    return;
  g_array_unref(last->events);
  g_mutex_clear(&last->lock);
  g_free(last);
}

static void put(LastApplied *last, unsigned worker, const LastCommit *event) {
  SCOPED_LOCK(&last->lock);
  if (worker >= last->events->len)
    g_array_set_size(last->events, worker + 1);
  g_array_index(last->events, LastCommit, worker) = *event;
  last->missing_since = 0;
}

static void note(LastApplied *last, unsigned worker, const Event *event, int64_t now_ms) {
  LastCommit noted = {.kind = event->key.event_id.kind, .at_ms = now_ms};
  size_t length = id_text(&event->key.event_id, noted.event_id);
  if (!memchr(noted.event_id, '\0', length)) /* else it is no C string */
    put(last, worker, &noted);
}

void last_applied_note(LastApplied *last, unsigned worker, const Item *items, size_t count,
                       int64_t now_ms) {
  while (count-- > 0)
    if (verdict_outcome(items[count].verdict)) {
      note(last, worker, items[count].event, now_ms);
      return;
    }
}

void last_applied_note_known(LastApplied *last, unsigned worker, const Item *items, size_t count,
                             int64_t now_ms) {
  while (count-- > 0)
    if (items[count].verdict == VERDICT_KNOWN) {
      note(last, worker, items[count].event, now_ms);
      return;
    }
}

void last_applied_set(LastApplied *last, const LastCommit *event) {
  SCOPED_LOCK(&last->lock);
  g_array_set_size(last->events, 0);
  if (event)
    g_array_append_val(last->events, *event);
  last->missing_since = 0;
}

LastCommit last_applied_get(LastApplied *last) {
  LastCommit newest = {0};
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->events->len; i++) {
    const LastCommit *one = &g_array_index(last->events, LastCommit, i);
    if (one->at_ms > newest.at_ms)
      newest = *one;
  }
  return newest;
}

void last_applied_forget(LastApplied *last, const Id *event_id) {
  char text[ID_TEXT_SIZE];
  id_text(event_id, text);
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->events->len; i++) {
    LastCommit *one = &g_array_index(last->events, LastCommit, i);
    if (one->kind == event_id->kind && !strcmp(text, one->event_id))
      *one = (LastCommit){0};
  }
}

static bool may_be_pruned(const Config *config, const LastCommit *event, int64_t now_ms) {
  return now_ms - event->at_ms >= config->settings.ledger_retention_s * 1000 / 2;
}

/* How long it has been missing, in us. */
static int64_t note_missing(LastApplied *last, bool missing) {
  int64_t now = clock_us();
  SCOPED_LOCK(&last->lock);
  if (!missing)
    last->missing_since = 0;
  else if (last->missing_since == 0)
    last->missing_since = now;
  return missing ? now - last->missing_since : 0;
}

/* One of them that the ledger does not have; `ret_lost->at_ms` 0: none. */
static bool look_for_all(const LastApplied *last, const GArray *events, Session *session,
                         int64_t now_ms, LastCommit *ret_lost, Failure *ret_failure) {
  for (guint i = 0; i < events->len && ret_lost->at_ms == 0; i++) {
    const LastCommit *event = &g_array_index(events, LastCommit, i);
    bool lost = false;
    if (event->at_ms == 0 || may_be_pruned(last->config, event, now_ms))
      continue;
    if (!loss_look(session, last->config->name, event, &lost, ret_failure))
      return false;
    if (lost)
      *ret_lost = *event;
  }
  return true;
}

bool last_applied_check(LastApplied *last, Session *session, int64_t now_ms, Failure *ret_failure) {
  LastCommit lost = {0};
  g_mutex_lock(&last->lock);
  g_autoptr(GArray) events = g_array_copy(last->events);
  g_mutex_unlock(&last->lock);
  if (!look_for_all(last, events, session, now_ms, &lost, ret_failure)) {
    bool locked = ret_failure->class == FAILURE_CONFLICT; /* what follows will meet the lock, too */
    if (locked)
      *ret_failure = (Failure){0};
    return locked;
  }
  int64_t missing_us = note_missing(last, lost.at_ms != 0);
  if (lost.at_ms == 0)
    return true;
  return missing_us < (int64_t)PATIENCE_MS * 1000
             ? failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MYSQL, 0,
                           "event %s was committed, but the ledger does not have it: a server "
                           "that lags, or that has lost it",
                           lost.event_id)
             : loss_of_event(&lost, ret_failure);
}

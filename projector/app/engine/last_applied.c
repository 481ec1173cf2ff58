/* last_applied.c - the last event, and since when MySQL does not have it. */
#include "projector/app/engine/last_applied.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

#include <string.h>

enum { PATIENCE_MS = 5000 };

enum { NOBODY = -1 };

typedef struct Note {
  int worker; /* NOBODY: of a former owner */
  LastCommit event;
} Note;

struct LastApplied {
  const Config *config;
  GMutex lock;           /* of what follows */
  GArray *notes;         /* of Note */
  int64_t missing_since; /* monotonic, us; 0: they were all there */
};

LastApplied *last_applied_new(const Config *config) {
  LastApplied *last = g_new0(LastApplied, 1);
  last->config = config;
  last->notes = g_array_new(FALSE, FALSE, sizeof(Note));
  g_mutex_init(&last->lock);
  return last;
}

void last_applied_free(LastApplied *last) {
  if (!last)
    return;
  g_array_unref(last->notes);
  g_mutex_clear(&last->lock);
  g_free(last);
}

/* With the lock. NULL: there is none. */
static Note *find(LastApplied *last, int worker) {
  for (guint i = 0; i < last->notes->len; i++)
    if (g_array_index(last->notes, Note, i).worker == worker)
      return &g_array_index(last->notes, Note, i);
  return NULL;
}

static void put(LastApplied *last, int worker, const LastCommit *event) {
  const Note noted = {worker, *event};
  SCOPED_LOCK(&last->lock);
  Note *before = worker == NOBODY ? NULL : find(last, worker);
  if (before)
    *before = noted;
  else
    g_array_append_val(last->notes, noted);
  last->missing_since = 0;
}

static void note(LastApplied *last, unsigned worker, const Event *event, int64_t now_ms) {
  LastCommit noted = {.kind = event->key.event_id.kind, .at_ms = now_ms};
  size_t length = id_text(&event->key.event_id, noted.event_id);
  if (!memchr(noted.event_id, '\0', length)) /* else it is no C string */
    put(last, (int)worker, &noted);
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

static bool is_same(const LastCommit *a, IdKind kind, const char *event_id) {
  return a->kind == kind && !strcmp(a->event_id, event_id);
}

static bool has(LastApplied *last, const LastCommit *event) {
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->notes->len; i++)
    if (is_same(&g_array_index(last->notes, Note, i).event, event->kind, event->event_id))
      return true;
  return false;
}

void last_applied_add(LastApplied *last, const LastCommit *event) {
  if (!has(last, event))
    put(last, NOBODY, event);
}

void last_applied_set(LastApplied *last, const LastCommit *event) {
  g_mutex_lock(&last->lock);
  g_array_set_size(last->notes, 0);
  last->missing_since = 0;
  g_mutex_unlock(&last->lock);
  if (event)
    last_applied_add(last, event);
}

LastCommit last_applied_get(LastApplied *last) {
  LastCommit newest = {0};
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->notes->len; i++) {
    const LastCommit *one = &g_array_index(last->notes, Note, i).event;
    if (one->at_ms > newest.at_ms)
      newest = *one;
  }
  return newest;
}

LastCommit last_applied_of(LastApplied *last, unsigned worker) {
  SCOPED_LOCK(&last->lock);
  const Note *note = find(last, (int)worker);
  return note ? note->event : (LastCommit){0};
}

void last_applied_forget(LastApplied *last, const Id *event_id) {
  char text[ID_TEXT_SIZE];
  id_text(event_id, text);
  SCOPED_LOCK(&last->lock);
  for (guint i = last->notes->len; i-- > 0;) {
    if (is_same(&g_array_index(last->notes, Note, i).event, event_id->kind, text))
      g_array_remove_index_fast(last->notes, i);
  }
}

static bool may_be_pruned(const Config *config, const LastCommit *event, int64_t now_ms) {
  return now_ms - event->at_ms >= config->settings.ledger_retention_s * 1000 / 2;
}

bool last_applied_is_missing(LastApplied *last) {
  SCOPED_LOCK(&last->lock);
  return last->missing_since != 0;
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
static bool look_for_all(const LastApplied *last, const GArray *notes, Session *session,
                         int64_t now_ms, LastCommit *ret_lost, Failure *ret_failure) {
  for (guint i = 0; i < notes->len && ret_lost->at_ms == 0; i++) {
    const LastCommit *event = &g_array_index(notes, Note, i).event;
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
  g_autoptr(GArray) notes = g_array_copy(last->notes);
  g_mutex_unlock(&last->lock);
  if (!look_for_all(last, notes, session, now_ms, &lost, ret_failure)) {
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

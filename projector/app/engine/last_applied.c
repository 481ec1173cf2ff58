/* last_applied.c - the last event, and since when MySQL does not have it. */
#include "projector/app/engine/last_applied.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

#include <string.h>

enum { PATIENCE_MS = 5000, NOBODY = -1 };

typedef struct Note {
  int worker; /* NOBODY: of a former owner */
  LastCommit event;
  LastCommit doubtful;   /* of a COMMIT that was not answered; at_ms 0: none */
  int64_t missing_since; /* the event; monotonic, us; 0: it was there */
} Note;

struct LastApplied {
  const Config *config;
  GMutex lock;   /* of what follows */
  GArray *notes; /* of Note */
  int64_t entered;
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

static bool is_same(const LastCommit *a, IdKind kind, const char *event_id) {
  return a->kind == kind && !strcmp(a->event_id, event_id);
}

/* With the lock. */
static Note *open_note(LastApplied *last, int worker) {
  const Note none = {.worker = worker};
  Note *note = worker == NOBODY ? NULL : find(last, worker);
  if (note)
    return note;
  g_array_append_val(last->notes, none);
  return &g_array_index(last->notes, Note, last->notes->len - 1);
}

/* The last one that the transaction has entered into the ledger; at_ms 0: none, or no C string. */
static LastCommit last_entered(const Item *items, size_t count, int64_t now_ms) {
  LastCommit entered = {0};
  while (count-- > 0) {
    const Id *id = &items[count].event->key.event_id;
    if (!verdict_outcome(items[count].verdict))
      continue;
    entered.kind = id->kind;
    size_t length = id_text(id, entered.event_id);
    entered.at_ms = memchr(entered.event_id, '\0', length) ? 0 : now_ms;
    break;
  }
  return entered;
}

void last_applied_note(LastApplied *last, unsigned worker, const Item *items, size_t count,
                       int64_t now_ms) {
  LastCommit entered = last_entered(items, count, now_ms);
  SCOPED_LOCK(&last->lock);
  if (entered.at_ms != 0)
    *open_note(last, (int)worker) = (Note){.worker = (int)worker, .event = entered};
  for (size_t i = 0; i < count; i++)
    last->entered += verdict_outcome(items[i].verdict) != NULL;
}

int64_t last_applied_entered(LastApplied *last) {
  SCOPED_LOCK(&last->lock);
  return last->entered;
}

void last_applied_doubt(LastApplied *last, unsigned worker, const Item *items, size_t count,
                        int64_t now_ms) {
  LastCommit entered = last_entered(items, count, now_ms);
  SCOPED_LOCK(&last->lock);
  open_note(last, (int)worker)->doubtful = entered;
}

void last_applied_settle(LastApplied *last, unsigned worker, const Item *items, size_t count) {
  SCOPED_LOCK(&last->lock);
  Note *note = find(last, (int)worker);
  for (size_t i = 0; i < count && note && note->doubtful.at_ms != 0; i++) {
    char text[ID_TEXT_SIZE];
    const Id *id = &items[i].event->key.event_id;
    id_text(id, text);
    if (items[i].verdict == VERDICT_KNOWN && is_same(&note->doubtful, id->kind, text))
      *note = (Note){.worker = note->worker, .event = note->doubtful};
  }
}

static bool has(LastApplied *last, const LastCommit *event) {
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->notes->len; i++)
    if (is_same(&g_array_index(last->notes, Note, i).event, event->kind, event->event_id))
      return true;
  return false;
}

void last_applied_add(LastApplied *last, const LastCommit *event) {
  if (has(last, event))
    return;
  SCOPED_LOCK(&last->lock);
  *open_note(last, NOBODY) = (Note){.worker = NOBODY, .event = *event};
}

void last_applied_set(LastApplied *last, const LastCommit *event) {
  g_mutex_lock(&last->lock);
  g_array_set_size(last->notes, 0);
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
  bool missing = false;
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->notes->len; i++)
    missing |= g_array_index(last->notes, Note, i).missing_since != 0;
  return missing;
}

void last_applied_keep_missing(LastApplied *last) {
  SCOPED_LOCK(&last->lock);
  for (guint i = last->notes->len; i-- > 0;)
    if (g_array_index(last->notes, Note, i).missing_since == 0)
      g_array_remove_index_fast(last->notes, i);
}

/* What a look has found; how long the event has been missing, in us. */
static int64_t note_look(LastApplied *last, const LastCommit *event, bool missing) {
  int64_t now = clock_us(), missing_us = 0;
  SCOPED_LOCK(&last->lock);
  for (guint i = 0; i < last->notes->len; i++) {
    Note *note = &g_array_index(last->notes, Note, i);
    if (!is_same(&note->event, event->kind, event->event_id))
      continue;
    note->missing_since = !missing ? 0 : note->missing_since ? note->missing_since : now;
    missing_us = missing ? now - note->missing_since : 0;
  }
  return missing_us;
}

/* One of them that the ledger does not have, and for how long; `ret_lost->at_ms` 0: none. */
static bool look_for_all(LastApplied *last, Session *session, int64_t now_ms, LastCommit *ret_lost,
                         int64_t *ret_missing_us, Failure *ret_failure) {
  g_mutex_lock(&last->lock);
  g_autoptr(GArray) notes = g_array_copy(last->notes);
  g_mutex_unlock(&last->lock);
  for (guint i = 0; i < notes->len && ret_lost->at_ms == 0; i++) {
    const LastCommit *event = &g_array_index(notes, Note, i).event;
    bool lost = false;
    if (event->at_ms == 0 || may_be_pruned(last->config, event, now_ms))
      continue;
    if (!loss_look(session, last->config->name, event, &lost, ret_failure))
      return false;
    *ret_missing_us = note_look(last, event, lost);
    if (lost)
      *ret_lost = *event;
  }
  return true;
}

bool last_applied_check(LastApplied *last, Session *session, int64_t now_ms, Failure *ret_failure) {
  LastCommit lost = {0};
  int64_t missing_us = 0;
  if (!look_for_all(last, session, now_ms, &lost, &missing_us, ret_failure)) {
    bool locked = ret_failure->class == FAILURE_CONFLICT; /* what follows will meet the lock, too */
    if (locked)
      *ret_failure = (Failure){0};
    return locked;
  }
  if (lost.at_ms == 0)
    return true;
  return missing_us < (int64_t)PATIENCE_MS * 1000
             ? failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MYSQL, 0,
                           "event %s was committed, but the ledger does not have it: a server "
                           "that lags, or that has lost it",
                           lost.event_id)
             : loss_of_event(&lost, ret_failure);
}

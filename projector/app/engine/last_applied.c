/* last_applied.c - the last event, and since when MySQL does not have it. */
#include "projector/app/engine/last_applied.h"

#include "projector/infra/clock.h"
#include "projector/infra/lock.h"

#include <string.h>

enum { PATIENCE_MS = 5000 };

struct LastApplied {
  const Config *config;
  GMutex lock; /* of what follows */
  LastCommit event;
  int64_t missing_since; /* monotonic, us; 0: it was there */
};

LastApplied *last_applied_new(const Config *config) {
  LastApplied *last = g_new0(LastApplied, 1);
  last->config = config;
  g_mutex_init(&last->lock);
  return last;
}

void last_applied_free(LastApplied *last) {
  if (!last)
    return;
  g_mutex_clear(&last->lock);
  g_free(last);
}

/* One that the transaction has entered into the ledger. NULL: there is none. */
static const Event *last_entered(const Item *items, size_t count) {
  while (count-- > 0)
    if (verdict_outcome(items[count].verdict))
      return items[count].event;
  return NULL;
}

void last_applied_note(LastApplied *last, const Item *items, size_t count, int64_t now_ms) {
  const Event *event = last_entered(items, count);
  LastCommit noted = {.at_ms = now_ms};
  if (!event)
    return;
  noted.kind = event->key.event_id.kind;
  size_t length = id_text(&event->key.event_id, noted.event_id);
  if (memchr(noted.event_id, '\0', length)) /* then it is no C string */
    return;
  last_applied_set(last, &noted);
}

void last_applied_set(LastApplied *last, const LastCommit *event) {
  SCOPED_LOCK(&last->lock);
  last->event = event ? *event : (LastCommit){0};
  last->missing_since = 0;
}

LastCommit last_applied_get(LastApplied *last) {
  SCOPED_LOCK(&last->lock);
  return last->event;
}

bool last_applied_is(LastApplied *last, const Id *event_id) {
  LastCommit event = last_applied_get(last);
  char text[ID_TEXT_SIZE];
  id_text(event_id, text);
  return event.at_ms != 0 && event.kind == event_id->kind && !strcmp(text, event.event_id);
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

bool last_applied_check(LastApplied *last, Session *session, int64_t now_ms, Failure *ret_failure) {
  LastCommit event = last_applied_get(last);
  bool lost;
  if (event.at_ms == 0 || may_be_pruned(last->config, &event, now_ms))
    return true;
  if (!loss_look(session, last->config->name, &event, &lost, ret_failure)) {
    bool locked = ret_failure->class == FAILURE_CONFLICT; /* what follows will meet the lock, too */
    if (locked)
      *ret_failure = (Failure){0};
    return locked;
  }
  int64_t missing_us = note_missing(last, lost);
  if (lost && missing_us < (int64_t)PATIENCE_MS * 1000)
    return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MYSQL, 0,
                       "event %s was committed, but the ledger does not have it: a server that "
                       "lags, or that has lost it",
                       event.event_id);
  return !lost || loss_of_event(&event, ret_failure);
}

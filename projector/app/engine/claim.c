/* claim.c - the claim step: says in MongoDB what this worker is about to apply.
 *
 * Most events are pending and new: they are claimed together, in one document of the worker. What
 * was attempted before, or may be another's, is claimed in its own document, by compare-and-set. */
#include "projector/app/engine/steps.h"

#include "projector/domain/claim.h"

enum {
  TAKEN_WAIT_MS = 50, /* pause before looking again at an event that another has claimed */
};

/* --- is it still so? ------------------------------------------------------------------------- */

/* An id that is none stands for no single document, and its event only has to be marked. */
static bool may_be_outdated(const Worker *worker, const QueuedEvent *queued) {
  return claim_is_outdated(queued->read_at, worker->stalled_until) &&
         queued->event->key.event_id.kind != ID_OTHER;
}

/* Events read before the worker stalled may have been deleted, retried or taken since; and a second
 * scan of the outbox may have begun before an event in it was acknowledged. What has changed is
 * read as a whole, later. */
static bool look_again(Worker *worker, QueuedEvent *const *events, size_t count, Claim *claims,
                       Failure *ret_failure) {
  g_autofree const Id **ids = g_new(const Id *, count);
  g_autoptr(GHashTable) index_of = g_hash_table_new(id_hash_key, id_equal_key);
  size_t outdated = 0;
  for (size_t i = 0; i < count; i++) {
    claims[i] = CLAIM_OURS;
    events[i]->marked = false;
    if (!may_be_outdated(worker, events[i]))
      continue;
    claims[i] = CLAIM_GONE;
    ids[outdated++] = &events[i]->event->key.event_id;
    g_hash_table_insert(index_of, &events[i]->event->key.event_id, GSIZE_TO_POINTER(i + 1));
  }
  if (outdated == 0)
    return true;
  g_autoptr(EventCursor) cursor = outbox_find_events(worker->outbox, ids, outdated);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) found = event_decode(document);
    size_t at = GPOINTER_TO_SIZE(g_hash_table_lookup(index_of, &found->key.event_id));
    if (at == 0)
      continue;
    Event *read = events[at - 1]->event;
    if (events[at - 1]->left_failed)
      read->status = STATUS_FAILED;
    events[at - 1]->left_failed = false;
    claims[at - 1] = claim_has_changed(read, found) ? CLAIM_TAKEN : CLAIM_OURS;
    read->status = found->status;
    /* In progress: a claim of ours whose answer was lost has already counted this attempt. */
    read->attempts = MAX(found->attempts - (found->status == STATUS_IN_PROGRESS), 0);
  }
  return ret_failure->class == FAILURE_NONE;
}

/* --- in their own documents ------------------------------------------------------------------- */

/* One by one, after MongoDB has refused them together: an event that cannot be marked holds up only
 * its own aggregate, and is retried later. */
static bool claim_each(Worker *worker, Event **events, size_t count, Claim *claims,
                       Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    *ret_failure = (Failure){0};
    if (outbox_claim(worker->outbox, &events[i], 1, &claims[i], ret_failure))
      continue;
    if (!failure_is_refusal(ret_failure))
      return false;
    report_refused(worker->lanes->watch, worker->metrics, "event cannot be claimed", events[i],
                   ret_failure);
    claims[i] = CLAIM_REFUSED;
  }
  return true;
}

/* Claims, each in its own document, the events that are not claimed by the batch. */
static bool claim_apart(Worker *worker, QueuedEvent *const *events, size_t count, Claim *claims,
                        Failure *ret_failure) {
  g_autofree Event **apart = g_new(Event *, count);
  g_autofree size_t *index = g_new(size_t, count);
  g_autofree Claim *won = g_new0(Claim, count);
  size_t apart_count = 0;
  for (size_t i = 0; i < count; i++)
    if (claims[i] == CLAIM_OURS &&
        (worker->claims_apart || !claim_goes_by_batch(events[i]->event))) {
      index[apart_count] = i;
      apart[apart_count++] = events[i]->event;
    }
  if (apart_count == 0)
    return true;
  if (!outbox_claim(worker->outbox, apart, apart_count, won, ret_failure) &&
      !(failure_is_refusal(ret_failure) &&
        claim_each(worker, apart, apart_count, won, ret_failure)))
    return false;
  for (size_t i = 0; i < apart_count; i++) {
    claims[index[i]] = won[i];
    events[index[i]]->marked = won[i] == CLAIM_OURS;
  }
  return true;
}

/* An event that is gone is settled. One that another has taken holds its aggregate: a frozen
 * earlier owner may still claim when it wakes up, and gives the event back when MySQL's fence stops
 * it. */
static void let_go(Worker *worker, QueuedEvent *queued, Claim won) {
  if (won == CLAIM_GONE) {
    lane_settle(worker->lane, queued);
    return;
  }
  if (event_has_aggregate(queued->event))
    lane_hold(worker->lane, queued, HOLD_TAKEN,
              won == CLAIM_REFUSED ? UNCOUNTED_RETRY_MS : TAKEN_WAIT_MS);
  lane_forget(worker->lane, queued);
}

/* --- by the batch ----------------------------------------------------------------------------- */

/* Claims the other events by the batch; from now on the marker watches them. */
static bool claim_batch(Worker *worker, const Item *items, size_t count, Failure *ret_failure) {
  g_autofree QueuedEvent **batch = g_new(QueuedEvent *, count);
  const ClaimKey key = claim_key(worker);
  size_t batch_count = 0;
  for (size_t i = 0; i < count; i++)
    if (!queued_of(&items[i])->marked)
      batch[batch_count++] = queued_of(&items[i]);
  if (batch_count == 0)
    return true;
  g_autofree Event **events = queued_events_bare(batch, batch_count);
  const LastCommit last = last_applied_of(worker->lanes->last_applied, worker->number);
  worker->claims_batch = true; /* even if the answer is lost */
  if (!claims_write(worker->outbox, &key, events, batch_count, &last, ret_failure))
    return false;
  hand_take(worker->hand, batch, batch_count);
  return true;
}

void end_claims(Worker *worker) {
  const ClaimKey key = claim_key(worker);
  Failure ignored; /* the next worker finds these events in the ledger */
  claims_remove(worker->outbox, &key, &ignored);
}

/* The user has the privileges of an earlier version. Claiming apart is slower, and as safe. */
static bool change_to_apart(Worker *worker, const Failure *failure) {
  if (worker->claims_apart || !claims_are_forbidden(failure))
    return false;
  log_failure(LOG_LEVEL_WARNING,
              "events are claimed one by one, which takes twice as long: the user may not write to "
              "projector_claims",
              failure);
  worker->claims_apart = true;
  worker->claims_batch = false; /* it was refused: there is nothing to take back */
  return true;
}

/* --- the step --------------------------------------------------------------------------------- */

/* Those that are not marked too: a hold may have been opened before them meanwhile. */
static bool begin_later(Worker *worker, QueuedEvent *const *events, size_t count) {
  for (size_t i = 0; i < count; i++)
    events[i]->read_at = 0;
  give_back(worker, events, count);
  return false;
}

bool claim(Worker *worker, QueuedEvent **events, size_t count, Item *items, size_t *ret_count,
           Failure *ret_failure) {
  g_autofree Claim *claims = g_new0(Claim, count);
  g_autofree QueuedEvent **back = g_new(QueuedEvent *, count);
  size_t ours = 0, kept = 0, back_count = 0;
  for (size_t i = 0; i < count; i++) /* otherwise two workers could work on one aggregate */
    g_assert(lane_of(worker->lanes, events[i]->event->aggregate_hash) == worker->lane);
  if (!look_again(worker, events, count, claims, ret_failure) ||
      !claim_apart(worker, events, count, claims, ret_failure))
    return begin_later(worker, events, count);
  for (size_t i = 0; i < count; i++)
    if (claims[i] == CLAIM_OURS)
      events[kept++] = events[i];
    else
      let_go(worker, events[i], claims[i]);
  for (size_t i = 0; i < kept; i++)
    if (lane_is_behind_hold(worker->lane, events[i]->event))
      back[back_count++] = events[i];
    else
      items[ours++] = queued_event_begin(events[i]);
  if (!claim_batch(worker, items, ours, ret_failure))
    return change_to_apart(worker, ret_failure)
               ? claim(worker, events, kept, items, ret_count, ret_failure)
               : begin_later(worker, events, kept);
  give_back(worker, back, back_count);
  *ret_count = ours;
  return true;
}

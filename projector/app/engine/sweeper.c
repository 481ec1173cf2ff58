/* sweeper.c - finds out from the ledger how abandoned events ended. */
#include "projector/app/engine/sweeper.h"

#include "projector/domain/claim.h"
#include "projector/domain/plan.h"
#include "projector/infra/crash.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/claims.h"

enum { TOGETHER = 500 };

bool sweep_enter(Session *session, const Ledger *ledger, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) none = aggregate_set_new(arena);
  return session_run(session, ret_failure, "START TRANSACTION") &&
         ledger_enter(session, ledger, none, arena, ret_failure);
}

/* What MongoDB refuses is logged and left as it is. */
static bool leave_refused(const char *message, Failure *failure) {
  if (!failure_is_refusal(failure))
    return false;
  log_failure(LOG_LEVEL_WARNING, message, failure);
  *failure = (Failure){0};
  return true;
}

/* MongoDB refuses a copy. Pending events are read, found in the ledger, and come to the acker, who
 * finds out which of them it is. */
static bool leave_to_acker(Failure *failure) {
  return leave_refused("cannot take applied events out of the outbox together", failure);
}

/* What cannot even be made pending stays as it is until the next sweep: an owner begins without
 * it. */
static bool sweep_applied(const Sweep *with, Event *const *events, size_t count,
                          int64_t older_than_ms, Failure *ret_failure) {
  return outbox_sweep(with->outbox, events, count, SWEEP_ACKNOWLEDGE, older_than_ms, ret_failure) ||
         (leave_to_acker(ret_failure) &&
          (outbox_sweep(with->outbox, events, count, SWEEP_PENDING, older_than_ms, ret_failure) ||
           leave_refused("cannot release applied events in the outbox", ret_failure)));
}

/* --- what MongoDB may refuse ------------------------------------------------------------------ */

typedef bool (*SweepStep)(const Sweep *with, Event *const *events, size_t count,
                          int64_t older_than_ms, Failure *ret_failure);

static bool make_dead(const Sweep *with, Event *const *events, size_t count, int64_t older_than_ms,
                      Failure *ret_failure) {
  return outbox_sweep(with->outbox, events, count, SWEEP_DEAD, older_than_ms, ret_failure);
}

static bool unseize(const Sweep *with, Event *const *events, size_t count, int64_t older_than_ms,
                    Failure *ret_failure) {
  return outbox_sweep(with->outbox, events, count, SWEEP_UNSEIZE, older_than_ms, ret_failure);
}

static bool make_pending(const Sweep *with, Event *const *events, size_t count,
                         int64_t older_than_ms, Failure *ret_failure) {
  return outbox_sweep(with->outbox, events, count, SWEEP_PENDING, older_than_ms, ret_failure);
}

static bool count_attempt(const Sweep *with, Event *const *events, size_t count,
                          G_GNUC_UNUSED int64_t older_than_ms, Failure *ret_failure) {
  return claims_count_attempt(with->outbox, events, count, ret_failure);
}

/* Together; one by one if MongoDB refuses that, without those that it refuses alone: a document
 * that cannot be changed keeps no owner from its work on the others. */
static bool change(const Sweep *with, SweepStep apply, Event *const *events, size_t count,
                   int64_t older_than_ms, Failure *ret_failure) {
  if (apply(with, events, count, older_than_ms, ret_failure))
    return true;
  if (!failure_is_refusal(ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    *ret_failure = (Failure){0};
    if (apply(with, events + i, 1, older_than_ms, ret_failure))
      continue;
    char event[ID_TEXT_SIZE], message[ID_TEXT_SIZE + 64];
    id_text(&events[i]->key.event_id, event);
    g_snprintf(message, sizeof message, "an abandoned event cannot be swept: %s", event);
    if (!leave_refused(message, ret_failure))
      return false;
  }
  return true;
}

/* A command that died while it had seized an event has decided nothing about it. For the steps
 * after this one it is no longer abandoned, unless MongoDB refused the change. */
static bool sweep_entered(const Sweep *with, GPtrArray *events, int64_t older_than_ms,
                          Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, events->len);
  g_autofree Event **applied = g_new(Event *, events->len);
  g_autofree Event **spent = g_new(Event *, events->len);
  g_autofree Event **others = g_new(Event *, events->len);
  size_t applied_count = 0, spent_count = 0, other_count = 0;
  for (guint i = 0; i < events->len; i++)
    items[i].event = events->pdata[i];
  if (!ledger_find_known(with->session, with->ledger, items, events->len, ret_failure))
    return false;
  for (guint i = 0; i < events->len; i++)
    if (items[i].verdict == VERDICT_KNOWN)
      applied[applied_count++] = items[i].event;
    else if (claim_is_spent(items[i].event, with->config->settings.max_attempts))
      spent[spent_count++] = items[i].event;
    else
      others[other_count++] = items[i].event;
  crash_point("in_sweeper");
  return sweep_applied(with, applied, applied_count, older_than_ms, ret_failure) &&
         change(with, unseize, spent, spent_count, older_than_ms, ret_failure) &&
         change(with, unseize, others, other_count, older_than_ms, ret_failure) &&
         change(with, make_dead, spent, spent_count, older_than_ms, ret_failure) &&
         change(with, make_pending, others, other_count, older_than_ms, ret_failure);
}

static bool sweep_some(const Sweep *with, GPtrArray *events, int64_t older_than_ms,
                       Failure *ret_failure) {
  bool good = sweep_enter(with->session, with->ledger, ret_failure) &&
              sweep_entered(with, events, older_than_ms, ret_failure);
  session_rollback(with->session);
  return good;
}

/* Adds the event, unless a lane has it. */
static void add_unless_live(GPtrArray *events, const Lanes *lanes, const bson_t *document) {
  Event *event = event_decode(document);
  if (lane_knows(lane_of(lanes, event->aggregate_hash), &event->key.event_id))
    event_free(event);
  else
    g_ptr_array_add(events, event);
}

/* --- claims by the batch ---------------------------------------------------------------------- */

/* One page of a claim: applied events are acknowledged, for the others the attempt is counted.
 * Events in this owner's memory are its own: an earlier owner that claimed them was stopped by the
 * fence. */
static bool sweep_page(const Sweep *with, Event **events, size_t count, Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, count);
  g_autofree Event **applied = g_new(Event *, count);
  g_autofree Event **others = g_new(Event *, count);
  size_t item_count = 0, applied_count = 0, other_count = 0;
  for (size_t i = 0; i < count; i++)
    if (!lanes_know(with->lanes, &events[i]->key.event_id))
      items[item_count++].event = events[i];
  if (!ledger_find_known(with->session, with->ledger, items, item_count, ret_failure))
    return false;
  for (size_t i = 0; i < item_count; i++)
    if (items[i].verdict == VERDICT_KNOWN)
      applied[applied_count++] = items[i].event;
    else
      others[other_count++] = items[i].event;
  crash_point("in_claim_sweep");
  return (applied_count == 0 ||
          outbox_acknowledge(with->outbox, applied, applied_count, ret_failure) ||
          leave_to_acker(ret_failure)) &&
         change(with, count_attempt, others, other_count, 0, ret_failure);
}

static bool sweep_claim(const Sweep *with, const AbandonedClaim *claim, Failure *ret_failure) {
  Event **events = (Event **)claim->events->pdata;
  for (guint from = 0; from < claim->events->len; from += TOGETHER) {
    size_t count = MIN(TOGETHER, claim->events->len - from);
    bool good = sweep_enter(with->session, with->ledger, ret_failure) &&
                sweep_page(with, events + from, count, ret_failure);
    session_rollback(with->session);
    if (!good)
      return false;
  }
  crash_point("before_claim_forgotten");
  return claims_forget(with->outbox, claim, ret_failure);
}

/* What the workers of earlier owners committed before the batch that their claims name, later
 * perhaps than what the lease says. What is missing is told to the lease at the end of this tenure,
 * so that the next one waits for it, and then says that it is lost. */
static bool check_loss(const Sweep *with, const GPtrArray *claims, Failure *ret_failure) {
  LastApplied *last = with->lanes->last_applied;
  for (guint i = 0; i < claims->len; i++) {
    const AbandonedClaim *claim = claims->pdata[i];
    if (claim->committed.at_ms != 0)
      last_applied_add(last, &claim->committed);
  }
  if (last_applied_check(last, with->session, lanes_now_ms(with->lanes), ret_failure))
    return true;
  if (!last_applied_is_missing(last))
    return false;
  if (!with->config->settings.adopt) {
    last_applied_keep_missing(last);
    return false;
  }
  log_failure(LOG_LEVEL_WARNING, "continuing all the same, as --adopt says", ret_failure);
  *ret_failure = (Failure){0};
  last_applied_set(last, NULL);
  return true;
}

/* Sweeps what earlier owners had in hand. Their transactions have ended, because we hold the
 * fence. */
bool sweep_claims(const Sweep *with, int64_t *ret_found, Failure *ret_failure) {
  g_autoptr(GPtrArray) claims = g_ptr_array_new();
  *ret_found = 0;
  crash_point("before_sweep");
  if (!claims_find_abandoned(with->outbox, with->ledger->projector, with->ledger->epoch, claims,
                             ret_failure))
    return claims_are_forbidden(ret_failure);
  if (claims->len > 0 && !check_loss(with, claims, ret_failure))
    return false;
  for (guint i = 0; i < claims->len; i++) {
    const AbandonedClaim *claim = g_ptr_array_index(claims, i);
    if (!sweep_claim(with, claim, ret_failure))
      return false;
    *ret_found += claim->events->len;
  }
  return true;
}

/* --- claims in the events' own documents ------------------------------------------------------ */

bool sweep(const Sweep *with, int64_t older_than_ms, int64_t *ret_found, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_abandoned(with->outbox, older_than_ms);
  *ret_found = 0;
  for (;;) {
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    const bson_t *document = NULL;
    while (events->len < TOGETHER && (document = event_cursor_next(cursor, ret_failure)))
      add_unless_live(events, with->lanes, document);
    if (!document && ret_failure->class != FAILURE_NONE)
      return false;
    if (events->len > 0 && !sweep_some(with, events, older_than_ms, ret_failure))
      return false;
    *ret_found += events->len;
    if (!document)
      return true;
  }
}

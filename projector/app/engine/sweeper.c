/* sweeper.c - asks the ledger what became of abandoned events. */
#include "projector/app/engine/sweeper.h"

#include "projector/domain/plan.h"
#include "projector/infra/crash.h"

enum {
  TOGETHER = 500,
  PRUNE_STEPS = 200, /* in one sweep; then the next sweep goes on */
};

/* What is decided from the ledger is done while the fence is held: an owner that has lost the name
 * learns it here, and the next one cannot begin to claim in between. */
static bool enter(Session *session, const Ledger *ledger, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) none = aggregate_set_new(arena);
  return session_run(session, ret_failure, "START TRANSACTION") &&
         ledger_enter(session, ledger, none, arena, ret_failure);
}

static bool sweep_entered(const Config *config, Session *session, const Ledger *ledger,
                          Outbox *outbox, GPtrArray *events, int64_t older_than_ms,
                          Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, events->len);
  g_autofree Event **applied = g_new(Event *, events->len);
  g_autofree Event **spent = g_new(Event *, events->len);
  g_autofree Event **others = g_new(Event *, events->len);
  size_t applied_count = 0, spent_count = 0, other_count = 0;
  for (guint i = 0; i < events->len; i++)
    items[i].event = events->pdata[i];
  if (!ledger_find_known(session, ledger, items, events->len, ret_failure))
    return false;
  for (guint i = 0; i < events->len; i++)
    if (items[i].verdict == VERDICT_KNOWN)
      applied[applied_count++] = items[i].event;
    else if (items[i].event->attempts >= config->settings.max_attempts)
      spent[spent_count++] = items[i].event;
    else
      others[other_count++] = items[i].event;
  crash_point("in_sweeper");
  return outbox_sweep(outbox, applied, applied_count, SWEEP_ACKNOWLEDGE, older_than_ms,
                      ret_failure) &&
         outbox_sweep(outbox, spent, spent_count, SWEEP_DEAD, older_than_ms, ret_failure) &&
         outbox_sweep(outbox, others, other_count, SWEEP_PENDING, older_than_ms, ret_failure);
}

static bool sweep_some(const Config *config, Session *session, const Ledger *ledger, Outbox *outbox,
                       GPtrArray *events, int64_t older_than_ms, Failure *ret_failure) {
  bool good = enter(session, ledger, ret_failure) &&
              sweep_entered(config, session, ledger, outbox, events, older_than_ms, ret_failure);
  session_rollback(session);
  return good;
}

/* The event, unless a lane has it. */
static void add_unless_live(GPtrArray *events, const Lanes *lanes, const bson_t *document) {
  Event *event = event_decode(document);
  if (lane_knows(lane_of(lanes, event->aggregate_hash), &event->key.event_id))
    event_free(event);
  else
    g_ptr_array_add(events, event);
}

bool sweep(const Config *config, Session *session, const Ledger *ledger, Outbox *outbox,
           const Lanes *lanes, int64_t older_than_ms, int64_t *ret_found, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_abandoned(outbox, older_than_ms);
  *ret_found = 0;
  for (;;) {
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    const bson_t *document = NULL;
    while (events->len < TOGETHER && (document = event_cursor_next(cursor, ret_failure)))
      add_unless_live(events, lanes, document);
    if (!document && ret_failure->class != FAILURE_NONE)
      return false;
    if (events->len > 0 &&
        !sweep_some(config, session, ledger, outbox, events, older_than_ms, ret_failure))
      return false;
    *ret_found += events->len;
    if (!document)
      return true;
  }
}

static bool prune_some(const Config *config, Session *session, const Ledger *ledger, Outbox *outbox,
                       GArray *old, Arena *arena, Failure *ret_failure) {
  LedgerIds ids = {arena, old};
  return enter(session, ledger, ret_failure) &&
         ledger_find_old(session, ledger, config->settings.ledger_retention_s, TOGETHER, &ids,
                         ret_failure) &&
         outbox_remove_present(outbox, old, ret_failure) &&
         ledger_forget(session, ledger, old, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

bool prune(const Config *config, Session *session, const Ledger *ledger, Outbox *outbox,
           int64_t *ret_pruned, Failure *ret_failure) {
  *ret_pruned = 0;
  for (int step = 0; step < PRUNE_STEPS; step++) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(Id));
    bool good = prune_some(config, session, ledger, outbox, old, arena, ret_failure);
    session_rollback(session); /* after a COMMIT there is nothing to roll back */
    if (!good)
      return false;
    *ret_pruned += old->len;
    if (old->len == 0)
      return true;
  }
  return true;
}

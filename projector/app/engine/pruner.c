/* pruner.c - rounds through the old entries of the ledger. */
#include "projector/app/engine/pruner.h"

#include "projector/app/engine/owner_session.h"
#include "projector/app/engine/sweeper.h"
#include "projector/domain/rest.h"
#include "projector/domain/retention.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/outbox_lookup.h"

enum {
  PAGE = 200,
  IDLE_MS = 1000, /* after that its session may be about to end */
};

struct Pruner {
  const Config *config;
  const Ledger *ledger;
  Outbox *outbox;
  const Lanes *lanes;
  RetentionClock clock;
  bool forbidden;   /* the user has no right to delete from the ledger */
  bool pruning;     /* a round is under way */
  unsigned kept;    /* of the oldest entries: their events are in the outbox or in memory */
  int64_t next;     /* step; monotonic, us */
  Arrivals entered; /* into the ledger */
  int64_t pruned;   /* and not reported yet */
  Session *session;
};

static int64_t now_ms(Pruner *pruner) {
  return retention_now_ms(&pruner->clock, lanes_now_ms(pruner->lanes), clock_us() / 1000);
}

Pruner *pruner_new(const Config *config, const Ledger *ledger, Outbox *outbox, const Lanes *lanes) {
  Pruner *pruner = g_new0(Pruner, 1);
  *pruner = (Pruner){.config = config,
                     .ledger = ledger,
                     .outbox = outbox,
                     .lanes = lanes,
                     .clock = RETENTION_CLOCK_INIT};
  now_ms(pruner); /* a clock that is put ahead from now on counts for nothing */
  return pruner;
}

static void report(Pruner *pruner) {
  if (pruner->pruned > 0)
    log_info("pruned the ledger", LOG_FIELDS(LOG_NUMBER("entries", pruner->pruned)));
  pruner->pruned = 0;
}

void pruner_begin(Pruner *pruner) {
  now_ms(pruner);
  /* Some may be free by now; but not before it has come past those that are not. */
  if (!pruner->pruning || pruner->pruned > 0)
    pruner->kept = 0;
  report(pruner);
  if (pruner->pruning || pruner->forbidden)
    return;
  pruner->pruning = true;
  pruner->next = clock_us();
  arrivals_begin(&pruner->entered, pruner->next, last_applied_entered(pruner->lanes->last_applied));
}

void pruner_end(Pruner *pruner) {
  pruner->pruning = false;
  g_clear_pointer(&pruner->session, session_close);
  report(pruner);
}

void pruner_free(Pruner *pruner) {
  if (!pruner)
    return;
  pruner_end(pruner);
  g_free(pruner);
}

int64_t pruner_due_in(const Pruner *pruner) {
  int64_t left_us = pruner->next - clock_us();
  return !pruner->pruning ? DUE_NEVER : left_us <= 0 ? 0 : left_us / 1000 + 1;
}

/* An event in memory may have left the outbox already, and without its ledger entry it would be
 * applied again: majority reads may still show an event that was acknowledged just now. */
static void keep_known(const Pruner *pruner, GArray *ids) {
  for (guint i = ids->len; i-- > 0;)
    if (lanes_know(pruner->lanes, &g_array_index(ids, Id, i)))
      g_array_remove_index_fast(ids, i);
}

/* By a clock that was put right the entries of the events applied last may be old, too: without
 * them a new session would take the events for lost. */
static void forget_last_applied(const Pruner *pruner, const GArray *pruned) {
  for (guint i = 0; i < pruned->len; i++)
    last_applied_forget(pruner->lanes->last_applied, &g_array_index(pruned, Id, i));
}

static bool prune_page(Pruner *pruner, GArray *old, bool *ret_more, Failure *ret_failure) {
  Session *session = pruner->session;
  g_autoptr(Arena) arena = arena_new();
  LedgerIds ids = {arena, old};
  const LedgerAge age = {now_ms(pruner), pruner->config->settings.ledger_retention_s};
  if (!sweep_enter(session, pruner->ledger, ret_failure) ||
      !ledger_find_old(session, pruner->ledger, &age, pruner->kept, PAGE, &ids, ret_failure))
    return false;
  guint found = old->len;
  if (!outbox_remove_present(pruner->outbox, old, ret_failure))
    return false;
  keep_known(pruner, old);
  *ret_more = found == PAGE;
  pruner->kept += found - old->len;
  forget_last_applied(pruner, old);
  return ledger_forget(session, pruner->ledger, old, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

static bool ensure_session(Pruner *pruner, Failure *ret_failure) {
  if (pruner->session && session_idle_ms(pruner->session) > IDLE_MS)
    g_clear_pointer(&pruner->session, session_close);
  if (!pruner->session)
    pruner->session = owner_session_open(pruner->config, pruner->lanes, ret_failure);
  return pruner->session != NULL;
}

/* The projector's user may lack the privilege to delete from the ledger; then the operator prunes
 * it. */
static bool give_up(Pruner *pruner, Failure *failure) {
  pruner_end(pruner);
  pruner->forbidden = failure->class == FAILURE_CONFIG;
  if (!pruner->forbidden)
    return false;
  log_failure(LOG_LEVEL_WARNING, "the ledger is not pruned", failure);
  *failure = (Failure){0};
  return true;
}

static void rest(Pruner *pruner, int64_t begun, int64_t deleted) {
  int64_t now = clock_us(), entered = last_applied_entered(pruner->lanes->last_applied), since_us;
  int64_t added = arrivals_since(&pruner->entered, now, entered, &since_us);
  pruner->next = now + rest_after_page_us(now - begun, deleted, added, since_us);
}

bool pruner_step(Pruner *pruner, Failure *ret_failure) {
  g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(Id));
  int64_t begun = clock_us();
  bool more = false;
  if (!ensure_session(pruner, ret_failure)) {
    pruner_end(pruner);
    return false;
  }
  bool good = prune_page(pruner, old, &more, ret_failure);
  session_rollback(pruner->session); /* after a COMMIT there is nothing to roll back */
  if (!good)
    return give_up(pruner, ret_failure);
  pruner->pruned += old->len;
  if (more)
    rest(pruner, begun, old->len);
  else
    pruner_end(pruner);
  return true;
}

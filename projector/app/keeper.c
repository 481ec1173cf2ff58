/* keeper.c - the retry timer and the periodic sweep. */
#include "projector/app/keeper.h"

#include "projector/app/sweeper.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"

#include <stdio.h>

enum {
  PAGE = 200,           /* events read at once behind a hold */
  TICK_MS = 250,        /* the longest that a newly due hold waits to be noticed */
  ACK_WAIT_MS = 50,     /* an event in hand is looked at again after this */
  KNOWN_WAIT_MS = 500,  /* a failed event that is in memory too */
  STORE_PAUSE_MS = 500, /* after a failure of MongoDB */
};

struct Keeper {
  const Config *config;
  const Ledger *ledger;
  MongoStore *store;
  const Shards *shards;
  Stop *stop;
  Outbox *outbox;
  GThread *thread;
  int64_t next_sweep; /* monotonic, us */
  bool may_not_prune; /* the user has no right to delete from the ledger */
};

static Shard *home(const Keeper *keeper, const Aggregate *aggregate) {
  return shard_of(keeper->shards, aggregate_hash(aggregate));
}

static void hold_by_state(Keeper *keeper, const Event *event) {
  EventState state = event_state(event);
  Shard *shard = shard_of(keeper->shards, event->aggregate_hash);
  if (state.status == STATUS_DEAD)
    shard_hold(shard, event, HOLD_DEAD, DUE_NEVER);
  else
    shard_hold(shard, event, HOLD_FAILED, MAX(state.due_in_ms, 0));
}

/* Holds for the events in that state that have none; one that is in memory is about to be tried. */
static bool load_holds(Keeper *keeper, const char *state, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_state(keeper->outbox, state);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    Shard *shard = shard_of(keeper->shards, event->aggregate_hash);
    if (event_has_aggregate(event) && !shard_knows(shard, &event->key.event_id) &&
        !shard_holds(shard, event))
      hold_by_state(keeper, event);
  }
  return ret_failure->class == FAILURE_NONE;
}

/* --- the end of a hold ---------------------------------------------------------------------- */

static void put_off(Keeper *keeper, const HoldView *hold, HoldReason reason, int64_t delay_ms) {
  shard_put_off(home(keeper, hold->aggregate), hold->aggregate, reason, delay_ms);
}

/* One page of the aggregate's events into the shard, from the time `*from`, which moves to the last
 * one's. `*ret_more`: there may be more. */
static bool drain_page(Keeper *keeper, const HoldView *hold, bool gap_waited, int64_t *from,
                       bool *ret_more, bool *ret_blocked, Failure *ret_failure) {
  Shard *shard = home(keeper, hold->aggregate);
  const OrderKey after = {.occurred_at = *from};
  g_autoptr(EventCursor) cursor =
      outbox_find_aggregate(keeper->outbox, hold->aggregate, &after, PAGE);
  const bson_t *document;
  int count = 0;
  while (!*ret_blocked && (document = event_cursor_next(cursor, ret_failure))) {
    Event *event = event_decode(document);
    EventState state = event_state(event);
    count++;
    *from = event->key.occurred_at;
    if (state.status == STATUS_FAILED || state.status == STATUS_DEAD) {
      hold_by_state(keeper, event); /* the next one that blocks */
      *ret_blocked = true;
      event_free(event);
    } else if (state.status == STATUS_IN_PROGRESS) {
      /* In hand here it is on its way; another's claim has to come back first. */
      if (!shard_knows(shard, &event->key.event_id)) {
        shard_hold(shard, event, HOLD_FAILED, ACK_WAIT_MS);
        *ret_blocked = true;
      }
      event_free(event);
    } else {
      event->gap_waited = gap_waited && id_equal(&event->key.event_id, &hold->key.event_id);
      bool room = shard_wait_room(shard);
      *ret_blocked = !room || !shard_offer_drained(shard, event);
      if (!room)
        event_free(event);
    }
  }
  *ret_more = count == PAGE;
  return *ret_blocked || ret_failure->class == FAILURE_NONE;
}

/* Reads the events behind the hold in order, until none is left out. */
static void drain(Keeper *keeper, const HoldView *hold, bool gap_waited) {
  Shard *shard = home(keeper, hold->aggregate);
  Failure failure = {0};
  int64_t from = INT64_MIN;
  bool more = false, blocked = false;
  if (!shard_begin_drain(shard, hold->aggregate))
    return; /* it will be due again */
  do {
    if (!drain_page(keeper, hold, gap_waited, &from, &more, &blocked, &failure)) {
      log_failure(LOG_LEVEL_WARNING, "cannot read the events behind a hold", &failure);
      if (stop_wait(keeper->stop, STORE_PAUSE_MS))
        return;
      more = true;
    }
  } while (!blocked && (more || !shard_end_drain(shard, hold->aggregate, &from)));
}

/* Tells which of the missing versions are nowhere. */
static void report_gap(Keeper *keeper, const HoldView *hold) {
  g_autoptr(EventCursor) cursor =
      outbox_find_versions(keeper->outbox, hold->aggregate, hold->gap_first, hold->gap_last);
  int64_t found = 0, missing = hold->gap_last - hold->gap_first + 1;
  Failure failure = {0};
  while (event_cursor_next(cursor, &failure))
    found++;
  if (failure.class != FAILURE_NONE || found >= missing)
    return;
  char aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2], event[ID_TEXT_SIZE];
  aggregate_text(hold->aggregate, aggregate, sizeof aggregate);
  id_text(&hold->key.event_id, event);
  log_warning("versions missing, going on without them",
              LOG_FIELDS(LOG_TEXT("aggregate", aggregate),
                         LOG_NUMBER("first_version", hold->gap_first),
                         LOG_NUMBER("last_version", hold->gap_last), LOG_NUMBER("found", found),
                         LOG_TEXT("before_event", event)));
}

/* What sorts before the event that blocks goes first, read or not: the reader may still be on its
 * way to it. False: one of them blocks too, or there are more. */
static bool offer_earlier(Keeper *keeper, const HoldView *hold, Failure *ret_failure) {
  Shard *shard = home(keeper, hold->aggregate);
  g_autoptr(EventCursor) cursor =
      outbox_find_aggregate(keeper->outbox, hold->aggregate, NULL, PAGE);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    if (order_key_compare(&event->key, &hold->key) >= 0)
      return true;
    EventStatus status = event_state(event).status;
    bool known = shard_knows(shard, &event->key.event_id);
    if (status == STATUS_PENDING && !known) {
      if (!shard_wait_room(shard))
        return false;
      shard_offer(shard, g_steal_pointer(&event));
    } else if (!known) {
      if (status == STATUS_IN_PROGRESS)
        shard_hold(shard, event, HOLD_FAILED, ACK_WAIT_MS);
      else
        hold_by_state(keeper, event);
      return false;
    }
  }
  return false;
}

/* Looks at the event that blocks and decides: try it, wait on, or go on without it. */
static void look_at_head(Keeper *keeper, const HoldView *hold) {
  Failure failure = {0};
  g_autoptr(EventCursor) cursor = outbox_find_event(keeper->outbox, &hold->key.event_id);
  const bson_t *document = event_cursor_next(cursor, &failure);
  if (failure.class != FAILURE_NONE) {
    log_failure(LOG_LEVEL_WARNING, "cannot look at a failed event", &failure);
    put_off(keeper, hold, hold->reason, STORE_PAUSE_MS);
    return;
  }
  if (!document) { /* applied, skipped or removed */
    drain(keeper, hold, false);
    return;
  }
  g_autoptr(Event) event = event_decode(document);
  EventState state = event_state(event);
  switch (state.status) {
  case STATUS_DEAD: put_off(keeper, hold, HOLD_DEAD, DUE_NEVER); return;
  case STATUS_IN_PROGRESS: put_off(keeper, hold, HOLD_FAILED, ACK_WAIT_MS); return;
  case STATUS_FAILED:
    if (hold->woken && state.due_in_ms > 0 && hold->reason != HOLD_GAP) {
      put_off(keeper, hold, HOLD_FAILED, state.due_in_ms);
      return;
    }
    break;
  case STATUS_PENDING: break; /* retried by hand */
  }
  bool offered = offer_earlier(keeper, hold, &failure) &&
                 shard_offer_head(home(keeper, hold->aggregate), g_steal_pointer(&event));
  put_off(keeper, hold, HOLD_FAILED,
          offered ? keeper->config->settings.claim_timeout_ms : KNOWN_WAIT_MS);
}

static void end_due_holds(Keeper *keeper, Shard *shard) {
  HoldView hold;
  while (!stop_requested(keeper->stop) && shard_next_due(shard, &hold)) {
    if (hold.reason == HOLD_GAP) {
      if (!hold.woken)
        report_gap(keeper, &hold);
      drain(keeper, &hold, !hold.woken);
    } else {
      look_at_head(keeper, &hold);
    }
    g_free(hold.aggregate);
  }
}

/* --- sweeping ------------------------------------------------------------------------------- */

/* The projector's user need not be allowed to delete from the ledger; then somebody else prunes. */
static bool prune_ledger(Keeper *keeper, Session *session, Failure *ret_failure) {
  int64_t pruned = 0;
  if (keeper->may_not_prune)
    return true;
  bool good = prune(keeper->config, session, keeper->ledger, keeper->outbox, &pruned, ret_failure);
  if (pruned > 0)
    log_info("pruned the ledger", LOG_FIELDS(LOG_NUMBER("entries", pruned)));
  if (good || ret_failure->class != FAILURE_CONFIG)
    return good;
  keeper->may_not_prune = true;
  log_failure(LOG_LEVEL_WARNING, "the ledger is not pruned", ret_failure);
  return true;
}

static bool sweep_now(Keeper *keeper, int64_t older_than_ms, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&keeper->config->mysql, ret_failure);
  int64_t found;
  if (!session || !sweep(keeper->config, session, keeper->ledger, keeper->outbox, keeper->shards,
                         older_than_ms, &found, ret_failure))
    return false;
  if (found > 0)
    log_info("swept events that were left in progress", LOG_FIELDS(LOG_NUMBER("events", found)));
  return older_than_ms == 0 || prune_ledger(keeper, session, ret_failure);
}

/* Events that nobody holds and no stream brought: put back by the sweeper, or changed by hand. */
static bool rescan(Keeper *keeper, Failure *ret_failure) {
  uint32_t seconds, increment;
  for (unsigned i = 0; i < keeper->shards->count; i++)
    if (shard_figures(keeper->shards->shards[i]).queued > 0)
      return true; /* the reader is at it */
  g_autoptr(EventCursor) cursor = outbox_scan(keeper->outbox, &seconds, &increment, ret_failure);
  const bson_t *document;
  while (cursor && (document = event_cursor_next(cursor, ret_failure))) {
    Event *event = event_decode(document);
    Shard *shard = shard_of(keeper->shards, event->aggregate_hash);
    if (!shard_wait_room(shard)) {
      event_free(event);
      return true;
    }
    shard_offer(shard, event);
  }
  return ret_failure->class == FAILURE_NONE;
}

static void sweep_when_due(Keeper *keeper) {
  const Settings *settings = &keeper->config->settings;
  Failure failure = {0};
  if (clock_us() < keeper->next_sweep)
    return;
  keeper->next_sweep = clock_us() + settings->sweep_interval_ms * 1000;
  keeper_review(keeper);
  /* An owner before this one, not yet aware of it, may have marked events since holds were read. */
  if (!sweep_now(keeper, settings->claim_timeout_ms, &failure) || !rescan(keeper, &failure) ||
      !load_holds(keeper, "failed", &failure) || !load_holds(keeper, "dead", &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot sweep", &failure);
}

/* --- the keeper ----------------------------------------------------------------------------- */

int64_t keeper_step(Keeper *keeper) {
  int64_t wait_ms = TICK_MS;
  sweep_when_due(keeper); /* first, because it makes holds due */
  for (unsigned i = 0; i < keeper->shards->count; i++) {
    end_due_holds(keeper, keeper->shards->shards[i]);
    int64_t due_ms = shard_due_in(keeper->shards->shards[i]);
    if (due_ms != DUE_NEVER && due_ms < wait_ms)
      wait_ms = due_ms;
  }
  return wait_ms;
}

Keeper *keeper_new(const Config *config, const Ledger *ledger, MongoStore *store, const char *owner,
                   const Shards *shards, Stop *stop, Failure *ret_failure) {
  g_autoptr(Keeper) keeper = g_new0(Keeper, 1);
  *keeper = (Keeper){.config = config,
                     .ledger = ledger,
                     .store = store,
                     .shards = shards,
                     .stop = stop,
                     .outbox = outbox_new(store, owner),
                     .next_sweep = clock_us() + config->settings.sweep_interval_ms * 1000};
  if (!sweep_now(keeper, 0, ret_failure) || !load_holds(keeper, "failed", ret_failure) ||
      !load_holds(keeper, "dead", ret_failure))
    return NULL;
  return g_steal_pointer(&keeper);
}

static gpointer run(gpointer data) {
  Keeper *keeper = data;
  mysql_thread_init();
  while (!stop_requested(keeper->stop))
    stop_wait(keeper->stop, keeper_step(keeper));
  mysql_thread_end();
  return NULL;
}

void keeper_start(Keeper *keeper) {
  keeper->thread = g_thread_new("keeper", run, keeper);
}

void keeper_free(Keeper *keeper) {
  if (!keeper)
    return;
  if (keeper->thread)
    g_thread_join(keeper->thread);
  outbox_free(keeper->outbox);
  g_free(keeper);
}

void keeper_review(Keeper *keeper) {
  for (unsigned i = 0; i < keeper->shards->count; i++)
    shard_review_holds(keeper->shards->shards[i]);
}

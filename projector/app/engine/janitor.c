/* janitor.c - the retry timer, the periodic sweep, and when to prune. */
#include "projector/app/engine/janitor_private.h"
#include "projector/app/engine/owner_session.h"
#include "projector/app/engine/sweeper.h"
#include "projector/domain/rest.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/outcomes.h"
#include "projector/infra/mongo/refused.h"
#include "projector/infra/mysql/session_thread.h"

enum {
  PAGE = 200,         /* holds examined, or events read, at a time */
  TAKEN_WAIT_MS = 50, /* first pause before an event in progress is examined again; doubled up to */
  TAKEN_MAX_MS = 2000,  /* this */
  ROOM_WAIT_MS = 20,    /* pause before a full queue is tried again */
  KNOWN_WAIT_MS = 500,  /* the same for a failed event that is also in memory */
  STORE_PAUSE_MS = 500, /* pause after a failure of a store */
};

static Lane *home(const Janitor *janitor, const Aggregate *aggregate) {
  return lane_of(janitor->lanes, aggregate_hash(aggregate));
}

static void put_off(Janitor *janitor, const HoldView *hold, HoldReason reason, int64_t delay_ms) {
  lane_put_off(home(janitor, hold->aggregate), hold, reason, delay_ms);
}

static void look_again(Janitor *janitor, const HoldView *hold, HoldReason reason,
                       int64_t delay_ms) {
  lane_look_again(home(janitor, hold->aggregate), hold, reason, delay_ms);
}

/* One in progress has counted an attempt, which the worker takes into account when it looks
 * again. */
static QueuedEvent *read_now(const bson_t *document) {
  QueuedEvent *queued = queued_event_new(event_decode(document));
  queued->read_at = queued->event->status == STATUS_IN_PROGRESS ? 0 : clock_us();
  return queued;
}

/* --- the end of a hold ---------------------------------------------------------------------- */

/* Puts one page of the aggregate's events into the queue. */
static void drain_page(Janitor *janitor, const HoldView *hold) {
  Lane *lane = home(janitor, hold->aggregate);
  Failure failure = {0};
  g_autoptr(EventCursor) cursor = outbox_find_aggregate(
      janitor->outbox, hold->aggregate, hold->from_start ? NULL : &hold->next, PAGE);
  const bson_t *document;
  g_autoptr(Event) refused = NULL;
  int count = 0;
  for (; (document = event_cursor_next(cursor, &failure)); count++) {
    if (refused)
      return; /* and this one is behind it */
    QueuedEvent *queued = read_now(document);
    /* A gap is waited for only once. */
    queued->gap_waited = hold->reason == HOLD_GAP && hold->call == CALL_DUE &&
                         id_equal(&queued->event->key.event_id, &hold->key.event_id);
    Offer offer = lane_offer_around(lane, queued);
    if (offer == OFFER_BLOCKED)
      refused = event_decode(document);
    if (offer == OFFER_FULL) {
      lane_go_on_draining(lane, hold, ROOM_WAIT_MS);
      return;
    }
  }
  if (failure.class != FAILURE_NONE) {
    log_failure(LOG_LEVEL_WARNING, "cannot read the events behind a hold", &failure);
    lane_go_on_draining(lane, hold, STORE_PAUSE_MS);
  } else if (count == PAGE) {
    lane_go_on_draining(lane, hold, 0);
  } else if (refused) {
    lane_note_end(lane, refused);
  } else {
    lane_end_drain(lane, hold);
  }
}

static void begin_drain(Janitor *janitor, HoldView *hold) {
  if (lane_begin_drain(home(janitor, hold->aggregate), hold))
    drain_page(janitor, hold);
}

/* Whatever sorts before the blocking event goes first, whether the reader has reached it or not.
 * Returns false when there is no room, when more such events remain, or when one of them blocks too
 * and has taken over the hold. */
static bool offer_earlier(Janitor *janitor, const HoldView *hold) {
  Lane *lane = home(janitor, hold->aggregate);
  Failure failure = {0};
  g_autoptr(EventCursor) cursor =
      outbox_find_aggregate(janitor->outbox, hold->aggregate, NULL, PAGE);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, &failure))) {
    g_autoptr(QueuedEvent) queued = read_now(document);
    if (order_key_compare(&queued->event->key, &hold->key) >= 0)
      return true;
    if (lane_offer_around(lane, g_steal_pointer(&queued)) != OFFER_GO_ON)
      return false;
  }
  if (failure.class != FAILURE_NONE)
    log_failure(LOG_LEVEL_WARNING, "cannot read the events before a failed one", &failure);
  return false;
}

/* Whether it was only now marked as failed: then the look at what sorts before it came too early.
 */
static bool has_failed_since(const Event *event, const Event *found) {
  return found->status == STATUS_FAILED &&
         (event->status != STATUS_FAILED || event->attempts != found->attempts);
}

/* `event`: as it was before the look at what sorts before it. */
static bool offer_head(Janitor *janitor, const HoldView *hold, const Event *event) {
  Failure failure = {0};
  g_autoptr(EventCursor) cursor = outbox_find_event(janitor->outbox, &hold->key.event_id);
  const bson_t *document = event_cursor_next(cursor, &failure);
  if (failure.class != FAILURE_NONE)
    log_failure(LOG_LEVEL_WARNING, "cannot read a failed event", &failure);
  if (!document)
    return false;
  g_autoptr(QueuedEvent) queued = read_now(document);
  return !has_failed_since(event, queued->event) &&
         lane_offer_head(home(janitor, hold->aggregate), g_steal_pointer(&queued));
}

static void try_head(Janitor *janitor, const HoldView *hold, const Event *event) {
  if (offer_earlier(janitor, hold) && offer_head(janitor, hold, event))
    put_off(janitor, hold, HOLD_FAILED, janitor->config->settings.claim_timeout_ms);
  else
    look_again(janitor, hold, HOLD_FAILED, KNOWN_WAIT_MS);
}

/* An operator has moved it to a later place or to another aggregate: it no longer blocks where the
 * hold is, and has its turn at its new place. */
static bool has_moved_on(const HoldView *hold, const Event *event) {
  return !event_has_aggregate(event) || !aggregate_equal(&event->aggregate, hold->aggregate) ||
         order_key_compare(&event->key, &hold->key) > 0;
}

/* Examines the blocking event (NULL: it has left the outbox) and decides whether to try it, to keep
 * waiting, or to continue without it. */
static void look_at_head(Janitor *janitor, HoldView *hold, const Event *event) {
  int64_t early_ms;
  if (!event || has_moved_on(hold, event)) { /* NULL: applied, skipped or removed */
    begin_drain(janitor, hold);
    return;
  }
  switch (event->status) {
  case STATUS_DEAD: put_off(janitor, hold, HOLD_DEAD, DUE_NEVER); break;
  case STATUS_IN_PROGRESS:
    look_again(janitor, hold, HOLD_TAKEN,
               MIN((int64_t)TAKEN_WAIT_MS << MIN(hold->looks, 10), TAKEN_MAX_MS));
    break;
  case STATUS_FAILED:
    early_ms =
        order_early_ms(event, lanes_now_ms(janitor->lanes), janitor->config->settings.future_ms);
    if (early_ms > 0)
      put_off(janitor, hold, HOLD_FUTURE, early_ms);
    else if (hold->call == CALL_REVIEW && event->due_in_ms > 0 &&
             event->due_in_ms <= BACKOFF_MAX_MS) /* a longer wait comes from another future_ms */
      put_off(janitor, hold, HOLD_FAILED, event->due_in_ms);
    else
      try_head(janitor, hold, event);
    break;
  case STATUS_PENDING:
    try_head(janitor, hold, event);
    break; /* retried by hand, or claimed in vain */
  }
}

/* The blocking events of all these holds: Id → Event. One that this owner has claimed and no worker
 * has in hand, because MongoDB refused a mark, is tried again. */
static GHashTable *read_heads(Janitor *janitor, const HoldView *holds, unsigned count,
                              Failure *ret_failure) {
  g_autoptr(GHashTable) heads =
      g_hash_table_new_full(id_hash_key, id_equal_key, NULL, (GDestroyNotify)event_free);
  const Id *ids[PAGE];
  unsigned wanted = 0;
  for (unsigned i = 0; i < count; i++)
    if (!holds[i].draining && holds[i].reason != HOLD_GAP)
      ids[wanted++] = &holds[i].key.event_id;
  if (wanted == 0)
    return g_steal_pointer(&heads);
  g_autoptr(EventCursor) cursor = outbox_find_events(janitor->outbox, ids, wanted);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    Event *event = event_decode(document);
    if (event->status == STATUS_IN_PROGRESS && outbox_is_ours(janitor->outbox, document))
      event->status = STATUS_PENDING;
    g_hash_table_replace(heads, &event->key.event_id, event);
  }
  return ret_failure->class == FAILURE_NONE ? g_steal_pointer(&heads) : NULL;
}

static void go_on(Janitor *janitor, HoldView *hold, GHashTable *heads, const GapReport *report) {
  if (hold->draining) {
    drain_page(janitor, hold);
  } else if (gap_is_due(hold) && !report->looked) {
    look_again(janitor, hold, HOLD_GAP, report->last ? 2 * STORE_PAUSE_MS : STORE_PAUSE_MS);
  } else if (hold->reason == HOLD_GAP) {
    begin_drain(janitor, hold);
  } else if (heads) {
    look_at_head(janitor, hold, g_hash_table_lookup(heads, &hold->key.event_id));
  } else {
    look_again(janitor, hold, hold->reason, STORE_PAUSE_MS);
  }
}

/* Handles one page of the holds that are due. */
static void look_at_due(Janitor *janitor, Lane *lane) {
  HoldView holds[PAGE];
  GapReport reports[PAGE] = {0};
  Failure failure = {0};
  unsigned count = lane_take_due(lane, holds, PAGE);
  if (count == 0)
    return;
  g_autoptr(GHashTable) heads = read_heads(janitor, holds, count, &failure);
  if (!heads)
    log_failure(LOG_LEVEL_WARNING, "cannot read failed events", &failure);
  report_gaps(janitor, holds, count, reports);
  for (unsigned i = 0; i < count; i++) {
    if (!stop_requested(janitor->stop))
      go_on(janitor, &holds[i], heads, &reports[i]);
    hold_view_clear(&holds[i]);
  }
}

/* --- sweeping ------------------------------------------------------------------------------- */

static bool sweep_now(Janitor *janitor, int64_t older_than_ms, Failure *ret_failure) {
  g_autoptr(Session) session = owner_session_open(janitor->config, janitor->lanes, ret_failure);
  const Sweep with = {janitor->config, session, janitor->ledger, janitor->outbox, janitor->lanes};
  int64_t claimed, found;
  if (!session || !sweep_claims(&with, &claimed, ret_failure))
    return false;
  if (claimed > 0)
    log_info("swept the claims of a former owner", LOG_FIELDS(LOG_NUMBER("events", claimed)));
  if (!sweep(&with, older_than_ms, &found, ret_failure))
    return false;
  if (found > 0)
    log_info("swept events that were left in progress", LOG_FIELDS(LOG_NUMBER("events", found)));
  return true;
}

/* Finds events without a hold that the stream did not deliver: released by the sweeper, changed by
 * an operator, or marked by an earlier owner that did not know it had been replaced. The oldest
 * come first, so events that find no room in the queue can wait. read_at stays 0, so the worker
 * looks again and notices an event that was acknowledged meanwhile. */
static bool rescan(Janitor *janitor, int64_t *ret_read, int64_t *ret_bytes, Failure *ret_failure) {
  uint32_t seconds, increment;
  *ret_read = *ret_bytes = 0;
  g_autoptr(EventCursor) cursor = outbox_scan(janitor->outbox, &seconds, &increment, ret_failure);
  const bson_t *document;
  while (cursor && (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(QueuedEvent) queued = queued_event_new(event_decode(document));
    Lane *lane = lane_of(janitor->lanes, queued->event->aggregate_hash);
    if (!lane_has_room(lane) || stop_requested(janitor->stop))
      return true;
    ++*ret_read;
    *ret_bytes += (int64_t)queued_event_memory(queued);
    lane_offer(lane, g_steal_pointer(&queued));
  }
  return ret_failure->class == FAILURE_NONE;
}

/* Not during the reader's scan, and seldom if a rescan takes long because many events are behind
 * holds. */
static bool rescan_when_due(Janitor *janitor, Failure *ret_failure) {
  int64_t begun = clock_us();
  if (g_atomic_int_get(&janitor->lanes->scanning) || begun < janitor->next_rescan)
    return true;
  int64_t read, bytes;
  bool good = rescan(janitor, &read, &bytes, ret_failure);
  janitor->next_rescan = clock_us() + rest_after_search_us(clock_us() - begun, read, bytes);
  return good;
}

/* A refused login alone does not: the workers' sessions may still work. With new secrets they all
 * will. */
static bool ends_tenure(const Janitor *janitor, const Failure *failure) {
  return failure->class == FAILURE_FENCED ||
         (failure->class == FAILURE_CONFIG &&
          (failure->source == SOURCE_PROJECTOR || config_secrets_have_changed(janitor->config)));
}

static void sweep_when_due(Janitor *janitor) {
  const Settings *settings = &janitor->config->settings;
  Failure failure = {0};
  if (clock_us() < janitor->next_sweep)
    return;
  janitor->next_sweep = clock_us() + settings->sweep_interval_ms * 1000;
  janitor_review(janitor);
  bool swept = sweep_now(janitor, settings->claim_timeout_ms, &failure);
  if (swept)
    pruner_begin(janitor->pruner);
  if (!swept || !rescan_when_due(janitor, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot sweep", &failure);
  if (ends_tenure(janitor, &failure))
    stop_request(janitor->stop, &failure);
}

static void prune_when_due(Janitor *janitor) {
  Failure failure = {0};
  if (pruner_due_in(janitor->pruner) != 0)
    return;
  if (!g_atomic_int_get(&janitor->is_current))
    pruner_end(janitor->pruner);
  else if (!pruner_step(janitor->pruner, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot prune the ledger", &failure);
  if (ends_tenure(janitor, &failure))
    stop_request(janitor->stop, &failure);
}

/* Records in MongoDB the events that have no other way to show why they wait. */
static void record_refused_events(Janitor *janitor) {
  uint64_t now = watch_refusals(janitor->lanes->watch);
  Failure failure = {0};
  if (now == janitor->refusals_recorded)
    return;
  g_autoptr(GArray) refused = watch_list_refused(janitor->lanes->watch);
  if (refused_write(janitor->store, janitor->config->name, refused, &failure))
    janitor->refusals_recorded = now;
  else
    log_failure(LOG_LEVEL_WARNING, "cannot record which events MongoDB refuses to mark", &failure);
}

/* --- the janitor ----------------------------------------------------------------------------- */

static int64_t sooner(int64_t wait_ms, int64_t due_ms) {
  return due_ms == DUE_NEVER ? wait_ms : MIN(wait_ms, due_ms);
}

/* Processes due holds, sweeps and prunes when it is time. Returns the ms until the next call. */
static int64_t step(Janitor *janitor) {
  janitor->away = false;
  sweep_when_due(janitor); /* once in each step, however many holds are due */
  record_refused_events(janitor);
  prune_when_due(janitor);
  int64_t left_us = janitor->next_sweep - clock_us(), wait_ms = MAX(left_us, 0) / 1000 + 1;
  for (unsigned i = 0; i < janitor->lanes->count; i++) {
    look_at_due(janitor, janitor->lanes->lanes[i]);
    wait_ms = sooner(wait_ms, lane_due_in(janitor->lanes->lanes[i]));
  }
  return sooner(wait_ms, pruner_due_in(janitor->pruner));
}

/* What an earlier owner noted. */
static void remember_missing(const VersionOutcome *outcome, void *data) {
  watch_miss(data, aggregate_hash(outcome->aggregate), outcome->first, outcome->last);
}

Janitor *janitor_new(const Config *config, const Ledger *ledger, MongoStore *store,
                     const char *owner, const Lanes *lanes, Stop *stop, Failure *ret_failure) {
  g_autoptr(Janitor) janitor = g_new0(Janitor, 1);
  *janitor = (Janitor){.config = config,
                       .ledger = ledger,
                       .store = store,
                       .lanes = lanes,
                       .stop = stop,
                       .outbox = outbox_new(store, owner),
                       .refusals_recorded = UINT64_MAX, /* those of the owner before it are over */
                       .next_sweep = clock_us() + config->settings.sweep_interval_ms * 1000};
  janitor->pruner = pruner_new(config, ledger, janitor->outbox, lanes);
  if (!sweep_now(janitor, 0, ret_failure) ||
      !outcomes_each_missing(store, config->name, remember_missing, lanes->watch, ret_failure))
    return NULL;
  return g_steal_pointer(&janitor);
}

static gpointer run(gpointer data) {
  Janitor *janitor = data;
  while (!stop_requested(janitor->stop)) {
    pulse_begin(&janitor->pulse);
    int64_t wait_ms = step(janitor);
    pulse_end(&janitor->pulse);
    alarm_sleep(janitor->lanes->due, wait_ms);
  }
  return NULL;
}

void janitor_start(Janitor *janitor) {
  janitor->thread = session_thread_new("janitor", run, janitor);
}

void janitor_free(Janitor *janitor) {
  if (!janitor)
    return;
  if (janitor->thread) {
    alarm_ring(janitor->lanes->due);
    g_thread_join(janitor->thread);
  }
  pruner_free(janitor->pruner);
  outbox_free(janitor->outbox);
  g_free(janitor);
}

Pulse *janitor_pulse(Janitor *janitor) {
  return &janitor->pulse;
}

void janitor_note_behind(Janitor *janitor, int64_t behind_ms) {
  g_atomic_int_set(&janitor->is_current,
                   behind_ms < janitor->config->settings.ledger_retention_s * 1000 / 2);
}

void janitor_review(Janitor *janitor) {
  for (unsigned i = 0; i < janitor->lanes->count; i++)
    lane_review_holds(janitor->lanes->lanes[i]);
}

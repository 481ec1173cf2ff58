/* janitor.c - the retry timer and the periodic sweep. */
#include "projector/app/engine/janitor.h"

#include "projector/app/engine/owner_session.h"
#include "projector/app/engine/sweeper.h"
#include "projector/domain/retention.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/archive.h"
#include "projector/infra/mongo/outcomes.h"
#include "projector/infra/mongo/refused.h"
#include "projector/infra/mysql/session_thread.h"

#include <stdio.h>

enum {
  PAGE = 200,         /* holds examined, or events read, at a time */
  TAKEN_WAIT_MS = 50, /* first pause before an event in progress is examined again; doubled up to */
  TAKEN_MAX_MS = 2000,  /* this */
  ROOM_WAIT_MS = 20,    /* pause before a full queue is tried again */
  KNOWN_WAIT_MS = 500,  /* the same for a failed event that is also in memory */
  STORE_PAUSE_MS = 500, /* pause after a failure of a store */
  NOTED_RANGES = 16,    /* of the missing versions of one gap */
  RESCAN_SHARE = 10,    /* rescans take at most one part in so many of the time */
};

G_STATIC_ASSERT((int)WATCH_MISSED_MAX >= (int)OUTCOMES_MAX);

struct Janitor {
  const Config *config;
  const Ledger *ledger;
  MongoStore *store;
  const Lanes *lanes;
  Stop *stop;
  Outbox *outbox;
  GThread *thread;
  int64_t next_sweep, next_rescan; /* monotonic, us */
  RetentionClock retention_clock;
  bool may_not_prune;         /* the user has no right to delete from the ledger */
  uint64_t refusals_recorded; /* see watch_refusals */
  gint is_current;            /* atomic; see janitor_note_behind */
  bool away; /* a store, as a gap has found in this step: the others are not looked for in it */
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

static void add_missing(GArray *missing, const HoldView *hold, int64_t first, int64_t last) {
  VersionOutcome range = {hold->aggregate, first, last, "missing"};
  g_array_append_val(missing, range);
}

/* What MySQL has meanwhile, because it was applied between the two looks, is not missing. */
static bool leave_out_reached(Janitor *janitor, Session **session, const HoldView *hold,
                              GArray *missing, unsigned before, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  const Position *position = &aggregate_set_open(set, hold->aggregate)->position;
  if (!*session && !(*session = owner_session_open(janitor->config, janitor->lanes, ret_failure)))
    return false;
  /* In a transaction, which a proxy does not send to a replica that lags. */
  bool good = session_run(*session, ret_failure, "START TRANSACTION") &&
              ledger_look_at_positions(*session, janitor->ledger, set, arena, ret_failure);
  session_rollback(*session);
  if (!good)
    return false;
  int64_t reached = MAX(position->max_version, position->refreshed_version);
  for (guint i = missing->len; i-- > before;) {
    VersionOutcome *range = &g_array_index(missing, VersionOutcome, i);
    range->first = MAX(range->first, reached + 1);
    if (range->first > range->last)
      g_array_remove_index(missing, i);
  }
  return true;
}

/* Reads which of the versions the outbox has. Adds the ranges between them to `missing`, of
 * VersionOutcome, for clients waiting for one of them. */
static bool look_for_versions(Janitor *janitor, const HoldView *hold, GArray *missing,
                              int64_t *ret_found, Failure *ret_failure) {
  int64_t next = hold->gap_first, wanted = hold->gap_last - hold->gap_first + 1;
  unsigned before = missing->len;
  g_autoptr(EventCursor) cursor =
      outbox_find_versions(janitor->outbox, hold->aggregate, hold->gap_first, hold->gap_last);
  const bson_t *document;
  for (*ret_found = 0; *ret_found < wanted && (document = event_cursor_next(cursor, ret_failure));
       ++*ret_found) {
    g_autoptr(Event) event = event_decode(document);
    if (missing->len - before == NOTED_RANGES - 1)
      continue;
    if (event->key.version > next)
      add_missing(missing, hold, next, event->key.version - 1);
    next = MAX(next, event->key.version + 1);
  }
  if (next <= hold->gap_last)
    add_missing(missing, hold, next, hold->gap_last);
  if (ret_failure->class != FAILURE_NONE || *ret_found >= wanted)
    g_array_set_size(missing, before);
  return ret_failure->class == FAILURE_NONE;
}

static void log_gap(LogLevel level, const char *message, const HoldView *hold, int64_t found) {
  char aggregate[AGGREGATE_TYPE_MAX + ID_TEXT_SIZE + 2], event[ID_TEXT_SIZE];
  aggregate_text(hold->aggregate, aggregate, sizeof aggregate);
  id_text(&hold->key.event_id, event);
  log_write(level, message,
            LOG_FIELDS(LOG_TEXT("aggregate", aggregate),
                       LOG_NUMBER("first_version", hold->gap_first),
                       LOG_NUMBER("last_version", hold->gap_last), LOG_NUMBER("found", found),
                       LOG_TEXT("before_event", event)));
}

/* If MySQL lacks versions that the archive has, MySQL has lost them: it was restored to an earlier
 * state. They go back into the outbox and are applied again, in order, before the waiting event. */
static bool look_into_archive(Janitor *janitor, const HoldView *hold, int64_t found,
                              int64_t *ret_back, Failure *ret_failure) {
  int64_t all = found;
  if (!archive_put_back(janitor->outbox, hold->aggregate, hold->gap_first, hold->gap_last, &all,
                        ret_failure))
    return false;
  *ret_back = all - found;
  if (*ret_back > 0)
    log_gap(LOG_LEVEL_WARNING,
            "MySQL lacks versions that were applied before: put back from the archive", hold,
            *ret_back);
  return true;
}

/* Adds to `missing` the versions that are neither in the outbox nor in MySQL. From before that look
 * on the worker corrects the note of one that it applies after all. */
static bool look_twice(Janitor *janitor, Session **session, const HoldView *hold, GArray *missing,
                       int64_t *ret_found, Failure *ret_failure) {
  unsigned before = missing->len;
  if (!look_for_versions(janitor, hold, missing, ret_found, ret_failure))
    return false;
  if (missing->len == before)
    return true;
  watch_miss(janitor->lanes->watch, aggregate_hash(hold->aggregate), hold->gap_first,
             hold->gap_last);
  g_array_set_size(missing, before);
  if (look_for_versions(janitor, hold, missing, ret_found, ret_failure) &&
      (missing->len == before ||
       leave_out_reached(janitor, session, hold, missing, before, ret_failure)))
    return true;
  g_array_set_size(missing, before);
  return false;
}

/* Adds to `missing` the versions that are nowhere to be found. */
static bool look_everywhere(Janitor *janitor, Session **session, const HoldView *hold,
                            GArray *missing, int64_t *ret_found, Failure *ret_failure) {
  int64_t back = 0;
  unsigned before = missing->len;
  if (!look_twice(janitor, session, hold, missing, ret_found, ret_failure))
    return false;
  if (missing->len == before || !janitor->config->mongodb.archive)
    return true;
  if (!look_into_archive(janitor, hold, *ret_found, &back, ret_failure)) {
    if (!failure_is_refusal(ret_failure)) {
      g_array_set_size(missing, before);
      return false;
    }
    log_failure(LOG_LEVEL_WARNING, "cannot search the archive for missing versions", ret_failure);
    *ret_failure = (Failure){0};
  }
  if (back == 0)
    return true;
  g_array_set_size(missing, before);
  return look_for_versions(janitor, hold, missing, ret_found, ret_failure);
}

/* What is known of a gap whose time is over. */
typedef struct {
  bool looked; /* false: a store was away, so the gap is waited for until it has answered */
  bool last;   /* it found the store away: next time the others come first */
  bool lacks;  /* versions are missing */
  int64_t found;
} GapReport;

static bool is_due_gap(const HoldView *hold) {
  return !hold->draining && hold->reason == HOLD_GAP && hold->call == CALL_DUE;
}

/* One write for all gaps: it is what takes time. Without it `wait` would not learn the outcome. */
static bool note_missing(Janitor *janitor, const GArray *missing) {
  Failure failure = {0};
  if (missing->len == 0 ||
      outcomes_note(janitor->store, janitor->config->name,
                    (const VersionOutcome *)(const void *)missing->data, missing->len, &failure))
    return true;
  log_failure(LOG_LEVEL_WARNING, "cannot record the missing versions", &failure);
  return failure_is_refusal(&failure) || failure.class == FAILURE_CONFIG;
}

/* Before anything is applied behind the gaps. */
static void report_gaps(Janitor *janitor, const HoldView *holds, unsigned count,
                        GapReport *reports) {
  g_autoptr(GArray) missing = g_array_new(FALSE, FALSE, sizeof(VersionOutcome));
  g_autoptr(Session) session = NULL; /* for all of them, once one lacks a version */
  for (unsigned i = 0; i < count && !janitor->away && !stop_requested(janitor->stop); i++) {
    unsigned before = missing->len;
    Failure failure = {0};
    if (!is_due_gap(&holds[i]))
      continue;
    reports[i].looked =
        look_everywhere(janitor, &session, &holds[i], missing, &reports[i].found, &failure);
    reports[i].lacks = missing->len > before;
    if (!reports[i].looked)
      log_failure(LOG_LEVEL_WARNING, "cannot look for missing versions", &failure);
    /* Each attempt may take seconds, and the janitor has other work. */
    janitor->away = reports[i].last = failure_class_is_outage(failure.class);
  }
  bool noted = note_missing(janitor, missing);
  for (unsigned i = 0; i < count; i++)
    if (reports[i].lacks && noted)
      log_gap(LOG_LEVEL_WARNING, "versions missing, continuing without them", &holds[i],
              reports[i].found);
    else if (reports[i].lacks)
      reports[i].looked = false;
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
  } else if (is_due_gap(hold) && !report->looked) {
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

/* The projector's user may lack the privilege to delete from the ledger; then the operator prunes
 * it. */
static bool prune_ledger(Janitor *janitor, const Sweep *with, Failure *ret_failure) {
  int64_t pruned = 0;
  if (janitor->may_not_prune || !g_atomic_int_get(&janitor->is_current))
    return true;
  bool good = prune(with, &pruned, ret_failure);
  if (pruned > 0)
    log_info("pruned the ledger", LOG_FIELDS(LOG_NUMBER("entries", pruned)));
  if (good || ret_failure->class != FAILURE_CONFIG)
    return good;
  janitor->may_not_prune = true;
  log_failure(LOG_LEVEL_WARNING, "the ledger is not pruned", ret_failure);
  return true;
}

static bool sweep_now(Janitor *janitor, int64_t older_than_ms, Failure *ret_failure) {
  g_autoptr(Session) session = owner_session_open(janitor->config, janitor->lanes, ret_failure);
  const Sweep with = {
      janitor->config,
      session,
      janitor->ledger,
      janitor->outbox,
      janitor->lanes,
      retention_now_ms(&janitor->retention_clock, lanes_now_ms(janitor->lanes), clock_us() / 1000)};
  int64_t claimed, found;
  if (!session || !sweep_claims(&with, &claimed, ret_failure))
    return false;
  if (claimed > 0)
    log_info("swept the claims of a former owner", LOG_FIELDS(LOG_NUMBER("events", claimed)));
  if (!sweep(&with, older_than_ms, &found, ret_failure))
    return false;
  if (found > 0)
    log_info("swept events that were left in progress", LOG_FIELDS(LOG_NUMBER("events", found)));
  return older_than_ms == 0 || prune_ledger(janitor, &with, ret_failure);
}

/* Finds events without a hold that the stream did not deliver: released by the sweeper, changed by
 * an operator, or marked by an earlier owner that did not know it had been replaced. The oldest
 * come first, so events that find no room in the queue can wait. read_at stays 0, so the worker
 * looks again and notices an event that was acknowledged meanwhile. */
static bool rescan(Janitor *janitor, Failure *ret_failure) {
  uint32_t seconds, increment;
  g_autoptr(EventCursor) cursor = outbox_scan(janitor->outbox, &seconds, &increment, ret_failure);
  const bson_t *document;
  while (cursor && (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(QueuedEvent) queued = queued_event_new(event_decode(document));
    Lane *lane = lane_of(janitor->lanes, queued->event->aggregate_hash);
    if (!lane_has_room(lane) || stop_requested(janitor->stop))
      return true;
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
  bool good = rescan(janitor, ret_failure);
  janitor->next_rescan = clock_us() + (clock_us() - begun) * RESCAN_SHARE;
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
  if (!sweep_now(janitor, settings->claim_timeout_ms, &failure) ||
      !rescan_when_due(janitor, &failure))
    log_failure(LOG_LEVEL_WARNING, "cannot sweep", &failure);
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

/* Processes due holds and sweeps when it is time. Returns the ms until the next call. */
static int64_t step(Janitor *janitor) {
  janitor->away = false;
  sweep_when_due(janitor); /* once in each step, however many holds are due */
  record_refused_events(janitor);
  int64_t left_us = janitor->next_sweep - clock_us(), wait_ms = MAX(left_us, 0) / 1000 + 1;
  for (unsigned i = 0; i < janitor->lanes->count; i++) {
    look_at_due(janitor, janitor->lanes->lanes[i]);
    int64_t due_ms = lane_due_in(janitor->lanes->lanes[i]);
    if (due_ms != DUE_NEVER && due_ms < wait_ms)
      wait_ms = due_ms;
  }
  return wait_ms;
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
                       .retention_clock = RETENTION_CLOCK_INIT,
                       .refusals_recorded = UINT64_MAX, /* those of the owner before it are over */
                       .next_sweep = clock_us() + config->settings.sweep_interval_ms * 1000};
  if (!sweep_now(janitor, 0, ret_failure) ||
      !outcomes_each_missing(store, config->name, remember_missing, lanes->watch, ret_failure))
    return NULL;
  return g_steal_pointer(&janitor);
}

static gpointer run(gpointer data) {
  Janitor *janitor = data;
  while (!stop_requested(janitor->stop))
    alarm_sleep(janitor->lanes->due, step(janitor));
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
  outbox_free(janitor->outbox);
  g_free(janitor);
}

void janitor_note_behind(Janitor *janitor, int64_t behind_ms) {
  g_atomic_int_set(&janitor->is_current,
                   behind_ms < janitor->config->settings.ledger_retention_s * 1000 / 2);
}

void janitor_review(Janitor *janitor) {
  for (unsigned i = 0; i < janitor->lanes->count; i++)
    lane_review_holds(janitor->lanes->lanes[i]);
}

/* resolve.c - retry, skip and refresh: the operator's decisions about failed events.
 *
 * Each works beside a running projector, in any process: events are taken over by compare and set,
 * MySQL is written under an exclusive lock of the fence, and the owner is nudged to look again. */
#include "projector/app/shared/resolve.h"

#include "projector/app/shared/identity.h"
#include "projector/app/shared/refresh.h"
#include "projector/infra/mongo/lease.h"

#include <unistd.h>

const char *const resolve_blocking[] = {"failed", "dead", NULL};

static _Thread_local const char *asked_by;

void resolve_for(const char *person) {
  asked_by = person;
}

Event *resolve_show(MongoStore *store, const char *event_id, const char *kind,
                    Failure *ret_failure) {
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "show");
  const Selection selection = {.event_id = event_id, .id_kind = kind, .limit = 1};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &selection);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  return document ? event_decode(document) : NULL;
}

/* "all dead events", "event x", "account a1": what was selected. */
static char *name_of(const Selection *selection) {
  if (selection->event_id)
    return g_strdup_printf("event %s", selection->event_id);
  if (selection->aggregate_id)
    return g_strdup_printf("%s %s", selection->aggregate_type, selection->aggregate_id);
  if (selection->error_message)
    return g_strdup_printf("%s, %s: %s", selection->event_type ? selection->event_type : "any type",
                           selection->error_class ? selection->error_class : "any class",
                           selection->error_message);
  if (selection->error_class)
    return g_strdup_printf("%s, %s", selection->event_type ? selection->event_type : "any type",
                           selection->error_class);
  return g_strdup(selection->event_type ? selection->event_type : "all dead events");
}

bool resolve_report(const Config *config, MongoStore *store, const char *act,
                    Failure *ret_failure) {
  g_autofree char *user = g_strdup_printf("%s@%s", g_get_user_name(), g_get_host_name());
  g_autofree char *line =
      g_strdup_printf("%s, by %s (pid %d%s%s)", act, asked_by ? asked_by : user, (int)getpid(),
                      asked_by ? " of " : "", asked_by ? user : "");
  return lease_report(store, config->name, line, ret_failure);
}

bool resolve_pause(const Config *config, MongoStore *store, bool pause, PauseChange *ret_change,
                   Failure *ret_failure) {
  g_autofree char *user = g_strdup_printf("%s@%s", g_get_user_name(), g_get_host_name());
  g_autofree char *by = asked_by ? g_strdup_printf("%s of %s", asked_by, user) : g_strdup(user);
  return lease_pause(store, config->name, pause ? by : NULL, ret_change, ret_failure) &&
         (!ret_change->changed ||
          resolve_report(config, store, pause ? "pause" : "resume", ret_failure));
}

static bool report_events(const Config *config, MongoStore *store, const char *verb,
                          const Selection *selection, int64_t count, Failure *ret_failure) {
  g_autofree char *name = name_of(selection);
  g_autofree char *act = g_strdup_printf("%s of %lld event%s (%s)", verb, (long long)count,
                                         count == 1 ? "" : "s", name);
  return count == 0 || resolve_report(config, store, act, ret_failure);
}

/* --- retry ------------------------------------------------------------------------------------ */

bool resolve_retry(const Config *config, MongoStore *store, const Selection *selection,
                   int64_t *ret_count, Failure *ret_failure) {
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "retry");
  return selection_retry(outbox, selection, ret_count, ret_failure) &&
         report_events(config, store, "retry", selection, *ret_count, ret_failure);
}

/* --- skip ------------------------------------------------------------------------------------- */

/* In one transaction, the ledger gets `skipped` and the event's version is accounted for. Events
 * that sort before it do not become late. `event->skipped` is set to what the ledger says. */
static bool record_skipped(Session *session, const Ledger *ledger, Event *event,
                           Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  Item item = {.event = event, .verdict = VERDICT_SKIPPED};
  AggregateState *state = aggregate_set_open(set, &event->aggregate);
  bool repeated = false;
  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, ledger, set, arena, ret_failure) ||
      !ledger_insert(session, ledger, &item, 1, &repeated, ret_failure))
    return false;
  if (repeated) { /* already applied or skipped: nothing to record */
    session_rollback(session);
    *ret_failure = (Failure){0};
    return ledger_find_known(session, ledger, &item, 1, ret_failure);
  }
  order_pass(&state->position, event);
  state->moved = true;
  return ledger_write_positions(session, ledger, set, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

/* An event without a readable id or aggregate has no place in the ledger, so it is only removed. */
static bool skip_event(Session *session, const Ledger *ledger, Outbox *outbox, Event *event,
                       bool *ret_skipped, Failure *ret_failure) {
  if (!outbox_seize(outbox, event, ret_skipped, ret_failure))
    return false;
  if (!*ret_skipped)
    return true;
  bool recorded = true;
  event->skipped = true;
  if (event_has_aggregate(event)) {
    recorded = record_skipped(session, ledger, event, ret_failure);
    session_rollback(session);
  }
  if (recorded)
    return outbox_acknowledge(outbox, &event, 1, ret_failure);
  Failure ignored; /* the sweeper will find it */
  outbox_unseize(outbox, event, &ignored);
  return false;
}

static bool skip_selected(const Config *config, MongoStore *store, const Selection *selection,
                          SkippedSink sink, void *data, int64_t *ret_count, Failure *ret_failure) {
  Ledger ledger = {.projector = config->name};
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "skip");
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  g_autoptr(EventCursor) cursor = selection_find(outbox, selection);
  const bson_t *document;
  *ret_count = 0;
  if (!session || !identity_verify(config, store, session, ret_failure) ||
      !outbox_can_keep(outbox, ret_failure))
    return false;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    bool skipped;
    if (!skip_event(session, &ledger, outbox, event, &skipped, ret_failure))
      return false;
    *ret_count += skipped;
    if (skipped && sink)
      sink(event, data);
  }
  return ret_failure->class == FAILURE_NONE;
}

bool resolve_skip_reporting(const Config *config, MongoStore *store, const Selection *selection,
                            SkippedSink sink, void *data, int64_t *ret_count,
                            Failure *ret_failure) {
  Failure ignored = {0}; /* what was done is reported, whatever ended it */
  bool good = skip_selected(config, store, selection, sink, data, ret_count, ret_failure);
  return report_events(config, store, good ? "skip" : "interrupted skip", selection, *ret_count,
                       good ? ret_failure : &ignored) &&
         good;
}

bool resolve_skip(const Config *config, MongoStore *store, const Selection *selection,
                  int64_t *ret_count, Failure *ret_failure) {
  return resolve_skip_reporting(config, store, selection, NULL, NULL, ret_count, ret_failure);
}

/* --- refresh ---------------------------------------------------------------------------------- */

/* A failed event that the entity now contains may pass: the projector supersedes it. Nobody applies
 * it, so it is kept as a skipped one is. */
static bool free_contained(Outbox *outbox, const Aggregate *aggregate, Refreshed *done,
                           Failure *ret_failure) {
  const Selection selection = {.aggregate = aggregate, .states = resolve_blocking};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &selection);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    const Selection one = {.event = &event->key.event_id, .states = resolve_blocking};
    int64_t count;
    if (event->key.version == 0 || event->key.version > done->version) {
      done->left++;
      continue;
    }
    if (!outbox_keep(outbox, event, ret_failure) ||
        !selection_retry(outbox, &one, &count, ret_failure))
      return false;
    done->freed += count;
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool count_unversioned(Outbox *outbox, const Aggregate *aggregate, int64_t *ret_count,
                              Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = outbox_find_keys(outbox, aggregate, 0);
  const bson_t *document;
  *ret_count = 0;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    *ret_count += event->key.version == 0;
  }
  return ret_failure->class == FAILURE_NONE;
}

/* If an entity is missing, what was read of it decides, so one transaction reads and writes. */
static bool refresh_rows(const Config *config, Session *session, Outbox *outbox,
                         const Aggregate *aggregate, bool entity_needed, int64_t *ret_version,
                         Failure *ret_failure) {
  Ledger ledger = {.projector = config->name};
  Refresh one = {.aggregate = aggregate, .entity_needed = entity_needed};
  RefreshWith with = {session, &ledger, outbox, config->mapping, NULL};
  if (!refresh_aggregates(&with, &one, 1, ret_failure))
    return false;
  *ret_version = one.version;
  if (one.failure.class != FAILURE_NONE)
    *ret_failure = one.failure;
  return one.failure.class == FAILURE_NONE;
}

static bool report_refresh(const Config *config, MongoStore *store, const Sought *sought,
                           bool entity_needed, int64_t freed, Failure *ret_failure) {
  g_autofree char *kept = freed ? g_strdup_printf(", which supersedes %lld failed or dead event%s",
                                                  (long long)freed, freed == 1 ? "" : "s")
                                : g_strdup("");
  g_autofree char *act = g_strdup_printf("refresh of %s %s%s%s", sought->type, sought->text,
                                         entity_needed ? "" : " (with --force)", kept);
  return resolve_report(config, store, act, ret_failure);
}

static bool refresh(const Config *config, MongoStore *store, Sought *sought, bool entity_needed,
                    Refreshed *ret_refreshed, Failure *ret_failure) {
  Refreshed done = {0};
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "refresh");
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  if (!session || !identity_verify(config, store, session, ret_failure) ||
      !find_one_aggregate(config, outbox, sought, ret_failure))
    return false;
  done.found = sought->found;
  if (done.found && !refresh_rows(config, session, outbox, &sought->aggregate, entity_needed,
                                  &done.version, ret_failure))
    return false;
  if (done.found) {
    Failure ignored = {0}; /* the rows are written, so it is reported, whatever ended it */
    bool good = free_contained(outbox, &sought->aggregate, &done, ret_failure) &&
                count_unversioned(outbox, &sought->aggregate, &done.unversioned, ret_failure);
    if (!report_refresh(config, store, sought, entity_needed, done.freed,
                        good ? ret_failure : &ignored) ||
        !good)
      return false;
  }
  *ret_refreshed = done;
  return true;
}

bool resolve_refresh(const Config *config, MongoStore *store, Sought *sought,
                     Refreshed *ret_refreshed, Failure *ret_failure) {
  return refresh(config, store, sought, false, ret_refreshed, ret_failure);
}

bool resolve_refresh_safely(const Config *config, MongoStore *store, Sought *sought,
                            Refreshed *ret_refreshed, Failure *ret_failure) {
  return refresh(config, store, sought, true, ret_refreshed, ret_failure);
}

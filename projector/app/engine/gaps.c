/* gaps.c - what is said of versions that are missing, once their time is over. */
#include "projector/app/engine/janitor_private.h"
#include "projector/app/engine/owner_session.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/archive.h"
#include "projector/infra/mongo/outcomes.h"

enum { NOTED_RANGES = 16 }; /* of the missing versions of one gap */

G_STATIC_ASSERT((int)WATCH_MISSED_MAX >= (int)OUTCOMES_MAX);

bool gap_is_due(const HoldView *hold) {
  return !hold->draining && hold->reason == HOLD_GAP && hold->call == CALL_DUE;
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

void report_gaps(Janitor *janitor, const HoldView *holds, unsigned count, GapReport *reports) {
  g_autoptr(GArray) missing = g_array_new(FALSE, FALSE, sizeof(VersionOutcome));
  g_autoptr(Session) session = NULL; /* for all of them, once one lacks a version */
  for (unsigned i = 0; i < count && !janitor->away && !stop_requested(janitor->stop); i++) {
    unsigned before = missing->len;
    Failure failure = {0};
    if (!gap_is_due(&holds[i]))
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

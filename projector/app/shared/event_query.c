/* event_query.c - reads archived events page by page, in the order of their numbers. */
#include "projector/app/shared/event_query.h"

#include "outbox/text/clean.h"
#include "projector/domain/readable.h"
#include "projector/infra/clock.h"
#include "projector/infra/mongo/numbering.h"
#include "projector/infra/mongo/selection.h"

#include <string.h>

enum {
  PAGE = 200,
  FOLLOW_MS = 250, /* between two looks for new events */
  AHEAD_MS = 3000, /* so long a counter may show less than a reader has seen, after a failover or in
                      a sharded cluster */
};

void event_query_init(EventQuery *query) {
  *query = (EventQuery){.from = INT64_MIN, .to = INT64_MAX};
}

void event_query_clear(EventQuery *query) {
  g_free(query->aggregate_type);
  g_free(query->aggregate_id);
  g_free(query->id_kind);
  g_free(query->event_type);
}

/* --- what is asked for ---------------------------------------------------------------------- */

static bool expect(const char *key, const char *expected, const char *value, Failure *ret_failure) {
  return failure_refuse(ret_failure, "%s: expected %s, found %.80s", key, expected, value);
}

static bool set_number(const char *key, const char *value, int64_t least, int64_t *ret_number,
                       Failure *ret_failure) {
  return g_ascii_string_to_signed(value, 10, least, INT64_MAX, ret_number, NULL) ||
         expect(key, least ? "a number from 1" : "a number from 0", value, ret_failure);
}

/* An RFC 3339 time, a date, or milliseconds since 1970. */
static bool set_time(const char *key, const char *value, int64_t *ret_ms, Failure *ret_failure) {
  g_autofree char *day = strlen(value) == strlen("2026-01-31")
                             ? g_strconcat(value, "T00:00:00Z", NULL)
                             : g_strdup(value);
  if (g_ascii_string_to_signed(value, 10, INT64_MIN, INT64_MAX, ret_ms, NULL))
    return true;
  g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
  g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(day, utc);
  if (!time)
    return expect(key, "a time like 2026-01-31T23:59:59Z", value, ret_failure);
  *ret_ms = g_date_time_to_unix(time) * 1000 + g_date_time_get_microsecond(time) / 1000;
  return true;
}

static bool set_flag(const char *key, const char *value, bool *ret_flag, Failure *ret_failure) {
  static const char *const yes[] = {"", "1", "true", "yes", NULL};
  static const char *const no[] = {"0", "false", "no", NULL};
  *ret_flag = g_strv_contains(yes, value);
  return *ret_flag || g_strv_contains(no, value) || expect(key, "1 or 0", value, ret_failure);
}

static bool set_text(const char *key, const char *value, char **text, Failure *ret_failure) {
  if (!*value || !g_utf8_validate(value, -1, NULL))
    return expect(key, "a text in UTF-8", *value ? "other bytes" : "nothing", ret_failure);
  g_free(*text);
  *text = g_strdup(value);
  return true;
}

bool event_query_set(EventQuery *query, const char *key, const char *value, Failure *ret_failure) {
  if (!strcmp(key, "after"))
    return set_number(key, value, 0, &query->after, ret_failure);
  if (!strcmp(key, "version"))
    return set_number(key, value, 1, &query->version, ret_failure);
  if (!strcmp(key, "limit"))
    return set_number(key, value, 0, &query->limit, ret_failure);
  if (!strcmp(key, "from"))
    return set_time(key, value, &query->from, ret_failure);
  if (!strcmp(key, "to"))
    return set_time(key, value, &query->to, ret_failure);
  if (!strcmp(key, "follow"))
    return set_flag(key, value, &query->follow, ret_failure);
  if (!strcmp(key, "waiting"))
    return set_flag(key, value, &query->waiting, ret_failure);
  if (!strcmp(key, "aggregate_type"))
    return set_text(key, value, &query->aggregate_type, ret_failure);
  if (!strcmp(key, "aggregate_id"))
    return set_text(key, value, &query->aggregate_id, ret_failure);
  if (!strcmp(key, "event_type"))
    return set_text(key, value, &query->event_type, ret_failure);
  if (!strcmp(key, "aggregate_id_kind"))
    return id_kind_from_name(value, &(IdKind){0})
               ? set_text(key, value, &query->id_kind, ret_failure)
               : expect(key, "string, int, uuid or objectid", value, ret_failure);
  return failure_refuse(ret_failure,
                        "%.40s: unknown; known here: after, aggregate_type, aggregate_id, "
                        "aggregate_id_kind, version, event_type, from, to, limit, follow, waiting",
                        key);
}

bool event_query_check(const EventQuery *query, const Config *config, Failure *ret_failure) {
  if (!config->mongodb.archive)
    return failure_refuse(ret_failure,
                          "mongodb.retain is \"delete\": applied events are deleted and cannot be "
                          "fetched again; \"archive\" keeps them from then on");
  if (query->aggregate_id && !query->aggregate_type)
    return failure_refuse(ret_failure, "aggregate_id: expected aggregate_type beside it");
  if (query->id_kind && !query->aggregate_id)
    return failure_refuse(ret_failure, "aggregate_id_kind: expected aggregate_id beside it");
  if (query->version && !query->aggregate_id)
    return failure_refuse(ret_failure,
                          "version: expected aggregate_type and aggregate_id beside it");
  if (query->follow && query->waiting)
    return failure_refuse(ret_failure,
                          "waiting: events that wait have no cursor, so they cannot be "
                          "followed; leave out follow or waiting");
  return true;
}

static Selection selection_of(const EventQuery *query) {
  return (Selection){.aggregate_type = query->aggregate_type,
                     .aggregate_id = query->aggregate_id,
                     .id_kind = query->id_kind,
                     .version = query->version,
                     .event_type = query->event_type,
                     .in_time = query->from != INT64_MIN || query->to != INT64_MAX,
                     .from = query->from,
                     .to = query->to};
}

/* --- lines ---------------------------------------------------------------------------------- */

static bool enough(const EventReading *reading) {
  return reading->query->limit > 0 && reading->lines >= reading->query->limit;
}

/* A text that is not UTF-8 is repaired; of what cannot be written even then only the cursor is
 * left, so that its reader can go on. Free with bson_free. */
static char *as_json(const bson_t *line, int64_t cursor) {
  bson_t readable = BSON_INITIALIZER, bare = BSON_INITIALIZER;
  char *json = bson_as_relaxed_extended_json(line, NULL);
  if (!json) {
    if (!readable_append(line, &readable))
      BSON_APPEND_BOOL(&readable, "unreadable", true);
    json = bson_as_relaxed_extended_json(&readable, NULL);
  }
  if (!json) {
    if (cursor)
      BSON_APPEND_INT64(&bare, "cursor", cursor);
    BSON_APPEND_BOOL(&bare, "unreadable", true);
    json = bson_as_relaxed_extended_json(&bare, NULL);
  }
  bson_destroy(&readable);
  bson_destroy(&bare);
  return json;
}

/* The event with its cursor. One that waits shows its state, an archived one when it was kept. */
static bool write_line(EventReading *reading, const bson_t *document, int64_t cursor) {
  bson_t line = BSON_INITIALIZER;
  if (cursor)
    BSON_APPEND_INT64(&line, "cursor", cursor);
  bson_t event = BSON_INITIALIZER;
  event_append_without(document, cursor ? OWN_NUMBER | OWN_ATTEMPTS : OWN_FED, &event);
  bson_copy_to_excluding_noinit(&event, &line, "cursor", NULL);
  bson_destroy(&event);
  char *json = as_json(&line, cursor);
  bson_destroy(&line);
  g_autofree char *clean = json_text_clean(json);
  g_autofree char *text = g_strconcat(clean, "\n", NULL);
  bson_free(json);
  reading->lines++;
  return reading->sink(text, strlen(text), reading->data);
}

/* Delivers one page after `*after`. Returns false when the reader has enough, or on failure. */
static bool write_page(EventReading *reading, Archive *archive, AsOf as_of, int64_t *after,
                       int *ret_count, Failure *ret_failure) {
  Outbox *events = archive_events(archive);
  const Selection selection = selection_of(reading->query);
  g_autoptr(EventCursor) cursor =
      numbering_find(events, selection_filter(events, &selection), *after, as_of, PAGE);
  const bson_t *document = NULL;
  bool more = true;
  *ret_count = 0;
  while (more && *ret_count < PAGE && (document = event_cursor_next(cursor, ret_failure))) {
    *after = numbering_of(document);
    ++*ret_count;
    more = write_line(reading, document, *after) && !enough(reading);
  }
  return more && ret_failure->class == FAILURE_NONE;
}

/* Everything up to `known` has been seen, even if the filter left it out: the last page shows the
 * moment at which `known` was read, or a later one. This does not hold in a sharded cluster, whose
 * shards learn of a transaction one after another. */
static void skip_seen(Archive *archive, int64_t known, int64_t *after) {
  if (!mongo_store_is_sharded(archive_store(archive)))
    *after = MAX(*after, known);
}

static bool fail_ahead(int64_t after, int64_t known, Failure *ret_failure) {
  return failure_set(ret_failure, FAILURE_HISTORY, SOURCE_PROJECTOR, 0,
                     "the cursor %" G_GINT64_FORMAT " is ahead of the archive, which ends at "
                     "%" G_GINT64_FORMAT ": MongoDB was restored? read again from an earlier "
                     "cursor",
                     after, known);
}

/* What a reader has not seen, and the archive no longer has: a TTL, for example, removes the oldest
 * events. Whoever begins at 0 asks for what there is. */
static bool check_pruned(Archive *archive, int64_t after, int64_t known, Failure *ret_failure) {
  int64_t oldest;
  if (after == 0 || known <= after)
    return true;
  if (!numbering_oldest(archive_events(archive), &oldest, ret_failure))
    return false;
  if (oldest == 0)
    oldest = known + 1;
  return oldest <= after + 1 ||
         failure_set(ret_failure, FAILURE_HISTORY, SOURCE_PROJECTOR, 0,
                     "the events behind the cursor %" G_GINT64_FORMAT " are no longer in the "
                     "archive, which begins at %" G_GINT64_FORMAT ": rebuild the store that is "
                     "filled from them, then read on from 0",
                     after, oldest);
}

/* The last number; 0: the counter is missing, and nobody knows. Numbers never go down, unless
 * MongoDB was restored: then the next ones would be below what this reader has seen, and it would
 * miss their events. */
static bool look(const EventReading *reading, Archive *archive, int64_t after, int64_t *ret_known,
                 Moment *ret_moment, Failure *ret_failure) {
  const char *outbox = reading->config->mongodb.outbox;
  for (int64_t ends_at = clock_us() + AHEAD_MS * 1000;;) {
    if (!numbering_last(archive_store(archive), outbox, ret_known, ret_moment, ret_failure))
      return false;
    if (*ret_known == 0 || *ret_known >= after)
      return check_pruned(archive, after, *ret_known, ret_failure);
    if (clock_us() >= ends_at)
      return fail_ahead(after, *ret_known, ret_failure);
    if (!reading->pause(FOLLOW_MS, reading->data))
      return false;
  }
}

bool event_query_look(const EventReading *reading, Archive *archive, Failure *ret_failure) {
  int64_t known;
  *ret_failure = (Failure){0};
  return look(reading, archive, reading->query->after, &known, NULL, ret_failure);
}

static bool write_archived(EventReading *reading, Archive *archive, int64_t *after,
                           Failure *ret_failure) {
  int64_t known = 0;
  for (;;) {
    int count = 0;
    AsOf later = {.exactly = false};
    int64_t begun = clock_us();
    if (!look(reading, archive, *after, &known, &later.moment, ret_failure))
      return false;
    bool more = known == 0 || known > *after;
    if (more && !write_page(reading, archive, later, after, &count, ret_failure))
      return false;
    if (count < PAGE && !reading->query->follow)
      return true;
    if (count < PAGE)
      skip_seen(archive, known, after);
    /* After a page, rests as long as the page took, because others read and write there too. */
    if (!reading->pause(count < PAGE ? FOLLOW_MS : (clock_us() - begun) / 1000, reading->data))
      return false;
  }
}

/* Returns false when the reader has enough, or on failure. */
static bool write_unnumbered(EventReading *reading, Outbox *events, AsOf as_of, bool archived,
                             Failure *ret_failure) {
  const Selection selection = selection_of(reading->query);
  bson_t *filter = selection_filter(events, &selection);
  if (archived)
    numbering_append_missing(filter);
  g_autoptr(EventCursor) cursor = numbering_find_in_order(events, filter, as_of);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure)))
    if (!write_line(reading, document, 0) || enough(reading))
      return false;
  return ret_failure->class == FAILURE_NONE ||
         failure_prefix(ret_failure,
                        "the events that wait have to be read within the time for which "
                        "MongoDB keeps its state of a moment "
                        "(minSnapshotHistoryWindowInSeconds, 5 minutes)");
}

/* What is still without a cursor: archived events, and those in the outbox. An event goes from
 * there to the archive, and gets a number then. So all three are read as of one moment: none is
 * missed on its way. */
static bool write_waiting(EventReading *reading, Archive *archive, int64_t after,
                          Failure *ret_failure) {
  g_autoptr(Outbox) outbox =
      outbox_new_on(archive_store(archive), "", reading->config->mongodb.outbox);
  AsOf now = {.exactly = true};
  int64_t known;
  int count;
  if (!look(reading, archive, after, &known, &now.moment, ret_failure))
    return false;
  do {
    if (!write_page(reading, archive, now, &after, &count, ret_failure))
      return false;
  } while (count == PAGE);
  return write_unnumbered(reading, archive_events(archive), now, true, ret_failure) &&
         write_unnumbered(reading, outbox, now, false, ret_failure);
}

bool event_query_run(EventReading *reading, Archive *archive, Failure *ret_failure) {
  int64_t after = reading->query->after;
  reading->lines = 0;
  *ret_failure = (Failure){0};
  return (write_archived(reading, archive, &after, ret_failure) &&
          (!reading->query->waiting || write_waiting(reading, archive, after, ret_failure))) ||
         ret_failure->class == FAILURE_NONE;
}

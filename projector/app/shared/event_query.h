/* event_query.h - events on demand: the query for archived events and the resulting lines, shared
 * by `projector events` and GET /events.
 *
 * Each event is one line of relaxed Extended JSON with a field `cursor`, its sequence number:
 * passed as `after`, reading continues behind it. Reading changes nothing. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/archive.h"

typedef struct EventQuery {
  int64_t after; /* 0: from the first */
  int64_t from,
      to; /* occurred_at in ms since 1970: from ≤ it < to; INT64_MIN, INT64_MAX: unbound */
  int64_t version; /* of the aggregate; 0: any */
  int64_t limit;   /* most events; 0: all */
  bool follow;     /* waits for new events until it is stopped */
  bool waiting;    /* outbox events too, after the archived ones and without a cursor */
  /* NULL: any; the id in its usual text form, and its kind (id_kind_name). */
  char *aggregate_type, *aggregate_id, *id_kind, *event_type;
} EventQuery;

void event_query_init(EventQuery *query);
void event_query_clear(EventQuery *query);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(EventQuery, event_query_clear)

/* Sets what `key` names, as in the query of GET /events: after, aggregate_type, aggregate_id,
 * aggregate_id_kind, version, event_type, from, to, limit, follow, waiting. FAILURE_CONFIG for an
 * invalid parameter. */
bool event_query_set(EventQuery *query, const char *key, const char *value, Failure *ret_failure);
/* Whether the parameters are consistent with each other and with the mapping file. */
bool event_query_check(const EventQuery *query, const Config *config, Failure *ret_failure);

/* Takes a line with its newline, and may wait for a slow reader. Returns false to stop. */
typedef bool (*LineSink)(const char *line, size_t length, void *data);
/* Waits that long. Returns false to stop. */
typedef bool (*Pause)(int64_t ms, void *data);

typedef struct EventReading {
  const Config *config;
  const EventQuery *query;
  LineSink sink;
  Pause pause; /* between two looks for more, and between two pages */
  void *data;
  int64_t lines; /* out: how many were written */
} EventReading;

/* Whether the query's cursor is one that the archive has reached. FAILURE_HISTORY: it is ahead of
 * the last number, so MongoDB was restored to an earlier state. Returns false without a failure
 * when `pause` returned false; nothing is written. */
bool event_query_look(const EventReading *reading, Archive *archive, Failure *ret_failure);
/* Writes all lines of the query; fails as event_query_look does, also later; ends early when sink
 * or pause return false. Needs memory for one page of events. */
bool event_query_run(EventReading *reading, Archive *archive, Failure *ret_failure);

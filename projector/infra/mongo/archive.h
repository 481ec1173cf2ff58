/* archive.h - applied events, with "retain": "archive": the collection "<outbox>_archive".
 *
 * It contains the same documents as the outbox, with `applied_at` (and `skipped_at` for skipped
 * events), so it is read as an Outbox: the look-ups of outbox.h work on it. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct Archive Archive;

Archive *archive_open(const MongoSettings *settings, Failure *ret_failure);
void archive_close(Archive *archive);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Archive, archive_close)

Outbox *archive_events(Archive *archive);
MongoStore *archive_store(Archive *archive);
/* Skipped events do not count: they are kept without "retain" too. */
bool archive_is_empty(Archive *archive, bool *ret_empty, Failure *ret_failure);

/* An event of the archive, with `skipped` set accordingly. Never NULL. */
Event *archive_decode(const bson_t *document);

/* Roughly how many events it holds. */
bool archive_estimate(Archive *archive, int64_t *ret_count, Failure *ret_failure);

/* A time of INT64_MIN or INT64_MAX is no bound. */
typedef struct EventRange {
  const char *aggregate_type;
  int64_t from, to; /* occurred_at in ms since 1970: from ≤ it < to */
} EventRange;

bool event_in_range(const EventRange *range, const Event *event);

/* The range, cut at the latest event that exists now, so that a scan does not chase events archived
 * meanwhile. */
bool archive_bound(Archive *archive, EventRange *range, Failure *ret_failure);
/* The range's events, in order. */
EventCursor *archive_scan(Archive *archive, const EventRange *range);
/* Those of the events that are there, in no order; majority. For the outbox too. */
EventCursor *archive_find_ids(Outbox *events, const Id *ids, size_t count);
/* Every event of the type, by aggregate: only aggregates and ids. */
EventCursor *archive_list_aggregates(Archive *archive, const char *aggregate_type);
/* The outbox's or the archive's events of that aggregate, in order, all of them. */
EventCursor *archive_find_aggregate(Outbox *events, const Aggregate *aggregate);
/* The archive's, in no order: only ids, and whether they were skipped. At most `limit`; 0: all. */
EventCursor *archive_find_marks(Archive *archive, const Aggregate *aggregate, int limit);

/* Puts archived events with versions from `first` to `last` back into the outbox, as pending;
 * skipped ones stay out. `*ret_found`: how many of them the outbox contains now. The outbox need
 * not have an archive. */
bool archive_put_back(Outbox *outbox, const Aggregate *aggregate, int64_t first, int64_t last,
                      int64_t *ret_found, Failure *ret_failure);

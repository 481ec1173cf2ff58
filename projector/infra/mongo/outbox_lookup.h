/* outbox_lookup.h - reads the outbox; each cursor yields event documents, in order unless it says
 * otherwise. */
#pragma once

#include "projector/domain/event.h"

typedef struct Outbox Outbox; /* outbox.h */
typedef struct EventCursor EventCursor;

void event_cursor_free(EventCursor *cursor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EventCursor, event_cursor_free)
/* The next document, NULL at the end or on failure (see `ret_failure->class`). */
const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure);

/* A moment of MongoDB's cluster time; seconds 0: none. */
typedef struct Moment {
  uint32_t seconds, increment;
} Moment;

/* When the last answer was read, of a cursor that has a session; otherwise none. */
Moment event_cursor_moment(const EventCursor *cursor);

/* All events, in whatever state, as they were at one moment, and that moment: a change stream from
 * it on and this scan together miss nothing. */
EventCursor *outbox_scan(Outbox *outbox, uint32_t *ret_seconds, uint32_t *ret_increment,
                         Failure *ret_failure);
/* Events in_progress that were claimed longer ago than that by the server's clock, whoever did;
 * with 0 all that this owner has not claimed. Without payload and metadata, in no order. */
EventCursor *outbox_find_abandoned(Outbox *outbox, int64_t older_than_ms);
/* Events of one aggregate in any state, at most `limit`, those behind `after` (NULL: from the
 * first). */
EventCursor *outbox_find_aggregate(Outbox *outbox, const Aggregate *aggregate,
                                   const OrderKey *after, int limit);
/* The first events of one aggregate, with nothing in their payloads. */
EventCursor *outbox_find_keys(Outbox *outbox, const Aggregate *aggregate, int limit);
/* Those with a version, the highest first; with nothing in their payloads. */
EventCursor *outbox_find_newest(Outbox *outbox, const Aggregate *aggregate);
/* Events of one aggregate with a version in [first, last]. */
EventCursor *outbox_find_versions(Outbox *outbox, const Aggregate *aggregate, int64_t first,
                                  int64_t last);
/* Those of the events that are there, in no order, with `due_in_ms` by the server's clock, without
 * payload and metadata. Reads with local read concern, to see this projector's latest writes: only
 * for events that were read before. */
EventCursor *outbox_find_events(Outbox *outbox, const Id *const *ids, size_t count);
/* One of them, whole. */
EventCursor *outbox_find_event(Outbox *outbox, const Id *id);

/* Events of any of the aggregates, all of one type, in any state and in no order: with
 * nothing in their payloads. */
EventCursor *outbox_find_of_any(Outbox *outbox, const Aggregate *const *aggregates, size_t count);
/* Every event, in no order: the same of each. */
EventCursor *outbox_list_events(Outbox *outbox);

/* Removes from `ids` (of Id) those whose events are in the outbox. */
bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure);

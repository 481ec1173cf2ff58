/* events.h - the events of the bench, the same at every run.
 *
 *   upsert   every event carries the whole account: an upsert
 *   delta    the first event of an account opens it, all others add to its balance
 *   bank     what `outbox demo` writes: opened, deposited, withdrawn, renamed, statement sent,
 *            frozen (an SQL statement), closed and opened again
 *
 * What the rows have to be in the end is kept beside. */
#pragma once

#include <glib.h>
#include <mongoc/mongoc.h>

typedef struct Events Events;

/* What the table has to hold when all events were applied. */
typedef struct Totals {
  gint64 rows;
  gint64 balance; /* of all rows together; in cents for the bank */
} Totals;

/* NULL: there is no such workload. Account ids begin with `prefix`, which the caller keeps. */
Events *events_new(const char *workload, const char *prefix, guint aggregates);
void events_free(Events *events);

/* From now on whole states carry a text of so many bytes that no column takes. */
void events_fill(Events *events, guint bytes);

/* Fills an initialized document. `occurred_at` must rise by at least 1 ms from event to event of
 * one account. Accounts take turns, so that the event after `aggregates` others is of the same. */
void events_next(Events *events, gint64 occurred_at, bson_t *ret_event);
Totals events_totals(const Events *events);

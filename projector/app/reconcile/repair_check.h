/* repair_check.h - verifies rows written by a repair, refresh or rebuild before they are reported
 * as correct.
 *
 * A trigger, a generated column or a key that considers two ids equal may change what was written;
 * only reading the row shows that. */
#pragma once

#include "projector/app/reconcile/recheck.h"

/* "account: different columns, name: entity Ada, row ADA"; for a row's difference. Free with
 * g_free. */
char *difference_text(const Difference *difference);

/* For repaired differences of `recheck->layout` that are still there, sets `repaired` to false and
 * the outcome accordingly. Texts live in the arena. */
bool repair_check_rows(const Recheck *recheck, Difference *differences, size_t count, Arena *arena,
                       Failure *ret_failure);

/* The same for dead events whose aggregates were refreshed. */
bool repair_check_events(Stores *stores, Difference *differences, size_t count, Arena *arena,
                         Failure *ret_failure);

/* The first difference between the aggregate's entity and its rows, in all projections of its type
 * that can be compared, as one line of text; NULL: none that lasts. Free with g_free. */
bool repair_check_aggregate(Stores *stores, const Aggregate *aggregate, char **ret_still,
                            Failure *ret_failure);

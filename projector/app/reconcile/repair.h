/* repair.h - repairs the findings of reconcile while a projector runs.
 *
 * Rows are repaired by refresh.h, many aggregates in one transaction under an exclusive lock of the
 * fence: no event is applied meanwhile, and none that the refreshed entity contains is applied
 * afterwards. */
#pragma once

#include "projector/app/reconcile/difference.h"
#include "projector/app/shared/refresh.h"

/* Fills outcome and repaired of each; the texts live in the arena. Returns false when a store
 * cannot be reached. */
bool repair_differences(Stores *stores, Difference *differences, size_t count, Arena *arena,
                        Failure *ret_failure);
/* Describes the repair without doing it. */
void repair_plan(Difference *differences, size_t count);

/* Refreshes in one transaction. A row that MySQL refuses is found by halving the batch and recorded
 * in that refresh's failure; the others are written. Returns false when a store cannot be
 * reached. */
bool repair_refresh(Stores *stores, const Prefetch *prefetch, Refresh *refreshes, size_t count,
                    Failure *ret_failure);

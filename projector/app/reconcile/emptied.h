/* emptied.h - a collection of entities that is empty or not there, while its table has rows.
 *
 * Every row is then one without an entity. It is likelier that the mapping misspells the
 * collection, or that it was dropped or not restored yet, than that all entities were deleted: rows
 * are deleted only when the operator says so. */
#pragma once

#include "projector/app/shared/stores.h"

/* The first table that the events of the type fill, and whose entities are all gone although it has
 * rows that are not marked as deleted; NULL: none. */
bool emptied_find(Stores *stores, const char *aggregate_type, const Projection **ret_emptied,
                  Failure *ret_failure);
/* Refuses when there is such a table (class CONFIG): before rows are deleted or replaced. */
bool emptied_refuse(Stores *stores, const char *aggregate_type, Failure *ret_failure);

/* emptied.h - a collection of entities that does not exist, while its table has rows.
 *
 * Every row is then one without an entity. It is likelier that the mapping misspells the
 * collection, or that it was not restored yet, than that all entities are gone: rows are deleted
 * only when the operator says so. A collection without documents is believed. */
#pragma once

#include "projector/app/shared/stores.h"

/* The first table that the events of the type fill, and whose entities' collection is missing
 * although it has rows that are not marked as deleted; NULL: none. */
bool emptied_find(Stores *stores, const char *aggregate_type, const Projection **ret_emptied,
                  Failure *ret_failure);
/* Refuses when there is such a table (class CONFIG): before rows are deleted or replaced. */
bool emptied_refuse(Stores *stores, const char *aggregate_type, Failure *ret_failure);

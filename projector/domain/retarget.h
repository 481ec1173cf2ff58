/* retarget.h - the mapping of one projection that fills another table of the same shape. */
#pragma once

#include "projector/domain/mapping.h"

/* The mapping of `projection` alone, from the whole file `json`, with `table` instead of its own,
 * also in the statements of its `sql` rules, which must not change anything else. Events that it
 * does not name are ignored, and nothing can be refreshed. NULL when a statement cannot be
 * redirected to the other table. */
Mapping *mapping_retarget(const json_t *json, const Projection *projection, const char *table,
                          Failure *ret_failure);

/* Renames the projection's table in its JSON to `table`, which is its own name with a suffix; its
 * child tables, and their names in updates, get the same suffix. */
void mapping_rename(json_t *json, const Projection *projection, const char *table);

/* Whether each row belongs to one aggregate: the key is its id and nothing else. */
bool projection_owns_rows(const Projection *projection);

/* retarget.h - the mapping of one projection that fills another table of the same shape. */
#pragma once

#include "projector/domain/mapping.h"

/* The mapping of `projection` alone, from the whole file `json`, with `table` in the place of its
 * own: also in the statements of its `sql` rules, which must not change anything else. Events that
 * it does not name are ignored, and there is nothing to refresh from. NULL when a statement cannot
 * be told to change the other table. */
Mapping *mapping_retarget(const json_t *json, const Projection *projection, const char *table,
                          Failure *ret_failure);

/* Renames the projection's table in its JSON to `table`, which is its own name with something
 * behind it; its child tables, and where updates name them, get the same ending. */
void mapping_rename(json_t *json, const Projection *projection, const char *table);

/* Whether each row belongs to one aggregate: the key is its id and nothing else. */
bool projection_owns_rows(const Projection *projection);

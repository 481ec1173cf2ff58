/* carry.h - the marked rows of a table with soft deletes, when it is built anew.
 *
 * No event and no entity tells of a marked row whose aggregate has no position. So the new table
 * begins with all of them; the copies of the entities replace those that are to be replaced. */
#pragma once

#include "projector/app/shared/stores.h"

/* Copies them from `live` into `fresh`, which is empty. */
bool carry_marked(Stores *stores, const Projection *live, const Projection *fresh,
                  Failure *ret_failure);

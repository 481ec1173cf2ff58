/* namesake.h - aggregates whose ids differ in kind alone, as the string "7" and the number 7: for
 * most keys they are one row, so only the first of them may have it. */
#pragma once

#include "projector/domain/plan.h"

/* The id of another kind with the same text; there is at most one. Its bytes go into the arena. */
bool id_namesake(const Id *id, Arena *arena, Id *ret_id);

/* Whether such ids are one row of the projection's table. Not if the key has a part that is not the
 * aggregate's, as a tenant: it may distinguish them. */
bool projection_mixes_kinds(const Projection *projection);

/* Before plan_decide, with the positions in the set: for each aggregate of which nothing was
 * applied, and whose type has such a projection, finds the state of its namesake, so that the plan
 * knows whose the row is. It is one of the set, or is made in `others` (which may be the same set),
 * and the caller reads the positions of those. */
void namesakes_find(const Mapping *mapping, const Item *items, size_t count,
                    AggregateSet *aggregates, AggregateSet *others, Arena *arena);

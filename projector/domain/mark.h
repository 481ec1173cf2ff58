/* mark.h - soft deletes: the column that marks a row as deleted. */
#pragma once

#include "projector/domain/value.h"

/* The column that the rule's assignments mark a row with: the first that may be NULL and that an
 * upsert takes from its payload; -1: none. */
int mark_of_rule(const Rule *rule);
/* Whether a row is marked as deleted, by the value of its mark's column. */
bool mark_is_set(const Value *mark);
/* Whether a soft delete of the projection sets the column. */
bool mark_sets(const Projection *projection, const Column *column);

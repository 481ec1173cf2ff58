/* child_rows.h - the existing rows of child tables (domain/children.h) in MySQL. */
#pragma once

#include "projector/domain/fold.h"
#include "projector/infra/mysql/session.h"

/* The rows of one child table by the key of their parent's row. */
typedef struct ChildSet ChildSet;

/* Reads all rows under these keys of the parent, all columns in the projection's order. They live
 * as long as the arena. NULL on failure. */
ChildSet *child_set_read(Session *session, const Projection *child, const Value *const *parent_keys,
                         size_t count, Arena *arena, Failure *ret_failure);
void child_set_free(ChildSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ChildSet, child_set_free)
/* The rows under that key: an array of Value *, NULL when there are none. */
const GPtrArray *child_set_find(const ChildSet *set, const Value *parent_key);

/* Adds to `rows` (of FoldedRow) the changes that give the rows of the step their children: rows of
 * the child tables to remove and to write. Added rows live as long as the arena. Without a session
 * there are no children yet. */
bool child_rows_expand(Session *session, GPtrArray *rows, Arena *arena, Failure *ret_failure);

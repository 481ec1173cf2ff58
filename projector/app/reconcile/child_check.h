/* child_check.h - child tables in a comparison: their rows are found and reported one by one, but
 * confirmed and repaired with their parent's row. */
#pragma once

#include "projector/app/reconcile/difference.h"
#include "projector/infra/mysql/child_rows.h"

/* The rows of all child tables of the layout's projection under these keys. */
typedef struct ChildTables {
  GPtrArray *sets; /* of ChildSet, by child table */
} ChildTables;

/* Rows live as long as the arena. */
ChildTables *child_tables_read(Stores *stores, const Layout *layout, const Value *const *keys,
                               size_t count, Arena *arena, Failure *ret_failure);
void child_tables_free(ChildTables *tables);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ChildTables, child_tables_free)

/* Adds what the child tables show to the look at their parent's row: whether they match the
 * expected rows, or have rows although there should be none. */
void child_tables_judge(const ChildTables *tables, const Layout *layout, const Expected *expected,
                        Sight *sight);
/* Adds a difference for each missing, extra or different row. `like` has the common members of the
 * differences of one aggregate. */
void child_tables_differ(const ChildTables *tables, const Layout *layout, const Expected *expected,
                         const Difference *like, Arena *arena, GArray *differences);

/* The layout of a child table by its parent's key alone, for the pass over the rows. */
Layout child_layout_by_parent(const Projection *child, Arena *arena);
/* Splits the differences of such a layout: each becomes one for every row under its key. */
bool child_rows_of_each(Stores *stores, const Layout *child, GArray *differences, Arena *arena,
                        Failure *ret_failure);

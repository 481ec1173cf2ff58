/* compare.h - the two passes over a projection: its entities, each with its row, then its rows,
 * each with its entity.
 *
 * Both passes read in pages with look-ups by key, so they work for every mapping: the stores need
 * not sort alike (docs/adr/0013-reconcile.md). */
#pragma once

#include "projector/app/reconcile/difference.h"

typedef struct CompareRange {
  const Value *from, *to; /* of the first key column, both inclusive; NULL: open */
} CompareRange;

typedef struct CompareCounts {
  int64_t entities, rows; /* looked at */
  int64_t lagging;
} CompareCounts;

typedef struct Compare Compare;

/* `positions`: whether to check positions too; once per aggregate type is enough. */
Compare *compare_new(Stores *stores, const Projection *projection, const CompareRange *range,
                     bool positions, Failure *ret_failure);
/* The rows of a child table whose parent's entity is gone: for compare_rows alone. */
Compare *compare_new_child(Stores *stores, const Projection *child, const CompareRange *range,
                           Failure *ret_failure);
void compare_free(Compare *compare);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Compare, compare_free)

/* Counts of a part that was compared before. */
void compare_restore(Compare *compare, const CompareCounts *counts);
const CompareCounts *compare_counts(const Compare *compare);
const Layout *compare_layout(const Compare *compare);
/* About how many entities there are. */
bool compare_estimate(Compare *compare, int64_t *ret_entities, Failure *ret_failure);

/* The next page of entities: `sink` gets what differs. `*after` is the `_id` to continue from, NULL
 * at first; it is replaced. `*ret_end`: there are no more. */
bool compare_entities(Compare *compare, bson_t **after, DifferenceSink sink, void *data,
                      bool *ret_end, Failure *ret_failure);
/* A page of entities chosen at random. */
bool compare_sample(Compare *compare, int64_t size, DifferenceSink sink, void *data,
                    Failure *ret_failure);
/* Which of the repaired differences are still there (repair_check.h). */
bool compare_verify(Compare *compare, Difference *differences, size_t count, Arena *arena,
                    Failure *ret_failure);

/* The pass over all rows: `sink` gets those that no entity has. It reads the keys of all rows, and
 * those of all entities for each window of rows. `entities`: about how many there are. */
bool compare_rows(Compare *compare, DifferenceSink sink, void *data, int64_t entities,
                  Failure *ret_failure);

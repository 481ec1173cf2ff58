/* children.h - the rows of child tables: one for each item of an array in a payload.
 *
 * A child table is a Projection of its own, `parent` of which is set: its key is the parent's, then
 * its own, which tells the items apart. Its rows are one value of their parent's row, as a column
 * is: an upsert writes them, a delete removes them, an update that names the table replaces
 * them. */
#pragma once

#include "projector/domain/value.h"

typedef struct ChildRow {
  Value *key;    /* the parent's values, then its own */
  Value *values; /* the columns after the key */
} ChildRow;

/* All rows of one child table under one row of its parent. */
typedef struct ChildRows {
  unsigned count;
  ChildRow *rows;
} ChildRows;

extern const ChildRows no_child_rows;

/* Where rows come from. */
typedef struct ChildItems {
  const Source *items; /* the array */
  const Event *event;
  const Value *parent_key; /* of the parent's row */
  bool
      of_entity; /* the event is an entity: without the array (or with a null) it has no children */
} ChildItems;

/* The rows of the array. Returns false when it is missing or not an array, an item does not fit, or
 * two items have the same key. */
bool child_rows_map(const Projection *child, const ChildItems *from, Arena *arena,
                    const ChildRows **ret_rows, Failure *ret_failure);

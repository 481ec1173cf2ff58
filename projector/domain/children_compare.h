/* children_compare.h - what it takes to replace the rows of a child table. */
#pragma once

#include "projector/domain/children.h"

/* What it takes to replace rows. */
typedef enum ChildTask { CHILD_REMOVE, CHILD_ADD, CHILD_OVERWRITE } ChildTask;

typedef struct ChildStep {
  ChildTask task;
  const Value *row;    /* as it is there; NULL: CHILD_ADD */
  const ChildRow *now; /* as it has to be; NULL: CHILD_REMOVE */
} ChildStep;

/* What a child table has under one row of its parent. */
typedef struct ChildrenThere {
  const Value *const *rows; /* of all columns, in the projection's order */
  unsigned count;
  bool replaced;       /* none of them counts: each is removed, and all are added */
  bool compared_only;  /* columns without "compare" do not count */
  unsigned json_slack; /* as column_equal has it */
} ChildrenThere;

/* Compares the rows that are there with those that have to be. Gives an array of ChildStep; rows
 * that are equal are left out. */
GArray *child_rows_compare(const Projection *child, const ChildRows *wanted,
                           const ChildrenThere *there);

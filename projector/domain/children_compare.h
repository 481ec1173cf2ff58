/* children_compare.h - the steps that replace the rows of a child table. */
#pragma once

#include "projector/domain/fold.h"

/* What it takes to replace rows. */
typedef enum ChildTask { CHILD_REMOVE, CHILD_ADD, CHILD_OVERWRITE } ChildTask;

typedef struct ChildStep {
  ChildTask task;
  const Value *row;    /* as it is there; NULL: CHILD_ADD */
  const ChildRow *now; /* as it has to be; NULL: CHILD_REMOVE */
} ChildStep;

/* The rows of a child table under one row of its parent. */
typedef struct ChildrenThere {
  const Value *const *rows; /* of all columns, in the projection's order */
  unsigned count;
  bool replaced;       /* ignore them: all are removed, and all new rows are added */
  bool compared_only;  /* columns without "compare" do not count */
  unsigned json_slack; /* see column_equal */
} ChildrenThere;

/* Compares the existing rows with the expected ones. Returns an array of ChildStep, without steps
 * for equal rows. */
GArray *child_rows_compare(const Projection *child, const ChildRows *wanted,
                           const ChildrenThere *there);

/* Adds to `rows` (of FoldedRow, which live as long as the arena) what gives the parent's row the
 * children that it has to have. */
void child_rows_fold(const Projection *child, const FoldedRow *parent, const ChildrenThere *there,
                     Arena *arena, GPtrArray *rows);

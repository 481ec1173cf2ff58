/* fold.h - many changes become few: one final state for each row, ready for multi-row statements.
 *
 * Folding has the same result as the changes one by one. A row's changes in one step run in three
 * phases: first what needs the row to exist already (update), then remove, then write. Rows of one
 * step are independent of each other, so each phase of a step is a handful of statements. A
 * statement of an `sql` change is a step of its own. One that may touch anything separates what
 * comes before it from what comes after. One that touches only its own row separates only the
 * changes of that row, and of the aggregate that it belongs to: those after it go into the next
 * level, whose steps come after all of its own level, while other aggregates stay where they are.
 *
 * COLUMN_ADD on NULL is a failure, which the code that executes the fold must detect: SQL would
 * silently keep NULL. One liberty is taken: deltas of one row and step become one sum, and only
 * that sum has to fit, not the intermediate ones (+200 and -100 on a tinyint that holds 0). */
#pragma once

#include "projector/domain/change.h"

typedef enum ColumnMode { COLUMN_KEEP, COLUMN_SET, COLUMN_ADD } ColumnMode;

typedef struct FoldedRow {
  const Projection *projection;
  Value *key;
  bool update;    /* phase 1: the row must exist; columns by `modes` and `updates` */
  bool lenient;   /* of an update: the row need not exist */
  bool unmarked;  /* of an update: a row with a mark counts as missing */
  bool remove;    /* phase 2: delete, whether it exists or not */
  bool write;     /* phase 3: insert or overwrite with `row` */
  unsigned level; /* of its step */
  bool ended;     /* a statement follows: later changes go into the next level */
  bool fresh;     /* of a write: the row does not exist (set by children_compare.c) */
  bool missed;    /* nothing to update or to remove was there (set by rehearsal.c) */
  bool keep_mark; /* of a write: keep the mark if the existing row and `row` both have one */
  const ChildRows **children; /* by child table, after the phases: its rows; NULL: as they are */
  uint8_t *modes;             /* ColumnMode of each column after the key */
  Value *updates;
  Value *row;
} FoldedRow;

typedef struct Step {
  const Change *statement; /* an sql change, or NULL: */
  GPtrArray *rows;         /* of FoldedRow, in the order in which they were first touched */
  unsigned level;          /* among the steps that nothing parts as a whole */
} Step;

typedef struct Fold Fold;

/* The arena must outlive the fold. */
Fold *fold_new(Arena *arena);
/* The arena it was created with. */
Arena *fold_arena(const Fold *fold);
void fold_free(Fold *fold);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Fold, fold_free)

/* Adds one event's changes, of that aggregate: the order of its events is kept, and that of the
 * changes of each row. It must outlive the fold. NULL keeps the order of all. False when the event
 * cannot be applied after the changes so far (its row was deleted, a sum does not fit): the fold
 * may then hold a part of it and must be built again. */
bool fold_add(Fold *fold, const ChangeList *changes, const Aggregate *aggregate,
              Failure *ret_failure);

/* The failure of an update that finds no row. Returns false. */
bool row_missing(const Projection *projection, Failure *ret_failure);

unsigned fold_step_count(const Fold *fold);
const Step *fold_step(const Fold *fold, unsigned index);

/* rehearsal.h - the projector without stores: events are mapped, planned and folded as in `run`,
 * and the fold is carried out on rows in memory.
 *
 * Anything that only a server can decide is not rehearsed: the statements of `sql` ops,
 * constraints, triggers. An event with such a statement is flagged, and its rows are unknown. */
#pragma once

#include "projector/domain/plan.h"

typedef struct Rehearsal Rehearsal;

/* The mapping must outlive it. */
Rehearsal *rehearsal_new(const Mapping *mapping);
void rehearsal_free(Rehearsal *rehearsal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rehearsal, rehearsal_free)

/* One row: the values of all columns of its projection, in that order. */
typedef struct RehearsedRow {
  const Projection *projection;
  const Value *values;
} RehearsedRow;

/* Adds an initial row; the values are copied. It replaces an earlier row with that key. */
void rehearsal_put_row(Rehearsal *rehearsal, const Projection *projection, const Value *values);
/* An entity that late events are refreshed from; copied. */
void rehearsal_put_entity(Rehearsal *rehearsal, const char *collection, const bson_t *entity);

/* What became of an event. Everything lives as long as the rehearsal. */
typedef struct Rehearsed {
  Verdict verdict;  /* one of those with an outcome, KNOWN, FAILED, or WAIT behind a failed one */
  bool refreshed;   /* it was late, and its rows were taken from the entities */
  bool statement;   /* it has an sql statement, which was not run */
  const Fold *fold; /* what is done to the rows, those of child tables too; no steps: nothing */
  const Failure *failure; /* VERDICT_FAILED: why */
} Rehearsed;

/* Takes ownership of the event. A gap in the versions is not waited for. */
Rehearsed rehearsal_take(Rehearsal *rehearsal, Event *event);

unsigned rehearsal_row_count(const Rehearsal *rehearsal);
RehearsedRow rehearsal_row(const Rehearsal *rehearsal, unsigned index);
/* The row of that key (key_count values), or NULL. */
const Value *rehearsal_find(const Rehearsal *rehearsal, const Projection *projection,
                            const Value *key);

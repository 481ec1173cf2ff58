/* difference.h - a finding of reconcile. */
#pragma once

#include "projector/app/shared/stores.h"
#include "projector/domain/row_compare.h"

typedef struct Difference {
  DifferenceKind kind;
  const Layout *layout;       /* of the projection; NULL: of an event */
  const Aggregate *aggregate; /* NULL: unknown from the row */
  const char *entity_id;      /* of an entity that can have no aggregate, as text; or NULL */
  const Value *key;           /* of the row, or NULL */
  int64_t version;            /* of the entity; 0: none */
  int64_t applied;            /* highest version applied; 0: none */
  const Expected *expected;   /* with `row`, for different columns */
  const Value *row;
  Event *event;        /* of an event */
  const char *reason;  /* or NULL */
  const char *keep;    /* why --repair must leave it, or NULL */
  bool orphan;         /* of a child table, under a row of its parent that has no entity */
  const char *outcome; /* the result of --repair; NULL: not attempted */
  bool repaired;
} Difference;

/* Whether the row is too much although its entity is there, because `when` excludes it. */
static inline bool difference_is_excluded(const Difference *difference) {
  return difference->expected && difference->expected->absent;
}

/* Receives a batch of confirmed differences. Returning false ends the comparison. */
typedef bool (*DifferenceSink)(Difference *differences, size_t count, void *data,
                               Failure *ret_failure);

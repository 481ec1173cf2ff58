/* explain_children.h - the child tables of a row in `explain`. */
#pragma once

#include "projector/app/reconcile/child_check.h"

#include <jansson.h>

typedef struct ExplainedChildren {
  const Value *key;         /* of the parent's row */
  const Expected *expected; /* NULL: the entity is gone or cannot be mapped */
  bool equal;               /* set: no row of a child table differs */
  bool any;                 /* set: there are rows of child tables */
} ExplainedChildren;

/* Reads the rows of the child tables and adds `children` to the projection's JSON: for each table
 * how many rows there are and should be, and those that differ. */
bool explain_children(Stores *stores, const Layout *layout, ExplainedChildren *of, Arena *arena,
                      json_t *json, Failure *ret_failure);
/* The same on the screen. */
void explain_print_children(const json_t *projection);

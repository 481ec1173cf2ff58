/* explain_children.h - the child tables of a row in `explain`. */
#pragma once

#include "projector/app/reconcile/child_check.h"

#include <jansson.h>

/* Reads the rows of the child tables under that key and adds `children` to the projection's JSON:
 * for each table how many rows there are and should be, and those that differ. `expected` is NULL
 * when the entity is gone or shows no row. `*ret_equal`: none differs. */
bool explain_children(Stores *stores, const Layout *layout, const Value *key,
                      const Expected *expected, Arena *arena, json_t *json, bool *ret_equal,
                      Failure *ret_failure);
/* The same on the screen. */
void explain_print_children(const json_t *projection);

/* key.h - the values of a row's key.
 *
 * "7" and "7.0" are two aggregates, and would share the row of the number 7. So of all the texts
 * that become one key, only the usual one is accepted as an id. */
#pragma once

#include "projector/domain/value.h"

/* The key column's value, as value_for_column gives it, unless it is an id in an unusual
 * spelling. */
bool key_map(const Event *event, const Column *column, Arena *arena, Value *ret_value,
             Failure *ret_failure);
/* Whether `key`, the value of that column, comes of an id in its usual spelling. */
bool key_check_spelling(const Event *event, const Column *column, const Value *key,
                        Failure *ret_failure);

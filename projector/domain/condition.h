/* condition.h - `when`: whether a rule or a projection applies to an event or an entity.
 *
 * A condition is { "path": …, "is" | "in" | "exists": … }, or "all", "any" and "not" of others. It
 * is evaluated from left to right, only as far as needed, so that `exists` can guard a
 * comparison. */
#pragma once

#include "projector/domain/source.h"

typedef struct Condition Condition;

/* What the paths of a condition may name. */
typedef enum ConditionScope {
  CONDITION_OF_EVENT,  /* on an event rule: everything that `from` may name */
  CONDITION_OF_ENTITY, /* on a projection: also read from an entity, which has no event's fields */
} ConditionScope;

/* Reads the condition at `path` of the file. NULL on failure. Everything lies in the arena. */
const Condition *condition_parse(const json_t *json, const char *path, ConditionScope scope,
                                 Arena *arena, Failure *ret_failure);

/* Returns false when the result is unknown: a path that `is` or `in` needs is missing. */
bool condition_holds(const Condition *condition, const Event *event, bool *ret_holds,
                     Failure *ret_failure);

/* condition.h - `when`: whether an event or an entity is one that a rule or a projection is for.
 *
 * A condition is { "path": …, "is" | "in" | "exists": … }, or "all", "any" and "not" of others. It
 * is read from left to right and stops as soon as the answer is known, so that `exists` can stand
 * before what needs the value. */
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

/* False when it cannot be told: a path is missing that `is` or `in` asks for. */
bool condition_holds(const Condition *condition, const Event *event, bool *ret_holds,
                     Failure *ret_failure);

/* As source_add_fields, for every path. */
bool condition_add_fields(const Condition *condition, GPtrArray *names);

/* mark.c - the mark of a deleted row. */
#include "projector/domain/mark.h"

int mark_of_rule(const Rule *rule) {
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    unsigned index = rule->assignments[i].column;
    const Column *column = &rule->projection->columns[index];
    if (column->nullable && column->from.in_payload)
      return (int)index;
  }
  return -1;
}

bool mark_is_set(const Projection *projection, const Value *mark) {
  return projection->mark >= 0 && mark->kind != VALUE_NULL;
}

bool mark_sets(const Projection *projection, const Column *column) {
  for (unsigned i = 0; i < projection->rule_count; i++) {
    const Rule *rule = &projection->rules[i];
    for (unsigned k = 0; rule->soft && k < rule->assignment_count; k++)
      if (&projection->columns[rule->assignments[k].column] == column)
        return true;
  }
  return false;
}

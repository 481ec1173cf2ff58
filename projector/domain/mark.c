/* mark.c - the mark of a deleted row. */
#include "projector/domain/mark.h"

/* Whether an upsert may leave the column NULL. */
static bool may_be_missing(const Column *column) {
  bool constant = false;
  g_assert(column);
  for (const Source *place = &column->from; place; place = place->otherwise)
    constant |= place->constant != NULL;
  return column->nullable && column->from.in_payload && !constant;
}

int mark_of_rule(const Rule *rule) {
  for (unsigned i = 0; i < rule->assignment_count; i++) {
    unsigned index = rule->assignments[i].column;
    if (may_be_missing(&rule->projection->columns[index]))
      return (int)index;
  }
  return -1;
}

bool mark_is_set(const Value *mark) {
  return mark->kind != VALUE_NULL;
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

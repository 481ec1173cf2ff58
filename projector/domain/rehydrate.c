/* rehydrate.c - folds an aggregate's events into its row, and compares that with the entity. */
#include "projector/domain/rehydrate.h"

#include "projector/domain/children_compare.h"
#include "projector/domain/fold.h"

const char *rehydration_name(Rehydration outcome) {
  static const char *const names[] = {[REHYDRATED] = "equal",
                                      [REHYDRATED_OTHERWISE] = "different",
                                      [REHYDRATED_BROKEN] = "broken",
                                      [REHYDRATED_UNKNOWN] = "unknown"};
  return names[outcome];
}

static void find_missing_versions(Event *const *events, size_t count, Rehydrated *rehydrated) {
  int64_t seen = 0;
  for (size_t i = 0; i < count; i++) {
    int64_t version = events[i]->key.version;
    if (version > seen + 1) {
      rehydrated->missing = rehydrated->missing ? rehydrated->missing : seen + 1;
      rehydrated->missing_count += version - seen - 1;
    }
    seen = MAX(seen, version);
  }
}

/* The changes of one projection alone. */
static ChangeList changes_of(const Projection *projection, const ChangeList *all, Arena *arena) {
  ChangeList own = {.changes = arena_alloc(arena, all->count + 1, sizeof(Change))};
  for (unsigned i = 0; i < all->count; i++)
    if (all->changes[i].rule->projection == projection)
      own.changes[own.count++] = all->changes[i];
  return own;
}

static bool has_statement(const ChangeList *changes) {
  for (unsigned i = 0; i < changes->count; i++)
    if (changes->changes[i].rule->operation == OP_SQL)
      return true;
  return false;
}

/* The row as the layout reads it. */
static Value *row_of(const Layout *layout, const FoldedRow *row, Arena *arena) {
  Value *values = arena_alloc(arena, layout->count, sizeof *values);
  for (unsigned i = 0; i < layout->count; i++) {
    ptrdiff_t at = layout->columns[i] - layout->projection->columns;
    values[i] = i < layout->key_count ? row->key[at] : row->row[at - (ptrdiff_t)layout->key_count];
  }
  return values;
}

/* Starts by removing the row, so that an update without a row is detected here. */
static bool fold_event(const Mapping *mapping, const Projection *projection, const Event *event,
                       bool first, Fold *fold, Rehydrated *rehydrated) {
  Arena *arena = fold_arena(fold);
  ChangeList all, removal = {.count = 1, .changes = arena_alloc(arena, 1, sizeof(Change))};
  if ((first &&
       (!change_for_removal(projection, event, arena, removal.changes, &rehydrated->failure) ||
        !fold_add(fold, &removal, NULL, &rehydrated->failure))) ||
      !change_list_map(mapping, event, arena, &all, &rehydrated->failure))
    return false;
  ChangeList own = changes_of(projection, &all, arena);
  if (has_statement(&own)) {
    rehydrated->outcome = REHYDRATED_UNKNOWN;
    return true;
  }
  return fold_add(fold, &own, NULL, &rehydrated->failure);
}

/* The row that the fold writes last; NULL: none. */
static const FoldedRow *last_row(const Fold *fold) {
  const FoldedRow *found = NULL;
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const GPtrArray *rows = fold_step(fold, i)->rows;
    for (guint k = 0; rows && k < rows->len; k++) {
      const FoldedRow *row = rows->pdata[k];
      found = row->write ? row : NULL;
    }
  }
  return found;
}

static void compare_columns(const Layout *layout, const Expected *expected, const Value *row,
                            Rehydrated *rehydrated) {
  g_assert(expected->known);
  for (unsigned i = layout->key_count; i < layout->count; i++) {
    if (!layout_differs(layout, expected, row, i))
      continue;
    rehydrated->outcome = REHYDRATED_OTHERWISE;
    rehydrated->column = layout->columns[i];
    rehydrated->expected = expected->values[i];
    rehydrated->found = row[i];
    return;
  }
}

/* The rows of one child table as the events leave them. */
static void compare_child(const Projection *child, const ChildRows *entity, const ChildRows *events,
                          Rehydrated *rehydrated, Arena *arena) {
  const Value **rows = arena_alloc(arena, events->count, sizeof *rows);
  for (unsigned i = 0; i < events->count; i++) {
    Value *row = arena_alloc(arena, child->column_count, sizeof *row);
    for (unsigned at = 0; at < child->column_count; at++)
      row[at] = at < child->key_count ? events->rows[i].key[at]
                                      : events->rows[i].values[at - child->key_count];
    rows[i] = row;
  }
  const ChildrenThere there = {.rows = rows, .count = events->count, .compared_only = true};
  g_autoptr(GArray) steps = child_rows_compare(child, entity, &there);
  if (steps->len == 0)
    return;
  rehydrated->outcome = REHYDRATED_OTHERWISE;
  rehydrated->child = child;
  rehydrated->child_rows = steps->len;
}

static void compare_children(const Layout *layout, const Expected *expected, const FoldedRow *row,
                             Rehydrated *rehydrated, Arena *arena) {
  const Projection *projection = layout->projection;
  for (unsigned i = 0; i < projection->child_count && rehydrated->outcome == REHYDRATED; i++)
    compare_child(projection->children[i], expected->children[i], row->children[i], rehydrated,
                  arena);
}

Rehydrated rehydrate(const Mapping *mapping, const Layout *layout, Event *const *events,
                     size_t count, const Event *entity, Arena *arena) {
  Rehydrated rehydrated = {.outcome = REHYDRATED, .entity = entity != NULL};
  Expected expected = {0};
  g_autoptr(Fold) fold = fold_new(arena);
  find_missing_versions(events, count, &rehydrated);
  for (size_t i = 0; i < count; i++)
    rehydrated.skipped += events[i]->skipped;
  bool first = true;
  for (size_t i = 0; i < count && rehydrated.outcome == REHYDRATED; i++) {
    if (events[i]->skipped)
      continue;
    if (!fold_event(mapping, layout->projection, events[i], first, fold, &rehydrated)) {
      rehydrated.outcome = REHYDRATED_BROKEN;
      rehydrated.culprit = events[i];
    }
    first = false;
  }
  if (rehydrated.outcome != REHYDRATED)
    return rehydrated;
  const FoldedRow *last = last_row(fold);
  const Value *row = last ? row_of(layout, last, arena) : NULL;
  if (row && !entity && layout_is_marked(layout, row))
    row = NULL; /* the row stays, and says that there is no entity */
  rehydrated.row = row != NULL;
  if (entity && !layout_map(layout, entity, arena, &expected, &rehydrated.failure))
    rehydrated.outcome = REHYDRATED_OTHERWISE;
  else if (rehydrated.row != (rehydrated.entity && !expected.absent))
    rehydrated.outcome = REHYDRATED_OTHERWISE;
  else if (row)
    compare_columns(layout, &expected, row, &rehydrated);
  if (row && rehydrated.outcome == REHYDRATED)
    compare_children(layout, &expected, last, &rehydrated, arena);
  rehydrated.absent = expected.absent;
  return rehydrated;
}

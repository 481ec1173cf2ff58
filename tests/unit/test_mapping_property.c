/* test_mapping_property.c - random mappings with lists of paths, defaults, constants, conditions,
 * `always`, soft deletes, child tables and deltas.
 *
 * In order: whatever the batches, the rows and outcomes are those of the events one by one. In any
 * order of arrival: once everything is there, the rows are the plain fold of the events, although
 * some were superseded, and some rows were taken from the entity.
 *
 * PROPERTY_SEED runs one seed again, PROPERTY_SEEDS that many. */
#include "tests/unit/mapping_world.h"

#include "projector/domain/children_compare.h"
#include "projector/domain/entity.h"
#include "projector/domain/mark.h"
#include "projector/domain/plan.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SEEDS = 1500, ROUNDS_MAX = 40 * TOLD_MAX };

static struct {
  unsigned batches, applied, ignored, failed, refreshed, superseded, late, gaps, left_out;
} seen;

/* What stays between batches. */
typedef struct Pipeline {
  World *world;
  Shown shown[ORDERS];
  Position positions[ORDERS];
  bool blocked[ORDERS], failed[TOLD_MAX], gap_waited[TOLD_MAX], visible[TOLD_MAX];
  bool no_entity[TOLD_MAX];
  Verdict settled[TOLD_MAX]; /* VERDICT_NONE: still in the outbox */
} Pipeline;

static void G_GNUC_PRINTF(2, 3) unequal(const World *world, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *text = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  fail_msg("PROPERTY_SEED=%u: %s\n%s", world->seed, text, world->mapping_text);
}

/* --- a fold, executed ------------------------------------------------------------------------ */

static int number_of_value(const Value *value) {
  if (value->kind == VALUE_NULL)
    return NONE;
  if (value->kind == VALUE_INT)
    return (int)value->integer;
  assert_int_equal(value->kind, VALUE_DECIMAL); /* the sum of several deltas */
  g_autofree char *text = g_strndup(value->text, value->length);
  return (int)strtol(text, NULL, 10);
}

static unsigned order_of(const FoldedRow *row) {
  return (unsigned)(row->key[0].text[1] - '0');
}

/* The row of the projection: whether it is there, and its columns. */
static int *cells_of(Shown *shown, const FoldedRow *row, bool **ret_there) {
  bool flow = row->projection->index == 1;
  *ret_there = flow ? &shown->flow_there : &shown->there;
  return flow ? shown->flow : shown->cells;
}

static bool update(Shown *shown, const FoldedRow *row) {
  bool *there;
  int *cells = cells_of(shown, row, &there);
  unsigned count = row->projection->column_count - row->projection->key_count;
  if (!*there || (row->unmarked && shown->cells[GONE] != NONE))
    return row->lenient;
  for (unsigned i = 0; i < count; i++) {
    if (row->modes[i] == COLUMN_ADD && cells[i] == NONE)
      return false;
    if (row->modes[i] != COLUMN_KEEP)
      cells[i] = (row->modes[i] == COLUMN_ADD ? cells[i] : 0) + number_of_value(&row->updates[i]);
    if (row->modes[i] == COLUMN_SET && row->updates[i].kind == VALUE_NULL)
      cells[i] = NONE;
  }
  return true;
}

static void overwrite(Shown *shown, const FoldedRow *row) {
  bool *there;
  int *cells = cells_of(shown, row, &there);
  const Projection *projection = row->projection;
  unsigned count = projection->column_count - projection->key_count;
  bool marked =
      row->keep_mark && *there && cells[GONE] != NONE && row->row[GONE].kind != VALUE_NULL;
  for (unsigned i = 0; i < count; i++)
    if (!marked || !mark_sets(projection, &projection->columns[projection->key_count + i]))
      cells[i] = number_of_value(&row->row[i]);
  *there = true;
}

static Value int_value(int number) {
  if (number == NONE)
    return (Value){.kind = VALUE_NULL};
  return (Value){.kind = VALUE_INT, .integer = number};
}

/* With the comparison that infra uses, so that it is tested too. */
static void replace_lines(Shown *shown, const FoldedRow *row, Arena *arena) {
  const Projection *child = row->projection->children[0];
  const Value **rows = arena_alloc(arena, shown->line_count, sizeof *rows);
  bool removed[LINES_MAX] = {false};
  Line kept[2 * LINES_MAX];
  unsigned count = 0;
  for (unsigned i = 0; i < shown->line_count; i++) {
    Value *values = arena_alloc(arena, 5, sizeof *values);
    const Line *line = &shown->lines[i];
    values[0] = row->key[0];
    values[1] = int_value(line->no);
    values[2] = int_value(line->qty);
    values[3] = int_value(line->at);
    values[4] = int_value(line->mark);
    rows[i] = values;
  }
  const ChildrenThere there = {.rows = rows, .count = shown->line_count, .replaced = row->remove};
  g_autoptr(GArray) steps = child_rows_compare(child, row->children[0], &there);
  for (guint i = 0; i < steps->len; i++) {
    const ChildStep *step = &g_array_index(steps, ChildStep, i);
    for (unsigned k = 0; k < shown->line_count; k++)
      removed[k] |= step->task != CHILD_ADD && step->row == rows[k];
  }
  for (unsigned k = 0; k < shown->line_count; k++)
    if (!removed[k])
      kept[count++] = shown->lines[k];
  for (guint i = 0; i < steps->len; i++) {
    const ChildRow *now = g_array_index(steps, ChildStep, i).now;
    if (now)
      kept[count++] = (Line){number_of_value(&now->key[1]), number_of_value(&now->values[0]),
                             number_of_value(&now->values[1]), number_of_value(&now->values[2])};
  }
  assert_true(count <= LINES_MAX);
  memcpy(shown->lines, kept, count * sizeof *kept);
  shown->line_count = count;
  lines_sort(shown);
}

static bool execute(Shown shown[static ORDERS], const Fold *fold, Arena *arena) {
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const GPtrArray *rows = fold_step(fold, i)->rows;
    for (guint k = 0; k < rows->len; k++) {
      const FoldedRow *row = rows->pdata[k];
      Shown *one = &shown[order_of(row)];
      bool *there;
      cells_of(one, row, &there);
      if (row->update && !update(one, row))
        return false;
      if (row->remove)
        *there = false;
      if (row->write)
        overwrite(one, row);
      if (row->projection->index == 0 && row->children[0])
        replace_lines(one, row, arena);
    }
  }
  return true;
}

/* --- batches --------------------------------------------------------------------------------- */

typedef struct Batch {
  unsigned count, told[TOLD_MAX];
  bool failed[TOLD_MAX];
} Batch;

static Fold *plan(Pipeline *pipeline, const Batch *batch, unsigned count, Item *items,
                  AggregateSet *set, Arena *arena) {
  World *world = pipeline->world;
  for (unsigned i = 0; i < count; i++) {
    unsigned index = batch->told[i];
    items[i] = (Item){.event = world->told[index].event,
                      .carrier = &world->told[index],
                      .gap_waited = pipeline->gap_waited[index],
                      .no_entity = pipeline->no_entity[index],
                      .verdict = batch->failed[i] ? VERDICT_FAILED : VERDICT_NONE};
    aggregate_set_open(set, &items[i].event->aggregate)->position =
        pipeline->positions[world->told[index].order];
  }
  plan_sort(items, count);
  plan_map(world->mapping, items, count, arena);
  return plan_decide(world->mapping, items, count, set, arena);
}

static unsigned index_of(const World *world, const Item *item) {
  return (unsigned)((const Told *)item->carrier - world->told);
}

/* The shortest part of the batch that the tables refuse ends with the culprit. */
static unsigned find_culprit(Pipeline *pipeline, const Batch *batch) {
  for (unsigned count = 1; count <= batch->count; count++) {
    Item items[TOLD_MAX];
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    g_autoptr(Fold) fold = plan(pipeline, batch, count, items, set, arena);
    Shown scratch[ORDERS];
    memcpy(scratch, pipeline->shown, sizeof scratch);
    if (!execute(scratch, fold, arena))
      return count - 1;
  }
  unequal(pipeline->world, "a batch fails, but none of its parts does");
  return 0;
}

/* Takes the rows from the entity, as shared/refresh.c does; a late state needs one. */
static void refresh(Pipeline *pipeline, const Item *item) {
  World *world = pipeline->world;
  unsigned index = index_of(world, item);
  const Told *told = &world->told[index];
  Position *position = &pipeline->positions[told->order];
  int64_t version = world->newest[told->order];
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(Fold) fold = fold_new(arena);
  g_autoptr(bson_t) document = world_entity(world, told->order);
  if (!document && item->else_superseded) {
    pipeline->no_entity[index] = true; /* decided again */
    return;
  }
  bson_t nothing = BSON_INITIALIZER;
  g_autoptr(Event) entity =
      entity_as_event(document ? document : &nothing, &told->event->aggregate, version, 1);
  Change changes[2] = {{0}, {0}};
  ChangeList list = {2, changes};
  Failure failure = {0};
  for (unsigned i = 0; i < 2; i++) {
    const Projection *projection = mapping_projection(world->mapping, i);
    if (!(document ? change_from_entity(projection, entity, arena, &changes[i], &failure)
                   : change_for_missing_entity(projection, entity, arena, &changes[i], &failure)))
      unequal(world, "the entity of o%u: %s", told->order, failure.message);
  }
  if (!fold_add(fold, &list, NULL, &failure) || !execute(pipeline->shown, fold, arena))
    unequal(world, "a refresh of o%u is refused: %s", told->order, failure.message);
  for (unsigned i = 0; i < world->told_count; i++)
    if (world->told[i].order == told->order && world->told[i].written)
      order_advance(position, world->told[i].event);
  position->max_version = MAX(position->max_version, version);
  position->refreshed_version = MAX(position->refreshed_version, version);
  pipeline->settled[index] = VERDICT_SUPERSEDED;
  seen.refreshed++;
}

static void settle(Pipeline *pipeline, const Item *item, AggregateSet *set) {
  unsigned index = index_of(pipeline->world, item), order = pipeline->world->told[index].order;
  const AggregateState *state = aggregate_set_find(set, &item->event->aggregate);
  if (state->moved)
    pipeline->positions[order] = state->position;
  seen.late += item->late;
  switch (item->verdict) {
  case VERDICT_APPLIED:
  case VERDICT_SUPERSEDED:
  case VERDICT_IGNORED:
    pipeline->settled[index] = item->verdict;
    seen.applied += item->verdict == VERDICT_APPLIED;
    seen.superseded += item->verdict == VERDICT_SUPERSEDED;
    seen.ignored += item->verdict == VERDICT_IGNORED;
    return;
  case VERDICT_FAILED:
    seen.failed++;
    if (pipeline->world->any_arrival)
      return; /* tried again: what it needs may still be on its way */
    pipeline->failed[index] = pipeline->blocked[order] = true;
    return;
  case VERDICT_GAP:
    pipeline->gap_waited[index] = true;
    seen.gaps++;
    return;
  case VERDICT_REFRESH:
  case VERDICT_WAIT: return;
  default: unequal(pipeline->world, "event %u got verdict %d", index, (int)item->verdict);
  }
}

static void run_batch(Pipeline *pipeline, Batch *batch) {
  for (;;) {
    Item items[TOLD_MAX];
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    g_autoptr(Fold) fold = plan(pipeline, batch, batch->count, items, set, arena);
    Shown after[ORDERS];
    memcpy(after, pipeline->shown, sizeof after);
    if (!execute(after, fold, arena)) {
      batch->failed[find_culprit(pipeline, batch)] = true;
      continue;
    }
    memcpy(pipeline->shown, after, sizeof after);
    for (unsigned i = 0; i < batch->count; i++)
      settle(pipeline, &items[i], set);
    for (unsigned i = 0; i < batch->count; i++)
      if (items[i].verdict == VERDICT_REFRESH)
        refresh(pipeline, &items[i]);
    seen.batches++;
    return;
  }
}

/* The first events in order of those that can be taken. */
static Batch take_batch(const Pipeline *pipeline, unsigned limit) {
  Batch batch = {0};
  for (unsigned i = 0; i < pipeline->world->told_count && batch.count < limit; i++) {
    bool open = pipeline->settled[i] == VERDICT_NONE && pipeline->visible[i] &&
                !pipeline->blocked[pipeline->world->told[i].order];
    if (open)
      batch.told[batch.count++] = i;
  }
  return batch;
}

/* A refresh keeps an existing mark, and what was set with it, although a newer event sets it
 * again. */
static Shown without_mark(const World *world, Shown shown) {
  if (world->any_arrival && shown.there && shown.cells[GONE] != NONE) {
    shown.cells[GONE] = 1;
    shown.cells[STAMP] = world->has.always ? 0 : shown.cells[STAMP];
  }
  return shown;
}

static void compare(const Pipeline *pipeline, const Shown *expected) {
  for (unsigned i = 0; i < ORDERS; i++) {
    const Shown left = without_mark(pipeline->world, pipeline->shown[i]),
                right = without_mark(pipeline->world, expected[i]);
    g_autofree char *found = shown_text(&left), *wanted = shown_text(&right);
    if (strcmp(found, wanted) != 0)
      unequal(pipeline->world, "o%u\nfound    %s\nexpected %s", i, found, wanted);
  }
}

/* --- properties ------------------------------------------------------------------------------ */

static Outcome outcome_of(const Pipeline *pipeline, unsigned index) {
  if (pipeline->failed[index])
    return OUTCOME_FAILED;
  return pipeline->settled[index] == VERDICT_APPLIED   ? OUTCOME_APPLIED
         : pipeline->settled[index] == VERDICT_IGNORED ? OUTCOME_IGNORED
                                                       : OUTCOME_WAITS;
}

static void check_in_order(guint32 seed) {
  g_autoptr(World) world = world_new(seed, false);
  g_autofree Pipeline *pipeline = g_new0(Pipeline, 1);
  Shown expected[ORDERS];
  Outcome outcomes[TOLD_MAX];
  world_fold(world, expected, outcomes);
  pipeline->world = world;
  world_clear(pipeline->shown);
  for (unsigned i = 0; i < world->told_count; i++)
    pipeline->visible[i] = true;
  for (;;) {
    Batch batch = take_batch(pipeline, 1 + world_random(world, 20));
    if (batch.count == 0)
      break;
    run_batch(pipeline, &batch);
  }
  for (unsigned i = 0; i < world->told_count; i++)
    if (outcome_of(pipeline, i) != outcomes[i])
      unequal(world, "event %u (%s of o%u): outcome %d, expected %d", i, told_name(&world->told[i]),
              world->told[i].order, (int)outcome_of(pipeline, i), (int)outcomes[i]);
  compare(pipeline, expected);
}

/* The writer writes in order; the events arrive in any. */
static void check_any_arrival(guint32 seed) {
  g_autoptr(World) world = world_new(seed, true);
  g_autofree Pipeline *pipeline = g_new0(Pipeline, 1);
  Shown expected[ORDERS];
  Outcome outcomes[TOLD_MAX];
  world_fold(world, expected, outcomes);
  pipeline->world = world;
  world_clear(pipeline->shown);
  unsigned written = 0, rounds = 0, left = world->told_count;
  for (; left > 0; rounds++) {
    if (rounds > ROUNDS_MAX)
      unequal(world, "%u events are still in the outbox", left);
    for (unsigned n = world_random(world, 6); n > 0 && written < world->told_count; n--)
      world_write(world, written++);
    for (unsigned i = 0; i < written; i++)
      pipeline->visible[i] = pipeline->visible[i] || world_random(world, 4) == 0;
    Batch batch = take_batch(pipeline, 1 + world_random(world, 8));
    if (batch.count > 0)
      run_batch(pipeline, &batch);
    left = 0;
    for (unsigned i = 0; i < world->told_count; i++)
      left += pipeline->settled[i] == VERDICT_NONE;
  }
  compare(pipeline, expected);
}

static void for_each_seed(void (*check)(guint32 seed)) {
  const char *one = getenv("PROPERTY_SEED");
  guint32 first = one ? (guint32)g_ascii_strtoull(one, NULL, 10) : 1;
  guint32 count = one ? 1 : (guint32)cases_to_try(DEFAULT_SEEDS);
  for (guint32 seed = first; seed < first + count; seed++)
    check(seed);
}

static void test_in_order(void **state) {
  (void)state;
  for_each_seed(check_in_order);
}

static void test_any_arrival(void **state) {
  (void)state;
  for_each_seed(check_any_arrival);
}

/* Random tests rot quietly: the events must keep meeting the cases they are made for. */
static void test_coverage(void **state) {
  (void)state;
  print_message("%u batches: %u applied, %u ignored, %u failed, %u late, %u superseded, "
                "%u refreshed, %u gaps\n",
                seen.batches, seen.applied, seen.ignored, seen.failed, seen.late, seen.superseded,
                seen.refreshed, seen.gaps);
  if (getenv("PROPERTY_SEED") || seen.batches < 5000)
    skip();
  check_that("applied", seen.applied > seen.failed, "more are applied than fail");
  check_that("failed", seen.failed > 500 && seen.ignored > 500, "some fail, some are ignored");
  check_that("late", seen.late > 500 && seen.superseded > 500, "some come late");
  check_that("refreshed", seen.refreshed > 500 && seen.gaps > 100, "some rows are refreshed");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order),
                                     cmocka_unit_test(test_any_arrival),
                                     cmocka_unit_test(test_coverage)};
  return cmocka_run_group_tests_name(__FILE__, tests, NULL, NULL);
}

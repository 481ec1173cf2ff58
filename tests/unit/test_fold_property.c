/* test_fold_property.c - random mappings and events: planned and folded batches give what the
 * events give one by one.
 *
 * PROPERTY_SEEDS=n tries seeds 0 to n-1, PROPERTY_SEED=k only that one. A failure prints its
 * seed. */
#include "projector/domain/datetime.h"
#include "projector/domain/plan.h"
#include "tests/unit/property_reference.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SEEDS = 2000 };

/* What the pipeline keeps between batches: rows, positions, the ledger, and which aggregates are
 * blocked. */
typedef struct Pipeline {
  World *world;
  Table table;
  unsigned order[WORLD_EVENTS], rank[WORLD_EVENTS];
  Position positions[WORLD_AGGREGATES];
  int blocked_by[WORLD_AGGREGATES]; /* rank of the failed event; -1: none */
  bool visible[WORLD_EVENTS];
  Verdict settled[WORLD_EVENTS]; /* VERDICT_NONE: still in the outbox */
  bool failed[WORLD_EVENTS];
  bool gap_waited[WORLD_EVENTS];
} Pipeline;

typedef struct Batch {
  unsigned count;
  unsigned events[3 * WORLD_EVENTS];  /* in order */
  Verdict verdicts[3 * WORLD_EVENTS]; /* verdicts from before the plan */
} Batch;

/* How often the interesting cases occurred, so that a test that never meets them fails. */
static struct {
  unsigned batches, events, applied, map_failures, table_failures, gaps, late, superseded, known,
      waiting, steps;
} seen;

static uint64_t current_seed;

static void G_GNUC_PRINTF(2, 3) unequal(const char *property, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *text = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  fail_msg("PROPERTY_SEED=%llu %s: %s", (unsigned long long)current_seed, property, text);
}

/* --- the pipeline, as plan.h describes it ---------------------------------------------------- */

static Pipeline *pipeline_new(World *world, const Table *start, bool gaps_waited,
                              bool all_visible) {
  Pipeline *pipeline = g_new0(Pipeline, 1);
  pipeline->world = world;
  table_copy(&pipeline->table, start);
  world_order(world, pipeline->order);
  for (unsigned i = 0; i < WORLD_AGGREGATES; i++)
    pipeline->blocked_by[i] = -1;
  for (unsigned i = 0; i < world->event_count; i++) {
    pipeline->rank[pipeline->order[i]] = i;
    pipeline->visible[i] = all_visible;
    pipeline->gap_waited[i] = gaps_waited;
  }
  return pipeline;
}

static unsigned index_of(const World *world, const Event *event) {
  unsigned i = 0;
  while (world->events[i].event != event)
    i++;
  return i;
}

static void shuffle(World *world, Item *items, unsigned count) {
  for (unsigned i = count; i > 1; i--) {
    unsigned other = world_random(world, i);
    Item kept = items[i - 1];
    items[i - 1] = items[other];
    items[other] = kept;
  }
}

/* Plans the first `count` events of the batch, which come in any order. */
static Fold *plan(const Pipeline *pipeline, const Batch *batch, unsigned count, Item *items,
                  AggregateSet *set, Arena *arena) {
  World *world = pipeline->world;
  for (unsigned i = 0; i < count; i++) {
    const WorldEvent *event = &world->events[batch->events[i]];
    items[i] = (Item){.event = event->event,
                      .gap_waited = pipeline->gap_waited[batch->events[i]],
                      .verdict = batch->verdicts[i]};
    aggregate_set_open(set, &event->event->aggregate)->position =
        pipeline->positions[event->aggregate];
  }
  shuffle(world, items, count);
  plan_sort(items, count);
  plan_map(world->mapping, items, count, arena);
  return plan_decide(world->mapping, items, count, set, arena);
}

/* The shortest part of the batch that the table refuses ends with the culprit. */
static unsigned find_culprit(const Pipeline *pipeline, const Batch *batch) {
  g_autofree Table *scratch = g_new(Table, 1);
  for (unsigned count = 1; count <= batch->count; count++) {
    Item items[3 * WORLD_EVENTS];
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    g_autoptr(Fold) fold = plan(pipeline, batch, count, items, set, arena);
    table_copy(scratch, &pipeline->table);
    if (!table_execute(scratch, pipeline->world, fold))
      return count - 1;
  }
  unequal("bisection", "a batch fails, but none of its parts does");
  return 0;
}

static void settle(Pipeline *pipeline, const Item *item) {
  unsigned index = index_of(pipeline->world, item->event);
  int *blocked_by = &pipeline->blocked_by[pipeline->world->events[index].aggregate];
  Verdict *settled = &pipeline->settled[index];
  seen.late += item->late;
  switch (item->verdict) {
  case VERDICT_APPLIED:
  case VERDICT_SUPERSEDED:
  case VERDICT_IGNORED:
    if (*settled != VERDICT_NONE)
      unequal("exactly once", "event %u took effect twice", index);
    *settled = item->verdict;
    seen.applied += item->verdict == VERDICT_APPLIED;
    seen.superseded += item->verdict == VERDICT_SUPERSEDED;
    return;
  case VERDICT_KNOWN:
    if (*settled == VERDICT_NONE)
      unequal("exactly once", "event %u is taken for known and was never applied", index);
    seen.known++;
    return;
  case VERDICT_FAILED:
    if (*blocked_by < 0 || (int)pipeline->rank[index] < *blocked_by)
      *blocked_by = (int)pipeline->rank[index];
    pipeline->failed[index] = true;
    return;
  case VERDICT_GAP:
    pipeline->gap_waited[index] = true; /* waited in vain */
    seen.gaps++;
    return;
  case VERDICT_WAIT: seen.waiting++; return;
  case VERDICT_SKIPPED: /* no operator is there to skip it */
  case VERDICT_REFRESH:
  case VERDICT_NONE: break;
  }
  unequal("verdict", "event %u got verdict %d", index, (int)item->verdict);
}

static void commit(Pipeline *pipeline, const Item *items, unsigned count, AggregateSet *set) {
  for (unsigned i = 0; i < count; i++) {
    settle(pipeline, &items[i]);
    const AggregateState *state = aggregate_set_find(set, &items[i].event->aggregate);
    unsigned index = index_of(pipeline->world, items[i].event);
    if (state->moved)
      pipeline->positions[pipeline->world->events[index].aggregate] = state->position;
  }
}

static void run_batch(Pipeline *pipeline, Batch *batch) {
  g_autofree Table *scratch = g_new(Table, 1);
  for (;;) {
    Item items[3 * WORLD_EVENTS];
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(AggregateSet) set = aggregate_set_new(arena);
    g_autoptr(Fold) fold = plan(pipeline, batch, batch->count, items, set, arena);
    table_copy(scratch, &pipeline->table);
    if (table_execute(scratch, pipeline->world, fold)) {
      table_copy(&pipeline->table, scratch);
      commit(pipeline, items, batch->count, set);
      seen.batches++;
      seen.events += batch->count;
      seen.steps += fold_step_count(fold);
      return;
    }
    batch->verdicts[find_culprit(pipeline, batch)] = VERDICT_FAILED;
    seen.table_failures++;
  }
}

/* --- batches --------------------------------------------------------------------------------- */

static bool can_take(const Pipeline *pipeline, unsigned index) {
  int blocked_by = pipeline->blocked_by[pipeline->world->events[index].aggregate];
  return pipeline->visible[index] && pipeline->settled[index] == VERDICT_NONE &&
         (blocked_by < 0 || (int)pipeline->rank[index] < blocked_by);
}

static void add_to_batch(Batch *batch, unsigned index, Verdict verdict) {
  batch->events[batch->count] = index;
  batch->verdicts[batch->count++] = verdict;
}

/* Whether it is the one event that the position knows without the ledger. */
static bool is_last_applied(const Pipeline *pipeline, unsigned index) {
  const WorldEvent *event = &pipeline->world->events[index];
  const Position *position = &pipeline->positions[event->aggregate];
  return position->known && order_key_compare(&position->last, &event->event->key) == 0;
}

/* The smallest events that can be taken. With `repeats` some applied events come again: the ledger
 * has them, or it was pruned and the position has to recognize them. */
static Batch take_batch(Pipeline *pipeline, unsigned limit, bool repeats) {
  World *world = pipeline->world;
  Batch batch = {0};
  unsigned fresh = 0;
  for (unsigned i = 0; i < world->event_count; i++) {
    unsigned index = pipeline->order[i];
    if (can_take(pipeline, index) && fresh++ < limit)
      add_to_batch(&batch, index, VERDICT_NONE);
    if (!repeats || pipeline->settled[index] == VERDICT_NONE || world_random(world, 3) > 0)
      continue;
    bool pruned = is_last_applied(pipeline, index);
    add_to_batch(&batch, index, pruned ? VERDICT_NONE : VERDICT_KNOWN);
  }
  return fresh > 0 ? batch : (Batch){0};
}

static void run_all(Pipeline *pipeline, unsigned largest, bool repeats) {
  for (unsigned rounds = 0; rounds < 4 * WORLD_EVENTS; rounds++) {
    Batch batch = take_batch(pipeline, 1 + world_random(pipeline->world, largest), repeats);
    if (batch.count == 0)
      return;
    run_batch(pipeline, &batch);
  }
  unequal("progress", "the outbox is not empty after %u batches", 4 * WORLD_EVENTS);
}

/* Events become visible a few at a time, in any order. */
static void run_arrivals(Pipeline *pipeline) {
  World *world = pipeline->world;
  unsigned hidden[WORLD_EVENTS], left = world->event_count;
  for (unsigned i = 0; i < left; i++)
    hidden[i] = i;
  while (left > 0) {
    for (unsigned n = world_random(world, 5); n > 0 && left > 0; n--) {
      unsigned at = world_random(world, left);
      pipeline->visible[hidden[at]] = true;
      hidden[at] = hidden[--left];
    }
    Batch batch = take_batch(pipeline, 1 + world_random(world, 8), false);
    if (batch.count > 0)
      run_batch(pipeline, &batch);
  }
  run_all(pipeline, 8, false);
}

/* --- comparing ------------------------------------------------------------------------------- */

static void check_rows(const char *property, const Pipeline *pipeline, const Story *story) {
  g_autofree char *found = table_text(&pipeline->table, pipeline->world);
  g_autofree char *expected = table_text(&story->table, pipeline->world);
  if (strcmp(found, expected) != 0)
    unequal(property, "rows differ, found\n%s\nexpected\n%s", found, expected);
}

static Outcome outcome_of(const Pipeline *pipeline, unsigned index) {
  if (pipeline->failed[index])
    return OUTCOME_FAILED;
  switch (pipeline->settled[index]) {
  case VERDICT_APPLIED: return OUTCOME_APPLIED;
  case VERDICT_IGNORED: return OUTCOME_IGNORED;
  default: return OUTCOME_WAITS;
  }
}

static void check_outcomes(const char *property, const Pipeline *pipeline, const Story *story) {
  for (unsigned i = 0; i < pipeline->world->event_count; i++)
    if (outcome_of(pipeline, i) != story->outcomes[i])
      unequal(property, "event %u, number %u in order: outcome %d, expected %d", i,
              pipeline->rank[i], (int)outcome_of(pipeline, i), (int)story->outcomes[i]);
}

static void check_positions(const char *property, const Pipeline *pipeline, const Story *story) {
  for (unsigned i = 0; i < WORLD_AGGREGATES; i++) {
    const Position *position = &pipeline->positions[i];
    if (position->known != story->seen[i])
      unequal(property, "aggregate %u has a position: %d", i, position->known);
    if (!position->known)
      continue;
    const OrderKey before_all = {.occurred_at = DATETIME_FIRST_MS, .event_id.kind = ID_STRING};
    const OrderKey *expected =
        story->last[i] < 0 ? &before_all : &pipeline->world->events[story->last[i]].event->key;
    if (order_key_compare(&position->last, expected) != 0 ||
        position->max_version != story->max_version[i])
      unequal(property, "aggregate %u stands at time %lld version %lld, expected %lld and %lld", i,
              (long long)position->last.occurred_at, (long long)position->max_version,
              (long long)expected->occurred_at, (long long)story->max_version[i]);
  }
}

static void check_story(const char *property, const Pipeline *pipeline, const Story *story) {
  check_outcomes(property, pipeline, story);
  check_rows(property, pipeline, story);
  check_positions(property, pipeline, story);
}

/* --- properties ------------------------------------------------------------------------------ */

/* A gap holds back its aggregate while others continue, so if aggregates share rows, nothing is
 * promised about the order between them. */
static bool must_not_wait(const World *world) {
  return world->shared_rows;
}

static void check_one_batch(World *world, const Table *start, const Story *story) {
  g_autofree Pipeline *pipeline = pipeline_new(world, start, true, true);
  Batch batch = take_batch(pipeline, WORLD_EVENTS, false);
  run_batch(pipeline, &batch);
  check_story("a batch is its events one by one", pipeline, story);
}

static void check_single_events(World *world, const Table *start, const Story *story) {
  g_autofree Pipeline *pipeline = pipeline_new(world, start, must_not_wait(world), true);
  run_all(pipeline, 1, false);
  check_story("batches of one event", pipeline, story);
}

static void check_splits(World *world, const Table *start, const Story *story) {
  for (unsigned largest = 2; largest <= 20; largest *= 3) {
    g_autofree Pipeline *pipeline = pipeline_new(world, start, must_not_wait(world), true);
    run_all(pipeline, largest, false);
    check_story("any split into batches", pipeline, story);
  }
}

static void check_repeats(World *world, const Table *start, const Story *story) {
  g_autofree Pipeline *pipeline = pipeline_new(world, start, must_not_wait(world), true);
  run_all(pipeline, 6, true);
  check_story("repeats between other events", pipeline, story);
  for (unsigned i = 0; i < world->event_count; i++) {
    unsigned index = pipeline->order[i];
    if (pipeline->settled[index] == VERDICT_NONE)
      continue;
    Batch again = {0};
    add_to_batch(&again, index, is_last_applied(pipeline, index) ? VERDICT_NONE : VERDICT_KNOWN);
    run_batch(pipeline, &again);
  }
  check_story("everything once more", pipeline, story);
}

static void check_anything(uint64_t seed) {
  g_autoptr(World) world = world_new(seed, WORLD_ANYTHING);
  g_autofree Table *empty = g_new0(Table, 1);
  g_autofree Story *story = g_new0(Story, 1);
  reference_run(world, story);
  for (unsigned i = 0; i < world->event_count; i++)
    seen.map_failures += story->outcomes[i] == OUTCOME_FAILED;
  check_one_batch(world, empty, story);
  check_single_events(world, empty, story);
  check_splits(world, empty, story);
  check_repeats(world, empty, story);
}

/* A row of zeros for each aggregate in each table that knows only deltas. */
static void fill_with_zeros(const World *world, Table *table) {
  for (unsigned i = 0; i < world->projection_count; i++)
    for (unsigned j = 0; j < WORLD_AGGREGATES; j++) {
      const WorldProjection *projection = &world->projections[i];
      if (!projection->deltas || projection->aggregate_type != world_aggregate_type(j))
        continue;
      g_autofree char *key = g_strdup_printf("/%s", world_aggregate_id(j));
      Row *row = table_open(table, i, key);
      for (unsigned k = 0; k < projection->column_count; k++)
        row->cells[k].kind = CELL_NUMBER;
    }
}

/* Deltas commute: whatever comes late, every sum is exact and every event counts once. */
static void check_late_deltas(uint64_t seed) {
  g_autoptr(World) world = world_new(seed, WORLD_DELTAS);
  g_autofree Story *story = g_new0(Story, 1);
  fill_with_zeros(world, &story->table);
  g_autofree Pipeline *pipeline = pipeline_new(world, &story->table, false, false);
  reference_run(world, story);
  run_arrivals(pipeline);
  check_story("late deltas", pipeline, story);
}

/* The newest state stays, and a late upsert or delete changes nothing; but the same event's delta
 * in another table counts. */
static void check_late_states(uint64_t seed) {
  g_autoptr(World) world = world_new(seed, WORLD_MIXED);
  g_autofree Story *story = g_new0(Story, 1);
  fill_with_zeros(world, &story->table);
  g_autofree Pipeline *pipeline = pipeline_new(world, &story->table, false, false);
  reference_run(world, story);
  run_arrivals(pipeline);
  for (unsigned i = 0; i < world->event_count; i++)
    if (pipeline->settled[i] == VERDICT_NONE)
      unequal("late states", "event %u is still in the outbox", i);
  check_rows("late states", pipeline, story);
  check_positions("late states", pipeline, story);
}

/* --- seeds ----------------------------------------------------------------------------------- */

static void for_each_seed(void (*check)(uint64_t seed)) {
  const char *one = getenv("PROPERTY_SEED");
  uint64_t first = one ? g_ascii_strtoull(one, NULL, 10) : 0;
  uint64_t count = one ? 1 : cases_to_try(DEFAULT_SEEDS);
  for (current_seed = first; current_seed < first + count; current_seed++)
    check(current_seed);
}

static void test_anything(void **state) {
  (void)state;
  for_each_seed(check_anything);
}

static void test_late_deltas(void **state) {
  (void)state;
  for_each_seed(check_late_deltas);
}

static void test_late_states(void **state) {
  (void)state;
  for_each_seed(check_late_states);
}

/* Random tests rot quietly: the events must keep meeting the cases they are made for. */
static void test_coverage(void **state) {
  (void)state;
  print_message("%u batches, %u events: %u applied, %u failed (%u of them in the table), %u late, "
                "%u superseded, %u gaps, %u known, %u waiting, %u steps\n",
                seen.batches, seen.events, seen.applied, seen.map_failures, seen.table_failures,
                seen.late, seen.superseded, seen.gaps, seen.known, seen.waiting, seen.steps);
  if (getenv("PROPERTY_SEED") || seen.batches < 10000)
    skip();
  check_that("applied", seen.applied > seen.events / 4, "a good part of the events is applied");
  check_that("failures", seen.map_failures > 100 && seen.table_failures > 100, "some fail");
  check_that("late", seen.late > 100 && seen.superseded > 100, "some come late");
  check_that("gaps", seen.gaps > 100 && seen.waiting > 100, "some wait");
  check_that("repeats", seen.known > 100, "some come again");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_anything),
      cmocka_unit_test(test_late_deltas),
      cmocka_unit_test(test_late_states),
      cmocka_unit_test(test_coverage),
  };
  return cmocka_run_group_tests_name(__FILE__, tests, NULL, NULL);
}

/* test_rehydrate.c - whether events alone give the entity: cases in a table, then random histories
 * that a plain fold computes too. */
#include "projector/domain/entity.h"
#include "projector/domain/rehydrate.h"
#include "tests/unit/property_reference.h"

#include <stdlib.h>
#include <string.h>

/* --- cases ----------------------------------------------------------------------------------- */

static const char bank[] =
    "{'projections': ["
    " {'aggregate_type': 'account', 'table': 'account', 'entities': 'accounts',"
    "  'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "  'columns': {'name': {'from': 'name', 'type': 'varchar(9)', 'null': true},"
    "              'cents': {'from': 'cents', 'type': 'bigint'},"
    "              'seen': {'from': '$event_type', 'type': 'varchar(20)'},"
    "              'left': {'from': 'left', 'type': 'int', 'null': true},"
    "              'note': {'from': 'note', 'type': 'varchar(9)', 'null': true, 'compare': false}},"
    "  'events': {'Opened': {'op': 'upsert'}, 'Renamed': {'op': 'update', 'columns': ['name']},"
    "             'Paid': {'op': 'add', 'columns': {'cents': 'amount'}}, 'Closed': {'op': "
    "'delete'},"
    "             'Left': {'op': 'delete', 'set': {'left': 'at'}},"
    "             'Sent': {'op': 'ignore'}, 'Odd': {'op': 'sql', 'statement': 'DELETE FROM "
    "account'}}},"
    " {'aggregate_type': 'account', 'table': 'other',"
    "  'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "  'columns': {'cents': {'from': 'cents', 'type': 'bigint'}},"
    "  'events': {'Paid': {'op': 'add', 'columns': {'cents': 'amount'}}}}]}";

enum { EVENTS_MAX = 5 };

#define OPENED "Opened 1 {'name': 'Ada', 'cents': 10, 'note': 'x'}"
#define ENTITY "{'name': 'Ada', 'cents': 10, 'note': 'y'}"

static const struct {
  const char *name;
  const char *events[EVENTS_MAX]; /* type, version (0: none), payload; "-": skipped by hand */
  const char *entity;             /* NULL: none */
  Rehydration outcome;
  const char *column, *culprit; /* NULL: none; the culprit by its type */
  int64_t missing, missing_count, skipped;
} cases[] = {
    {"nothing at all", {NULL}, NULL, REHYDRATED, NULL, NULL, 0, 0, 0},
    {"an entity without events", {NULL}, ENTITY, REHYDRATED_OTHERWISE, NULL, NULL, 0, 0, 0},
    {"one event", {OPENED}, ENTITY, REHYDRATED, NULL, NULL, 0, 0, 0},
    {"several",
     {OPENED, "Paid 2 {'amount': 5}", "Renamed 3 {'name': 'Eve'}"},
     "{'name': 'Eve', 'cents': 15}",
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"an event that changes nothing",
     {OPENED, "Sent 2 {}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"null and missing are one",
     {"Opened 1 {'name': null, 'cents': 1}"},
     "{'cents': 1}",
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"another number",
     {OPENED, "Paid 2 {'amount': 5}"},
     ENTITY,
     REHYDRATED_OTHERWISE,
     "cents",
     NULL,
     0,
     0,
     0},
    {"the first column that differs",
     {OPENED},
     "{'name': 'Eve', 'cents': 11}",
     REHYDRATED_OTHERWISE,
     "name",
     NULL,
     0,
     0,
     0},
    {"an entity that was closed", {OPENED, "Closed 2 {}"}, NULL, REHYDRATED, NULL, NULL, 0, 0, 0},
    {"a row that its delete has marked",
     {OPENED, "Left 2 {'at': 5}"},
     NULL,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"closed, and it is there",
     {OPENED, "Closed 2 {}"},
     ENTITY,
     REHYDRATED_OTHERWISE,
     NULL,
     NULL,
     0,
     0,
     0},
    {"gone without an event", {OPENED}, NULL, REHYDRATED_OTHERWISE, NULL, NULL, 0, 0, 0},
    {"it came back",
     {OPENED, "Closed 2 {}", "Opened 3 {'name': 'Ada', 'cents': 10}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"an entity that cannot be mapped",
     {OPENED},
     "{'name': 'Ada', 'cents': 'ten'}",
     REHYDRATED_OTHERWISE,
     NULL,
     NULL,
     0,
     0,
     0},
    {"the first event lacks its row",
     {"Paid 1 {'amount': 5}"},
     ENTITY,
     REHYDRATED_BROKEN,
     NULL,
     "Paid",
     0,
     0,
     0},
    {"a row that is gone",
     {OPENED, "Closed 2 {}", "Renamed 3 {'name': 'x'}"},
     NULL,
     REHYDRATED_BROKEN,
     NULL,
     "Renamed",
     0,
     0,
     0},
    {"a value that does not fit",
     {OPENED, "Renamed 2 {'name': 'much too long'}", "Closed 3 {}"},
     NULL,
     REHYDRATED_BROKEN,
     NULL,
     "Renamed",
     0,
     0,
     0},
    {"unknown events",
     {OPENED, "Strange 2 {}"},
     ENTITY,
     REHYDRATED_BROKEN,
     NULL,
     "Strange",
     0,
     0,
     0},
    {"a statement",
     {OPENED, "Odd 2 {}", "Paid 3 {'amount': 5}"},
     ENTITY,
     REHYDRATED_UNKNOWN,
     NULL,
     NULL,
     0,
     0,
     0},
    {"broken before the statement",
     {"Paid 1 {'amount': 5}", "Odd 2 {}"},
     ENTITY,
     REHYDRATED_BROKEN,
     NULL,
     "Paid",
     0,
     0,
     0},

    {"a gap", {OPENED, "Paid 4 {'amount': 0}"}, ENTITY, REHYDRATED, NULL, NULL, 2, 2, 0},
    {"two gaps",
     {"Opened 2 {'name': 'Ada', 'cents': 10}", "Paid 5 {'amount': 0}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     1,
     3,
     0},
    {"a gap in what is broken",
     {"Paid 3 {'amount': 0}"},
     NULL,
     REHYDRATED_BROKEN,
     NULL,
     "Paid",
     1,
     2,
     0},
    {"no versions",
     {"Opened 0 {'name': 'Ada', 'cents': 9}", "Paid 0 {'amount': 1}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"versions that begin later",
     {"Opened 0 {'name': 'Ada', 'cents': 9}", "Paid 1 {'amount': 1}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},
    {"a version twice",
     {OPENED, "Sent 1 {}", "Sent 2 {}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     0},

    {"skipped",
     {OPENED, "-Paid 2 {'amount': 'x'}", "Sent 3 {}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     1},
    {"the first is skipped",
     {"-Opened 1 {}", "Opened 2 {'name': 'Ada', 'cents': 10}"},
     ENTITY,
     REHYDRATED,
     NULL,
     NULL,
     0,
     0,
     1},
    {"only skipped ones", {"-Paid 1 {}", "-Odd 2 {}"}, NULL, REHYDRATED, NULL, NULL, 0, 0, 2},
    {"skipped, and missed",
     {OPENED, "-Paid 2 {'amount': 5}"},
     "{'name': 'Ada', 'cents': 15}",
     REHYDRATED_OTHERWISE,
     "cents",
     NULL,
     0,
     0,
     1},
};

static Event *make_event(const char *text, unsigned at) {
  bool skipped = *text == '-';
  g_auto(GStrv) parts = g_strsplit(text + skipped, " ", 3);
  g_autofree char *version = strcmp(parts[1], "0") != 0
                                 ? g_strdup_printf("{'$numberLong': '%s'}", parts[1])
                                 : g_strdup("null");
  g_autofree char *json = g_strdup_printf(
      "{'_id': 'e%u', 'aggregate_type': 'account', 'aggregate_id': 'a1', 'event_type': '%s',"
      " 'occurred_at': {'$date': {'$numberLong': '%u'}}, 'version': %s, 'payload': %s}",
      at, parts[0], at, version, parts[2]);
  Event *event = event_from(json);
  event->skipped = skipped;
  return event;
}

static Event *make_entity(const char *json) {
  static const char id[] = "a1";
  const Aggregate aggregate = {
      .type = "account",
      .type_length = strlen("account"),
      .id = {.kind = ID_STRING, .length = strlen(id), .bytes = (const uint8_t *)id}};
  g_autoptr(bson_t) document = document_from(json);
  return entity_as_event(document, &aggregate, 1, 0);
}

static void test_cases(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(bank, &failure);
  check_text("mapping", failure.message, "");
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const char *name = cases[i].name;
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
    g_autoptr(Event) entity = cases[i].entity ? make_entity(cases[i].entity) : NULL;
    Layout layout;
    for (unsigned k = 0; k < EVENTS_MAX && cases[i].events[k]; k++)
      g_ptr_array_add(events, make_event(cases[i].events[k], k));
    check_that(name, layout_init(mapping_projection(mapping, 0), arena, &layout, &failure),
               "layout");
    Rehydrated rehydrated =
        rehydrate(mapping, &layout, (Event **)(void *)events->pdata, events->len, entity, arena);
    check_text(name, rehydration_name(rehydrated.outcome), rehydration_name(cases[i].outcome));
    check_text(name, rehydrated.column ? rehydrated.column->name : NULL, cases[i].column);
    g_autofree char *culprit = rehydrated.culprit ? g_strndup(rehydrated.culprit->event_type,
                                                              rehydrated.culprit->event_type_length)
                                                  : NULL;
    check_text(name, culprit, cases[i].culprit);
    check_that(name, !culprit || *rehydrated.failure.message, "it says why it is broken");
    check_number(name, rehydrated.missing, cases[i].missing);
    check_number(name, rehydrated.missing_count, cases[i].missing_count);
    check_number(name, rehydrated.skipped, cases[i].skipped);
  }
}

/* --- random stories --------------------------------------------------------------------------- */

enum { SEEDS = 4000 };

static struct { unsigned worlds, rows, broken, unknown, equal, different; } seen;

static uint64_t current_seed;

static void must(bool holds, const char *what, unsigned aggregate) {
  if (!holds)
    fail_msg("PROPERTY_SEED=%llu aggregate %u: %s", (unsigned long long)current_seed, aggregate,
             what);
}

/* The world's only projection, whose rows are those of one aggregate each. */
static bool fits(const World *world) {
  return world->projection_count == 1 && world->projections[0].key_count == 1 &&
         world->projections[0].keys[0].field == FIELD_AGGREGATE_ID;
}

typedef struct History {
  const World *world;
  unsigned aggregate, count;
  Event *events[WORLD_EVENTS];
  Rehydration expected; /* REHYDRATED: the fold below gives the row */
  const Event *culprit;
  Table table;
} History;

/* What the events give, one by one. */
static void fold_plainly(const World *world, unsigned aggregate, History *history) {
  unsigned order[WORLD_EVENTS];
  *history = (History){.world = world, .aggregate = aggregate, .expected = REHYDRATED};
  world_order(world, order);
  for (unsigned i = 0; i < world->event_count; i++) {
    const WorldEvent *event = &world->events[order[i]];
    const WorldRule *rule = &world->projections[0].rules[event->event_type];
    if (event->aggregate != aggregate)
      continue;
    history->events[history->count++] = event->event;
    if (history->expected != REHYDRATED)
      continue;
    bool is_ours = world->projections[0].aggregate_type == world_aggregate_type(aggregate);
    if (is_ours && rule->present && rule->operation == OP_SQL) {
      history->expected = REHYDRATED_UNKNOWN;
    } else if (reference_apply(world, event, &history->table) == OUTCOME_FAILED) {
      history->expected = REHYDRATED_BROKEN;
      history->culprit = event->event;
    }
  }
}

static Rehydrated rehydrate_with(const History *history, const Event *entity, Arena *arena) {
  Layout layout;
  Failure failure = {0};
  must(layout_init(mapping_projection(history->world->mapping, 0), arena, &layout, &failure),
       "layout", history->aggregate);
  return rehydrate(history->world->mapping, &layout, history->events, history->count, entity,
                   arena);
}

static void append_cell(bson_t *entity, const char *field, const Cell *cell, bool is_real) {
  char text[32];
  switch (cell->kind) {
  case CELL_NULL: BSON_APPEND_NULL(entity, field); return;
  case CELL_REAL: BSON_APPEND_DOUBLE(entity, field, cell->real); return;
  case CELL_TEXT: BSON_APPEND_UTF8(entity, field, cell->text); return;
  case CELL_NUMBER: break;
  }
  bson_decimal128_t decimal;
  g_snprintf(text, sizeof text, "%lldE-2", (long long)cell->cents);
  bson_decimal128_from_string(text, &decimal);
  must(!is_real && BSON_APPEND_DECIMAL128(entity, field, &decimal), "a number", 0);
}

/* A different value that fits the column. */
static Cell other_than(const Cell *cell, const WorldType *type) {
  Cell other = *cell;
  switch (type->family) {
  case FAMILY_REAL:
    other.kind = CELL_REAL;
    other.real = cell->kind == CELL_NULL ? 0 : cell->real + 1;
    return other;
  case FAMILY_TEXT:
    other.kind = CELL_TEXT;
    g_strlcpy(other.text, cell->kind == CELL_TEXT && !strcmp(cell->text, "z") ? "y" : "z",
              sizeof other.text);
    return other;
  case FAMILY_NUMBER: break;
  }
  other.kind = CELL_NUMBER;
  other.cents = cell->kind == CELL_NULL                  ? 0
                : cell->cents + type->step <= type->high ? cell->cents + type->step
                                                         : cell->cents - type->step;
  return other;
}

/* The entity that shows this row, with another value in column `changed` (-1: none). NULL if two
 * columns come from the same field, which cannot have two values. */
static Event *entity_of(const History *history, const Row *row, int changed) {
  const WorldProjection *projection = &history->world->projections[0];
  const Column *columns = mapping_projection(history->world->mapping, 0)->columns;
  g_autoptr(bson_t) entity = bson_new();
  for (unsigned i = 0; i < projection->column_count; i++) {
    Cell cell = row->cells[i];
    for (unsigned k = 0; k < i; k++)
      if (projection->columns[k].field == projection->columns[i].field)
        return NULL;
    if ((int)i == changed)
      cell = other_than(&cell, projection->columns[i].type);
    append_cell(entity, columns[1 + i].from.path, &cell,
                projection->columns[i].type->family == FAMILY_REAL);
  }
  return entity_as_event(entity, &history->events[0]->aggregate, 1, 0);
}

static void check_against_entities(const History *history, const Row *row) {
  const WorldProjection *projection = &history->world->projections[0];
  for (int changed = -1; changed < (int)projection->column_count; changed++) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(Event) entity = entity_of(history, row, changed);
    if (!entity)
      return;
    Rehydrated rehydrated = rehydrate_with(history, entity, arena);
    if (changed < 0) {
      must(rehydrated.outcome == REHYDRATED, "the events reproduce the entity", history->aggregate);
      seen.equal++;
    } else {
      must(rehydrated.outcome == REHYDRATED_OTHERWISE && rehydrated.column &&
               rehydrated.column->name[1] == '0' + changed,
           "the column that differs is named", history->aggregate);
      seen.different++;
    }
  }
}

static void check_history(const History *history) {
  g_autoptr(Arena) arena = arena_new();
  Table table = history->table;
  g_autofree char *key = g_strdup_printf("/%s", world_aggregate_id(history->aggregate));
  Rehydrated rehydrated = rehydrate_with(history, NULL, arena);
  if (history->expected != REHYDRATED) {
    must(rehydrated.outcome == history->expected, "broken or unknown as the events are",
         history->aggregate);
    must(rehydrated.culprit == history->culprit, "the event that breaks it", history->aggregate);
    seen.broken += history->expected == REHYDRATED_BROKEN;
    seen.unknown += history->expected == REHYDRATED_UNKNOWN;
    return;
  }
  const Row *row = table_find(&table, 0, key);
  must(rehydrated.row == (row != NULL), "a row, if the events make one", history->aggregate);
  must(rehydrated.outcome == (row ? REHYDRATED_OTHERWISE : REHYDRATED), "without an entity",
       history->aggregate);
  seen.rows += row != NULL;
  if (row)
    check_against_entities(history, row);
}

static void test_random_stories(void **state) {
  (void)state;
  const char *one = getenv("PROPERTY_SEED");
  uint64_t first = one ? g_ascii_strtoull(one, NULL, 10) : 0;
  uint64_t count = one ? 1 : cases_to_try(SEEDS);
  g_autofree History *history = g_new(History, 1);
  for (current_seed = first; current_seed < first + count; current_seed++) {
    g_autoptr(World) world = world_new(current_seed, WORLD_ANYTHING);
    if (!fits(world))
      continue;
    seen.worlds++;
    for (unsigned i = 0; i < WORLD_AGGREGATES; i++) {
      if (world_aggregate_type(i) != world->projections[0].aggregate_type)
        continue;
      fold_plainly(world, i, history);
      if (history->count > 0)
        check_history(history);
    }
  }
  print_message("%u worlds: %u rows, %u broken, %u unknown, %u equal, %u different\n", seen.worlds,
                seen.rows, seen.broken, seen.unknown, seen.equal, seen.different);
  if (count >= SEEDS)
    check_that("coverage",
               seen.rows > 100 && seen.broken > 100 && seen.equal > 50 && seen.different > 50,
               "each is met often");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cases),
      cmocka_unit_test(test_random_stories),
  };
  return RUN_TESTS(tests);
}

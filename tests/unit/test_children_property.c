/* test_children_property.c - child tables and soft deletes under folding: whatever the batches, the
 * rows are what the events make of them one by one.
 *
 * PROPERTY_SEED runs one seed again, PROPERTY_SEEDS that many. */
#include "projector/domain/children_compare.h"
#include "projector/domain/plan.h"
#include "tests/unit/support.h"

#include <stdlib.h>
#include <string.h>

enum { ORDERS = 4, EVENTS = 60, LINES = 5, DEFAULT_SEEDS = 3000 };

static const char mapping_text[] =
    "{'projections': [{'aggregate_type': 'order', 'table': 'orders',"
    " 'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(9)'}},"
    " 'columns': {'total': {'from': 'total', 'type': 'int'},"
    "  'gone': {'from': 'gone', 'type': 'int', 'null': true}},"
    " 'children': [{'table': 'line', 'from': 'lines',"
    "  'key': {'no': {'from': '$item.no', 'type': 'int'}},"
    "  'columns': {'qty': {'from': '$item.qty', 'type': 'int'},"
    "   'at': {'from': '$index', 'type': 'int'}}}],"
    " 'events': {'Placed': {'op': 'upsert'}, 'Changed': {'op': 'update', 'columns': ['line']},"
    "  'Set': {'op': 'update', 'columns': ['total']},"
    "  'Raised': {'op': 'add', 'columns': {'total': 'by'}}, 'Removed': {'op': 'delete'},"
    "  'Marked': {'op': 'delete', 'set': {'gone': 'when'}}}}]}";

typedef enum Kind { PLACED, CHANGED, SET, RAISED, REMOVED, MARKED, KINDS } Kind;
static const char *const names[] = {"Placed", "Changed", "Set", "Raised", "Removed", "Marked"};

typedef struct Line {
  int no, qty;
} Line;

typedef struct Told {
  unsigned order;
  Kind kind;
  int number; /* total, by or when */
  unsigned line_count;
  Line lines[LINES];
  Event *event;
} Told;

typedef struct Order {
  bool there;
  int total, gone; /* gone 0: not */
  unsigned line_count;
  Line lines[LINES];
} Order;

static struct { unsigned batches, applied, failed, steps; } seen;

/* --- events --------------------------------------------------------------------------------- */

/* Numbers of items differ, with a few exceptions. */
static void draw_lines(GRand *random, Told *told) {
  told->line_count = (unsigned)g_rand_int_range(random, 0, LINES);
  for (unsigned i = 0; i < told->line_count; i++)
    told->lines[i] =
        (Line){(int)i * 3 + g_rand_int_range(random, 0, 3), g_rand_int_range(random, 0, 4)};
  if (told->line_count > 1 && g_rand_int_range(random, 0, 40) == 0)
    told->lines[1].no = told->lines[0].no;
}

static void append_lines(bson_t *payload, const Told *told) {
  bson_t lines = BSON_INITIALIZER, line;
  for (unsigned i = 0; i < told->line_count; i++) {
    char key[12];
    g_snprintf(key, sizeof key, "%u", i);
    bson_append_document_begin(&lines, key, -1, &line);
    BSON_APPEND_INT32(&line, "no", told->lines[i].no);
    BSON_APPEND_INT32(&line, "qty", told->lines[i].qty);
    bson_append_document_end(&lines, &line);
  }
  BSON_APPEND_ARRAY(payload, "lines", &lines);
  bson_destroy(&lines);
}

static void tell(GRand *random, Told *told, int index) {
  static const char *const fields[] = {"total", "", "total", "by", "", "when"};
  *told = (Told){.order = (unsigned)g_rand_int_range(random, 0, ORDERS),
                 .kind = (Kind)g_rand_int_range(random, 0, KINDS),
                 .number = g_rand_int_range(random, 1, 100)};
  draw_lines(random, told);
  char order[8], id[12];
  bson_t document = BSON_INITIALIZER, payload;
  g_snprintf(order, sizeof order, "o%u", told->order);
  g_snprintf(id, sizeof id, "e%08d", index);
  BSON_APPEND_UTF8(&document, "_id", id);
  BSON_APPEND_UTF8(&document, "aggregate_type", "order");
  BSON_APPEND_UTF8(&document, "aggregate_id", order);
  BSON_APPEND_UTF8(&document, "event_type", names[told->kind]);
  BSON_APPEND_DATE_TIME(&document, "occurred_at", 1000 + index);
  BSON_APPEND_DOCUMENT_BEGIN(&document, "payload", &payload);
  if (*fields[told->kind])
    BSON_APPEND_INT32(&payload, fields[told->kind], told->number);
  if (told->kind == PLACED || told->kind == CHANGED)
    append_lines(&payload, told);
  bson_append_document_end(&document, &payload);
  told->event = event_decode(&document);
  bson_destroy(&document);
}

/* --- one by one ------------------------------------------------------------------------------- */

static bool keys_differ(const Told *told) {
  for (unsigned i = 0; i < told->line_count; i++)
    for (unsigned k = 0; k < i; k++)
      if (told->lines[i].no == told->lines[k].no)
        return false;
  return true;
}

static void take_lines(Order *order, const Told *told) {
  order->line_count = told->line_count;
  memcpy(order->lines, told->lines, sizeof order->lines);
}

/* False: the event fails and changes nothing. */
static bool apply_one(Order *order, const Told *told) {
  switch (told->kind) {
  case PLACED:
    if (!keys_differ(told))
      return false;
    *order = (Order){.there = true, .total = told->number};
    take_lines(order, told);
    return true;
  case CHANGED:
    if (!order->there || !keys_differ(told))
      return false;
    take_lines(order, told);
    return true;
  case SET: order->total = order->there ? told->number : order->total; return order->there;
  case RAISED:
    if (!order->there || order->gone)
      return false;
    order->total += told->number;
    return true;
  case REMOVED: *order = (Order){0}; return true;
  case MARKED: order->gone = order->there ? told->number : 0; return true;
  case KINDS: break;
  }
  return false;
}

/* --- folded ----------------------------------------------------------------------------------- */

static unsigned number_of(const FoldedRow *row) {
  return (unsigned)(row->key[0].text[1] - '0');
}

/* Does what MySQL does; column 0: total, 1: gone. False: an updated row is missing. */
static bool update(Order *order, const FoldedRow *row, Arena *arena) {
  Value total = {.kind = VALUE_INT, .integer = order->total};
  if (!order->there || (row->unmarked && order->gone))
    return row->lenient;
  if (row->modes[0] == COLUMN_SET)
    order->total = (int)row->updates[0].integer;
  else if (row->modes[0] == COLUMN_ADD) /* several deltas are one sum of another kind */
    order->total = value_add(&total, &row->updates[0], &row->projection->columns[1], arena, &total)
                       ? (int)total.integer
                       : 0;
  if (row->modes[1] == COLUMN_SET)
    order->gone = row->updates[1].kind == VALUE_NULL ? 0 : (int)row->updates[1].integer;
  return true;
}

/* Uses the same comparison as infra, so that it is tested too. */
static void replace_lines(Order *order, const FoldedRow *row, Arena *arena) {
  const Projection *child = row->projection->children[0];
  const Value **rows = arena_alloc(arena, order->line_count, sizeof *rows);
  Order after = {.there = order->there, .total = order->total, .gone = order->gone};
  for (unsigned i = 0; i < order->line_count; i++) {
    Value *values = arena_alloc(arena, 4, sizeof *values);
    values[0] = row->key[0];
    values[1] = (Value){.kind = VALUE_INT, .integer = order->lines[i].no};
    values[2] = (Value){.kind = VALUE_INT, .integer = order->lines[i].qty};
    values[3] = (Value){.kind = VALUE_INT, .integer = i};
    rows[i] = values;
  }
  const ChildrenThere there = {.rows = rows, .count = order->line_count, .replaced = row->remove};
  g_autoptr(GArray) steps = child_rows_compare(child, row->children[0], &there);
  bool *removed = arena_alloc(arena, order->line_count + 1, sizeof *removed);
  for (guint i = 0; i < steps->len; i++) {
    const ChildStep *step = &g_array_index(steps, ChildStep, i);
    for (unsigned k = 0; k < order->line_count; k++)
      removed[k] |= step->task != CHILD_ADD && step->row == rows[k];
  }
  for (unsigned k = 0; k < order->line_count; k++)
    if (!removed[k])
      after.lines[rows[k][3].integer] = order->lines[k], after.line_count++;
  for (guint i = 0; i < steps->len; i++) {
    const ChildStep *step = &g_array_index(steps, ChildStep, i);
    if (step->task == CHILD_REMOVE)
      continue;
    after.lines[step->now->values[1].integer] =
        (Line){(int)step->now->key[1].integer, (int)step->now->values[0].integer};
    after.line_count++;
  }
  *order = after;
}

static bool execute(Order orders[static ORDERS], const Fold *fold, Arena *arena) {
  seen.steps += fold_step_count(fold);
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const GPtrArray *rows = fold_step(fold, i)->rows;
    for (guint k = 0; k < rows->len; k++) {
      const FoldedRow *row = rows->pdata[k];
      Order *order = &orders[number_of(row)];
      if (row->update && !update(order, row, arena))
        return false;
      if (row->remove)
        order->there = false, order->total = order->gone = 0;
      if (row->write)
        order->there = true, order->total = (int)row->row[0].integer,
        order->gone = row->row[1].kind == VALUE_NULL ? 0 : (int)row->row[1].integer;
      if (row->children[0])
        replace_lines(order, row, arena);
    }
  }
  return true;
}

/* --- comparing -------------------------------------------------------------------------------- */

static bool orders_equal(const Order *a, const Order *b) {
  return a->there == b->there && (!a->there || (a->total == b->total && a->gone == b->gone)) &&
         a->line_count == b->line_count &&
         !memcmp(a->lines, b->lines, a->line_count * sizeof *a->lines);
}

/* One batch as one fold. An event that fails is left out: at mapping, at folding, or because the
 * table refuses the result; which event that was shows when each is tried alone. */
static void run_batch(const Mapping *mapping, Told *told, unsigned count, Order *orders,
                      bool *failed) {
  g_autoptr(Arena) arena = arena_new();
  for (;;) {
    g_autoptr(Fold) fold = fold_new(arena);
    Order after[ORDERS];
    bool again = false;
    memcpy(after, orders, sizeof after);
    for (unsigned i = 0; i < count && !again; i++) {
      ChangeList changes;
      Failure failure;
      if (failed[i])
        continue;
      again = !change_list_map(mapping, told[i].event, arena, &changes, &failure) ||
              !fold_add(fold, &changes, NULL, &failure);
      failed[i] = again;
    }
    if (again)
      continue;
    if (execute(after, fold, arena)) {
      memcpy(orders, after, sizeof after);
      return;
    }
    unsigned culprit = count;
    for (unsigned upto = 1; upto <= count && culprit == count; upto++) {
      g_autoptr(Fold) part = fold_new(arena);
      ChangeList changes;
      Failure failure;
      memcpy(after, orders, sizeof after);
      for (unsigned i = 0; i < upto; i++)
        if (!failed[i] && change_list_map(mapping, told[i].event, arena, &changes, &failure))
          fold_add(part, &changes, NULL, &failure);
      if (!execute(after, part, arena))
        culprit = upto - 1;
    }
    assert_true(culprit < count);
    failed[culprit] = true;
  }
}

static void check_seed(const Mapping *mapping, guint32 seed) {
  GRand *random = g_rand_new_with_seed(seed);
  Told told[EVENTS];
  Order expected[ORDERS] = {0}, found[ORDERS] = {0};
  bool failed[EVENTS] = {false};
  for (int i = 0; i < EVENTS; i++)
    tell(random, &told[i], i);
  for (unsigned at = 0; at < EVENTS;) {
    unsigned drawn = (unsigned)g_rand_int_range(random, 1, 20), count = MIN(EVENTS - at, drawn);
    run_batch(mapping, told + at, count, found, failed + at);
    for (unsigned i = at; i < at + count; i++) {
      bool good = apply_one(&expected[told[i].order], &told[i]);
      seen.applied += good;
      seen.failed += !good;
      if (good == failed[i])
        fail_msg("seed %u, event %u (%s of o%u): applied %d, expected %d", seed, i,
                 names[told[i].kind], told[i].order, !failed[i], good);
    }
    at += count;
    seen.batches++;
    for (unsigned k = 0; k < ORDERS; k++)
      if (!orders_equal(&expected[k], &found[k]))
        fail_msg("seed %u, after event %u: o%u differs: there %d total %d gone %d lines %u,"
                 " expected %d %d %d %u",
                 seed, at - 1, k, found[k].there, found[k].total, found[k].gone,
                 found[k].line_count, expected[k].there, expected[k].total, expected[k].gone,
                 expected[k].line_count);
  }
  for (int i = 0; i < EVENTS; i++)
    event_free(told[i].event);
  g_rand_free(random);
}

static void test_children_and_marks(void **state) {
  (void)state;
  const char *one = getenv("PROPERTY_SEED");
  guint32 first = one ? (guint32)g_ascii_strtoull(one, NULL, 10) : 1;
  guint32 count = one ? 1 : (guint32)cases_to_try(DEFAULT_SEEDS);
  g_autofree char *text = g_strdelimit(g_strdup(mapping_text), "'", '"');
  json_error_t error;
  json_t *json = json_loads(text, 0, &error);
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_parse(json, &failure);
  json_decref(json);
  if (!mapping)
    fail_msg("%s", failure.message);
  for (guint32 seed = first; seed < first + count; seed++)
    check_seed(mapping, seed);
  print_message("%u batches, %u applied, %u failed, %u steps\n", seen.batches, seen.applied,
                seen.failed, seen.steps);
  if (!one) {
    assert_true(seen.applied > seen.failed);
    assert_true(seen.failed > 100);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_children_and_marks)};
  return cmocka_run_group_tests_name(__FILE__, tests, NULL, NULL);
}

/* test_fold.c - changes folded into final row states: steps, phases, sums, what cannot be
 * folded. */
#include "projector/domain/fold.h"
#include "tests/unit/support.h"

#include <string.h>

static const char mapping_file[] =
    "{'projections': [{'aggregate_type': 'x', 'table': 't',"
    " 'key': {'k': {'from': 'k', 'type': 'varchar(9)'}},"
    " 'columns': {"
    "   'n': {'from': 'n', 'type': 'tinyint', 'null': true},"
    "   's': {'from': 's', 'type': 'varchar(9)', 'null': true},"
    "   'f': {'from': 'f', 'type': 'double', 'null': true}},"
    " 'events': {"
    "   'put': {'op': 'upsert'},"
    "   'set': {'op': 'update', 'columns': ['s']},"
    "   'setn': {'op': 'update', 'columns': ['n']},"
    "   'both': {'op': 'update', 'columns': ['n', 's']},"
    "   'add': {'op': 'add', 'columns': {'n': 'n'}},"
    "   'sub': {'op': 'subtract', 'columns': {'n': 'n'}},"
    "   'addf': {'op': 'add', 'columns': {'f': 'f'}},"
    "   'del': {'op': 'delete'},"
    "   'sql': {'op': 'sql', 'statement': 'UPDATE t SET n = :n'},"
    "   'own': {'op': 'sql', 'statement': 'UPDATE t SET n = :n WHERE k = :k'},"
    "   'ign': {'op': 'ignore'}}},"
    " {'aggregate_type': 'x', 'table': 'u',"
    " 'key': {'k': {'from': 'k', 'type': 'varchar(9)'}, 's': {'from': 's', 'type': 'varchar(9)'}},"
    " 'events': {'pair': {'op': 'upsert'}, 'unpair': {'op': 'delete'}}}]}";

/* "put a n=1 s=x" as an event, of the aggregate a; "put a n=1 @b" as one of b. */
static Event *event_of(const char *text) {
  const char *aggregate = strchr(text, '@');
  g_autofree char *plain = g_strndup(text, aggregate ? (size_t)(aggregate - text) : strlen(text));
  g_auto(GStrv) words = g_strsplit(g_strchomp(plain), " ", 0);
  g_autoptr(GString) json = g_string_new(NULL);
  g_string_printf(json,
                  "{'_id': 'e', 'aggregate_type': 'x', 'aggregate_id': '%s', 'event_type': '%s',"
                  " 'occurred_at': {'$date': {'$numberLong': '0'}}, 'payload': {'k': '%s'",
                  aggregate ? aggregate + 1 : words[1], words[0], words[1]);
  for (unsigned i = 2; words[i]; i++) {
    const char *value = words[i] + 2;
    g_string_append_printf(json, words[i][0] == 's' ? ", '%c': '%s'" : ", '%c': %s", words[i][0],
                           value);
  }
  g_string_append(json, "}}");
  return event_from(json->str);
}

static void append_value(GString *out, const char *mark, const Column *column, const Value *value) {
  g_autofree char *text = value_text(value);
  const char *blank = strchr(text, ' ');
  g_string_append_printf(out, " %s%s%s", column->name, mark, blank ? blank + 1 : text);
}

static void append_row(GString *out, const FoldedRow *row) {
  const Projection *projection = row->projection;
  const Column *columns = projection->columns + projection->key_count;
  unsigned count = projection->column_count - projection->key_count;
  g_string_append_printf(out, "%s(", projection->table);
  for (unsigned i = 0; i < projection->key_count; i++)
    g_string_append_printf(out, i ? ",%.*s" : "%.*s", (int)row->key[i].length, row->key[i].text);
  g_string_append(out, row->update ? ") update" : ")");
  for (unsigned i = 0; i < count && row->update; i++)
    if (row->modes[i] != COLUMN_KEEP)
      append_value(out, row->modes[i] == COLUMN_ADD ? "+" : "=", &columns[i], &row->updates[i]);
  g_string_append(out, row->remove ? " remove" : "");
  g_string_append(out, row->write ? " write" : "");
  for (unsigned i = 0; i < count && row->write; i++)
    append_value(out, "=", &columns[i], &row->row[i]);
  g_string_append(out, "; ");
}

static char *fold_text(const Fold *fold) {
  GString *out = g_string_new(NULL);
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    g_string_append(out, i ? "| " : "");
    const Column sql = {.name = "sql"};
    if (step->statement)
      append_value(out, "", &sql, &step->statement->values[0]);
    for (unsigned j = 0; !step->statement && j < step->rows->len; j++)
      append_row(out, step->rows->pdata[j]);
  }
  return g_strchomp(g_string_free(out, FALSE));
}

/* Folds the events; gives the fold as text, or "at N: message" for the event that cannot join.
 * `ordered`: the order of all of them counts. */
static char *folded(const Mapping *mapping, const char *events, bool ordered) {
  g_auto(GStrv) texts = g_strsplit(events, ", ", 0);
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(Fold) fold = fold_new(arena);
  g_autoptr(GPtrArray) kept = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  for (unsigned i = 0; texts[i]; i++) {
    Event *event = event_of(texts[i]);
    g_ptr_array_add(kept, event);
    const Aggregate *aggregate = ordered ? NULL : &event->aggregate;
    ChangeList changes;
    Failure failure = {0};
    if (!change_list_map(mapping, event, arena, &changes, &failure))
      fail_msg("the test's own event is wrong: %s: %s", texts[i], failure.message);
    if (!fold_add(fold, &changes, aggregate, &failure))
      return g_strdup_printf("at %u: %s", i, failure.message);
  }
  return fold_text(fold);
}

static const struct {
  const char *events, *expected;
} fold_cases[] = {
    {"put a n=1 s=x", "t(a) write n=1 s=x f=null;"},
    {"put a n=1 s=x, put a n=2 s=y", "t(a) write n=2 s=y f=null;"},
    {"put a n=1, put b n=2", "t(a) write n=1 s=null f=null; t(b) write n=2 s=null f=null;"},
    {"put b n=1, put a n=2, put b n=3",
     "t(b) write n=3 s=null f=null; t(a) write n=2 s=null f=null;"},
    {"put a n=1, add a n=2", "t(a) write n=3 s=null f=null;"},
    {"put a n=1, sub a n=2", "t(a) write n=-1 s=null f=null;"},
    {"put a n=1 s=x, set a s=y", "t(a) write n=1 s=y f=null;"},
    {"put a n=1 s=x, set a", "t(a) write n=1 s=null f=null;"},
    {"put a n=1 s=x, both a n=2 s=y", "t(a) write n=2 s=y f=null;"},
    {"add a n=1, both a n=2 s=y", "t(a) update n+1; | t(a) update n=2 s=y;"},
    {"set a s=x, both a n=2 s=y", "t(a) update n=2 s=y;"},
    {"put a n=1 f=0.5, addf a f=0.25, addf a f=1", "t(a) write n=1 s=null f=1.75;"},
    {"put a n=100, add a n=100",
     "at 1: t: expected a sum that fits n tinyint, found one that does not"},
    {"put a n=100, add a n=27", "t(a) write n=127 s=null f=null;"},
    {"put a n=100, add a n=100, sub a n=100",
     "at 1: t: expected a sum that fits n tinyint, found one that does not"},
    {"put a, add a n=1", "at 1: t: expected a number in column n, found NULL"},
    {"put a, setn a n=1, add a n=1", "t(a) write n=2 s=null f=null;"},
    {"put a n=1, setn a, add a n=1", "at 2: t: expected a number in column n, found NULL"},

    {"add a n=1", "t(a) update n+1;"},
    {"add a n=1, add a n=2", "t(a) update n+3;"},
    {"add a n=1, sub a n=2", "t(a) update n+-1;"},
    {"add a n=100, add a n=100", "t(a) update n+200;"}, /* the row may start at -100 */
    {"add a n=1, sub a n=1", "t(a) update n+0;"},
    {"set a s=x", "t(a) update s=x;"},
    {"set a s=x, set a s=y", "t(a) update s=y;"},
    {"set a s=x, add a n=1", "t(a) update n+1 s=x;"},
    {"add a n=1, add b n=2, add a n=3", "t(a) update n+4; t(b) update n+2;"},
    {"setn a n=5, add a n=1", "t(a) update n=6;"},
    {"setn a n=100, add a n=100",
     "at 1: t: expected a sum that fits n tinyint, found one that does not"},
    {"setn a, add a n=1", "at 1: t: expected a number in column n, found NULL"},
    {"add a n=1, setn a n=5", "t(a) update n+1; | t(a) update n=5;"}, /* the sum must fit too */
    {"add a n=1, set a s=x", "t(a) update n+1 s=x;"},
    {"addf a f=0.1, addf a f=0.2",
     "t(a) update f+0.10000000000000001; | t(a) update f+0.20000000000000001;"},
    {"addf a f=0.1, addf b f=0.2",
     "t(a) update f+0.10000000000000001; t(b) update f+0.20000000000000001;"},
    {"addf a f=1, add a n=1, addf a f=2", "t(a) update n+1 f+1; | t(a) update f+2;"},

    {"del a", "t(a) remove;"},
    {"del a, del a", "t(a) remove;"},
    {"put a n=1, del a", "t(a) remove;"},
    {"add a n=1, del a", "t(a) update n+1 remove;"},
    {"del a, put a n=1", "t(a) remove write n=1 s=null f=null;"},
    {"del a, put a n=1, add a n=1", "t(a) remove write n=2 s=null f=null;"},
    {"add a n=1, del a, put a n=5", "t(a) update n+1 remove write n=5 s=null f=null;"},
    {"add a n=1, put a n=5", "t(a) update n+1 write n=5 s=null f=null;"},
    {"add a n=1, put a n=5, add a n=1", "t(a) update n+1 write n=6 s=null f=null;"},
    {"put a n=1, del a, put a n=2, del a", "t(a) remove;"},
    {"del a, add a n=1", "at 1: row missing in t"},
    {"del a, set a s=x", "at 1: row missing in t"},
    {"put a n=1, del a, sub a n=1", "at 2: row missing in t"},
    {"del a, add b n=1", "t(a) remove; t(b) update n+1;"},

    {"sql a n=5", " sql5"},
    {"put a n=1, sql a n=5, add a n=2", "t(a) write n=1 s=null f=null; |  sql5| t(a) update n+2;"},
    {"sql a n=5, sql a n=6", " sql5|  sql6"},
    {"del a, sql a n=5, add a n=1", "t(a) remove; |  sql5| t(a) update n+1;"},
    {"ign a", ""},
    {"ign a, put a n=1, ign a", "t(a) write n=1 s=null f=null;"},

    {"pair a s=x, pair a s=y, pair b s=x", "u(a,x) write; u(a,y) write; u(b,x) write;"},
    {"pair a s=x, unpair a s=x", "u(a,x) remove;"},
    {"pair ab s=c, pair a s=bc", "u(ab,c) write; u(a,bc) write;"},
    {"put a s=x, pair a s=x", "t(a) write n=null s=x f=null; u(a,x) write;"},
    {"put a n=1, put A n=2", "t(a) write n=1 s=null f=null; t(A) write n=2 s=null f=null;"},
};

static void test_folds(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(mapping_file, &failure);
  check_text("mapping", failure.message, "");
  for (size_t i = 0; i < COUNT_OF(fold_cases); i++) {
    g_autofree char *found = folded(mapping, fold_cases[i].events, true);
    check_text(fold_cases[i].events, found, fold_cases[i].expected);
  }
}

/* Where only the order of each aggregate counts, and of each row. */
static const struct {
  const char *events, *expected;
} level_cases[] = {
    {"own a n=5", " sql5"},
    {"put a n=1, own a n=5, add a n=2", "t(a) write n=1 s=null f=null; |  sql5| t(a) update n+2;"},
    /* others stay together */
    {"add a n=1, own a n=5, add b n=2, add a n=3, add b n=4",
     "t(a) update n+1; t(b) update n+6; |  sql5| t(a) update n+3;"},
    {"own a n=5, add b n=1, own b n=6, add c n=1",
     "t(b) update n+1; t(c) update n+1; |  sql5|  sql6"},
    {"own a n=5, own a n=6, add a n=1", " sql5|  sql6| t(a) update n+1;"},
    {"del a, own a n=5, put a n=1", "t(a) remove; |  sql5| t(a) write n=1 s=null f=null;"},
    {"addf a f=1, addf a f=2, addf b f=3, addf b f=4",
     "t(a) update f+1; t(b) update f+3; | t(a) update f+2; t(b) update f+4;"},
    {"add a n=1, setn a n=5, add b n=1", "t(a) update n+1; t(b) update n+1; | t(a) update n=5;"},
    /* an aggregate's rows keep its order: after the statement comes what came after it */
    {"own a n=5, add b n=1 @a", " sql5| t(b) update n+1;"},
    {"own a n=5, pair a s=x", " sql5| u(a,x) write;"},
    /* a row keeps the order of those who share it */
    {"own a n=5 @x, add a n=1 @y", " sql5| t(a) update n+1;"},
    {"own a n=5 @x, add a n=1 @y, add b n=2 @y", " sql5| t(a) update n+1; t(b) update n+2;"},
    {"own b n=5 @x, add a n=1 @x, own a n=6 @y, add a n=2 @y",
     " sql5| t(a) update n+1; |  sql6| t(a) update n+2;"},
    {"own b n=5 @x, add a n=1 @y, add a n=2 @x, add a n=3 @y",
     "t(a) update n+1; |  sql5| t(a) update n+5;"},
    {"own a n=5 @x, own a n=6 @y", " sql5|  sql6"},
    /* a statement that may touch anything stands between all */
    {"own a n=5, add b n=1, sql a n=6, add a n=2, add b n=3",
     "t(b) update n+1; |  sql5|  sql6| t(a) update n+2; t(b) update n+3;"},
    {"own a n=5, add a n=1, sql a n=6", " sql5| t(a) update n+1; |  sql6"},
};

static void test_statements_of_a_row_part_only_what_has_an_order(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(mapping_file, &failure);
  for (size_t i = 0; i < COUNT_OF(level_cases); i++) {
    g_autofree char *found = folded(mapping, level_cases[i].events, false);
    check_text(level_cases[i].events, found, level_cases[i].expected);
  }
}

static void test_with_the_order_of_all_every_statement_parts_all(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(mapping_file, &failure);
  g_autofree char *found = folded(mapping, "own a n=5, add b n=1, own b n=6, add a n=2", true);
  check_text("ordered", found, " sql5| t(b) update n+1; |  sql6| t(a) update n+2;");
}

/* Known and accepted (fold.h): a sum of deltas is checked when it is added to the row, not the sums
 * on the way to it. */
static void test_sums_are_checked_at_the_end(void **state) {
  (void)state;
  Failure failure;
  g_autoptr(Mapping) mapping = mapping_from(mapping_file, &failure);
  g_autofree char *found =
      folded(mapping, "add a n=100, add a n=100, sub a n=127, sub a n=73", true);
  check_text("there and back", found, "t(a) update n+0;");
}

/* --- entities -------------------------------------------------------------------------------- */

static const char entity_mapping[] =
    "{'projections': [{'aggregate_type': 'x', 'table': 't', 'entities': 'xs',"
    " 'key': {'k': {'from': '%s', 'type': 'varchar(9)'}},"
    " 'columns': {'n': {'from': 'n', 'type': 'int'}}, 'events': {'put': {'op': 'upsert'}}}]}";

static Mapping *entity_mapping_with_key(const char *from) {
  g_autofree char *file = g_strdup_printf(entity_mapping, from);
  Failure failure;
  return mapping_from(file, &failure);
}

static const char entity_event[] =
    "{'_id': 'e', 'aggregate_type': 'x', 'aggregate_id': 'a', 'event_type': 'refresh',"
    " 'occurred_at': {'$date': {'$numberLong': '0'}}, 'payload': %s}";

static char *taken_from_entity(const char *key, const char *payload, bool missing) {
  g_autoptr(Mapping) mapping = entity_mapping_with_key(key);
  g_autofree char *json = g_strdup_printf(entity_event, payload);
  g_autoptr(Event) event = event_from(json);
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(Fold) fold = fold_new(arena);
  const Projection *projection = mapping_projection(mapping, 0);
  Change change = {0};
  Failure failure = {0};
  if (!(missing ? change_for_missing_entity(projection, event, arena, &change, &failure)
                : change_from_entity(projection, event, arena, &change, &failure)))
    return g_strdup(failure.message);
  const ChangeList list = {.count = 1, .changes = &change};
  check_that("fold", fold_add(fold, &list, NULL, &failure), "it takes the change");
  return fold_text(fold);
}

static void test_entities(void **state) {
  (void)state;
  static const struct {
    const char *key, *payload;
    bool missing;
    const char *expected;
  } cases[] = {
      {"$aggregate_id", "{'n': 5}", false, "t(a) write n=5;"},
      {"$aggregate_id", "{'n': 'x'}", false,
       "entity in xs for t: payload.n: expected int, found string of 1 bytes \"x\""},
      {"$aggregate_id", "{}", false, "entity in xs for t: payload.n: expected int, found nothing"},
      {"$aggregate_id", "{}", true, "t(a) remove;"},
      {"owner", "{}", true, "payload.owner: expected varchar(9), found nothing"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *found = taken_from_entity(cases[i].key, cases[i].payload, cases[i].missing);
    check_text(cases[i].payload, found, cases[i].expected);
  }
}

/* --- mapping failures ------------------------------------------------------------------------ */

static void test_change_failures(void **state) {
  (void)state;
  static const struct {
    const char *event, *message;
  } cases[] = {
      {"put a n=128", "t: payload.n: expected tinyint, found int32 128"},
      {"add a",
       "t: payload.n: expected tinyint, found nothing"}, /* although the column may be NULL */
      {"add a n=null", "t: payload.n: expected tinyint, found null"},
      {"sub a n=true", "t: payload.n: expected tinyint, found bool true"},
      {"put aaaaaaaaaa n=1",
       "t: payload.k: expected varchar(9), found string of 10 bytes \"aaaaaaaaaa\""},
      {"del aaaaaaaaaa",
       "t: payload.k: expected varchar(9), found string of 10 bytes \"aaaaaaaaaa\""},
      {"pair a", "u: payload.s: expected varchar(9), found nothing"},
      {"unpair a", "u: payload.s: expected varchar(9), found nothing"},
      {"sql a n=128", "t: payload.n: expected tinyint, found int32 128"},
      {"other a", "event_type: expected one that a projection of x names, found other"},
  };
  Failure failure;
  g_autoptr(Mapping) mapping = mapping_from(mapping_file, &failure);
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(Event) event = event_of(cases[i].event);
    ChangeList changes;
    check_that(cases[i].event, !change_list_map(mapping, event, arena, &changes, &failure),
               "it is refused");
    check_text(cases[i].event, failure.message, cases[i].message);
    check_number(cases[i].event, failure.class, FAILURE_DATA);
  }
}

static void test_arena(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  for (int round = 0; round < 3; round++, arena_reset(arena))
    for (size_t size = 0; size < 2000000; size = size * 2 + 1) {
      uint8_t *memory = arena_alloc(arena, 1, size);
      char *copy = arena_copy(arena, "abc", 3);
      check_number("aligned", (int64_t)((uintptr_t)memory % _Alignof(max_align_t)), 0);
      for (size_t i = 0; i < size; i++)
        if (memory[i])
          fail_msg("byte %zu of %zu is not zero", i, size);
      if (size)
        memset(memory, 0xAA, size);
      check_text("copy", copy, "abc");
    }
}

/* A steady load uses one block. */
static void test_arena_reset_takes_the_memory_again(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  const void *first = arena_alloc(arena, 1, 100);
  for (int round = 0; round < 100; round++) {
    arena_alloc(arena, 100, 1000);
    arena_reset(arena);
    check_that("reset", arena_alloc(arena, 1, 100) == first, "the same memory comes again");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_folds),
      cmocka_unit_test(test_statements_of_a_row_part_only_what_has_an_order),
      cmocka_unit_test(test_with_the_order_of_all_every_statement_parts_all),
      cmocka_unit_test(test_sums_are_checked_at_the_end),
      cmocka_unit_test(test_entities),
      cmocka_unit_test(test_change_failures),
      cmocka_unit_test(test_arena),
      cmocka_unit_test(test_arena_reset_takes_the_memory_again),
  };
  return RUN_TESTS(tests);
}

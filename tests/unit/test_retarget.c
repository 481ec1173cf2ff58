/* test_retarget.c - a mapping cut down to one projection, onto another table. */
#include "projector/domain/change.h"
#include "projector/domain/retarget.h"
#include "tests/unit/support.h"

#include <string.h>

#define KEY "'key': {'id': {'from': '$aggregate_id', 'type': 'int'}}"

static json_t *file_from(const char *json) {
  g_autofree char *text = json_text(json);
  json_error_t error;
  json_t *file = json_loads(text, JSON_REJECT_DUPLICATES, &error);
  if (!file)
    fail_msg("the test's own JSON is wrong: line %d: %s", error.line, error.text);
  return file;
}

static const char with_lines[] =
    "{'projections': [{'aggregate_type': 'account', 'table': 'account', " KEY ", 'columns': {},"
    " 'children': [{'table': 'line', 'from': 'lines', 'key': {'n': {'from': '$index', 'type': "
    "'int'}}}],"
    " 'events': {'Opened': {'op': 'upsert'}, 'Listed': {'op': 'update', 'columns': {'LINE': "
    "'listed'}}, 'Named': {'op': 'update', 'columns': ['Line']}}}]}";

static const char two[] =
    "{'name': 'bank', 'unknown_events': 'fail', 'projections': ["
    " {'aggregate_type': 'account', 'table': 'account', 'entities': 'accounts', " KEY ","
    "  'columns': {'cents': {'from': 'cents', 'type': 'bigint'}},"
    "  'events': {'Opened': {'op': 'upsert'}, 'Odd': {'op': 'sql', 'statement':"
    "   'UPDATE account SET cents = account.cents + :cents WHERE id = :$aggregate_id'}}},"
    " {'aggregate_type': 'account', 'table': 'log', " KEY ", 'columns': {},"
    "  'events': {'Opened': {'op': 'upsert'}, 'Closed': {'op': 'delete'}}}]}";

static unsigned changes_of(const Mapping *mapping, const char *event_type) {
  g_autoptr(Arena) arena = arena_new();
  g_autofree char *json = g_strdup_printf(
      "{'_id': 'e', 'aggregate_type': 'account', 'aggregate_id': 5, 'event_type': '%s',"
      " 'occurred_at': {'$date': {'$numberLong': '1'}}, 'payload': {'cents': 7}}",
      event_type);
  g_autoptr(Event) event = event_from(json);
  ChangeList list = {0};
  Failure failure = {0};
  check_that(event_type, change_list_map(mapping, event, arena, &list, &failure), failure.message);
  for (unsigned i = 0; i < list.count; i++)
    check_that(event_type, list.changes[i].rule->projection == mapping_projection(mapping, 0),
               "it changes the other table alone");
  return list.count;
}

/* The file may name a child table in any case. */
static void test_a_child_table_is_renamed_where_an_update_names_it(void **state) {
  (void)state;
  json_t *file = file_from(with_lines);
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_parse(file, &failure);
  check_that("mapping", mapping != NULL, failure.message);
  g_autoptr(Mapping) other =
      mapping_retarget(file, mapping_projection(mapping, 0), "account__new", &failure);
  check_that("mapping", other != NULL, failure.message);
  check_text("child table", mapping_projection(other, 0)->children[0]->table, "line__new");
  json_decref(file);
}

static void test_one_projection_onto_another_table(void **state) {
  (void)state;
  json_t *file = file_from(two), *before = json_deep_copy(file);
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_parse(file, &failure);
  g_autoptr(Mapping) other =
      mapping_retarget(file, mapping_projection(mapping, 0), "account__replay", &failure);
  check_that("mapping", other != NULL, failure.message);
  check_number("projections", mapping_projection_count(other), 1);
  const Projection *projection = mapping_projection(other, 0);
  check_text("table", projection->table, "account__replay");
  check_that("entities", !projection->entities, "there is nothing to refresh from");
  check_that("the old name", !mapping_find(other, "account"), "it is gone");
  for (unsigned i = 0; i < projection->rule_count; i++)
    if (projection->rules[i].operation == OP_SQL)
      check_text("statement", projection->rules[i].statement,
                 "UPDATE account__replay SET cents = account__replay.cents + ? WHERE id = ?");
  check_number("an event of both tables", changes_of(other, "Opened"), 1);
  check_number("a statement", changes_of(other, "Odd"), 1);
  check_number("an event of the other projection", changes_of(other, "Closed"), 0);
  check_number("an event of none", changes_of(other, "Strange"), 0);
  check_that("the file", json_equal(file, before), "it is as it was");
  json_decref(before);
  json_decref(file);
}

static void test_the_second_projection(void **state) {
  (void)state;
  json_t *file = file_from(two);
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_parse(file, &failure);
  g_autoptr(Mapping) other = mapping_retarget(file, mapping_projection(mapping, 1), "x", &failure);
  json_decref(file); /* the copy borrows nothing from it */
  check_that("mapping", other != NULL, failure.message);
  check_text("table", mapping_projection(other, 0)->table, "x");
  check_number("Closed", changes_of(other, "Closed"), 1);
  check_number("Odd", changes_of(other, "Odd"), 0);
}

static void test_a_statement_that_might_change_more_is_refused(void **state) {
  (void)state;
  static const char *const statements[] = {"INSERT INTO audit SELECT * FROM account",
                                           "UPDATE account JOIN log USING (id) SET log.id = 1",
                                           "DELETE FROM log"};
  for (size_t i = 0; i < COUNT_OF(statements); i++) {
    g_autofree char *json = g_strdup_printf(
        "{'projections': [{'aggregate_type': 'user', 'table': 'user', " KEY ", 'columns': {},"
        "  'events': {'Born': {'op': 'upsert'}}},"
        " {'aggregate_type': 'account', 'table': 'account', " KEY ", 'columns': {},"
        "  'events': {'Opened': {'op': 'upsert'}, 'Odd': {'op': 'sql', 'statement': '%s'}}}]}",
        statements[i]);
    json_t *file = file_from(json);
    Failure failure = {0};
    g_autoptr(Mapping) mapping = mapping_parse(file, &failure);
    g_autoptr(Mapping) user = mapping_retarget(file, mapping_projection(mapping, 0), "x", &failure);
    check_that(statements[i], user != NULL, "another projection's statement does not matter");
    g_autoptr(Mapping) other =
        mapping_retarget(file, mapping_projection(mapping, 1), "x", &failure);
    check_that(statements[i], !other, "it is refused");
    check_that(statements[i],
               failure.class == FAILURE_CONFIG &&
                   g_str_has_prefix(failure.message, "projections[1].events.Odd.statement: "),
               failure.message);
    json_decref(file);
  }
}

static void test_whose_rows(void **state) {
  (void)state;
  static const struct {
    const char *key;
    bool owns, removes;
  } keys[] = {
      {"'id': {'from': '$aggregate_id', 'type': 'int'}", true, true},
      {"'id': {'from': '$aggregate_id', 'type': 'int'},"
       " 'again': {'from': '$aggregate_id', 'type': 'varchar(40)'}",
       true, true},
      {"'id': {'from': '$aggregate_id', 'type': 'int'}, 'n': {'from': 'n', 'type': 'int'}", false,
       true},
      {"'id': {'from': 'aggregate_id', 'type': 'int'}", false, false}, /* of the payload */
      {"'id': {'from': '$event_id', 'type': 'varchar(40)'}", false, false},
  };
  for (size_t i = 0; i < COUNT_OF(keys); i++) {
    g_autofree char *json = g_strdup_printf(
        "{'projections': [{'aggregate_type': 'account', 'table': 'account', 'key': {%s},"
        " 'columns': {}, 'events': {'Opened': {'op': 'upsert'}, 'Closed': {'op': 'delete'}}}]}",
        keys[i].key);
    Failure failure = {0};
    g_autoptr(Mapping) mapping = mapping_from(json, &failure);
    check_that(keys[i].key, mapping != NULL, failure.message);
    const Projection *projection = mapping_projection(mapping, 0);
    const Rule rule = {.projection = projection};
    const Change missing = {.rule = &rule, .row = ROW_MISSING};
    check_number(keys[i].key, projection_owns_rows(projection), keys[i].owns);
    check_number(keys[i].key, change_has_lost_row(&missing, false), keys[i].removes);
    check_number(keys[i].key, change_has_lost_row(&missing, true), true);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_projection_onto_another_table),
      cmocka_unit_test(test_a_child_table_is_renamed_where_an_update_names_it),
      cmocka_unit_test(test_the_second_projection),
      cmocka_unit_test(test_a_statement_that_might_change_more_is_refused),
      cmocka_unit_test(test_whose_rows),
  };
  return RUN_TESTS(tests);
}

/* test_row_compare.c - whether a row matches its entity, and what it means if it does not. */
#include "projector/domain/entity.h"
#include "projector/domain/row_compare.h"
#include "projector/domain/value_text.h"
#include "tests/unit/support.h"

#include <string.h>

/* --- decisions ------------------------------------------------------------------------------ */

typedef struct DecisionCase {
  const char *name;
  bool entity, row, equal;
  int64_t version;
  bool known;
  int64_t applied, refreshed;
  bool pending;
  DifferenceKind expected_row, expected_position;
  bool lagging;
} DecisionCase;

#define NONE DIFFERENCE_NONE

static const DecisionCase decision_cases[] = {
    {"nothing on either side", 0, 0, 0, 0, 0, 0, 0, 0, NONE, NONE, false},
    {"equal", 1, 1, 1, 3, 1, 3, 0, 0, NONE, NONE, false},
    {"equal, never applied", 1, 1, 1, 3, 0, 0, 0, 0, NONE, NONE, false},
    {"equal, no version", 1, 1, 1, 0, 1, 0, 0, 0, NONE, NONE, false},
    {"equal, events without version", 1, 1, 1, 3, 1, 0, 0, 0, NONE, NONE, false},
    {"equal by chance, event pending", 1, 1, 1, 3, 1, 2, 0, 1, NONE, NONE, true},
    {"equal, event pending", 1, 1, 1, 3, 1, 3, 0, 1, NONE, NONE, false},

    {"no row", 1, 0, 0, 3, 1, 3, 0, 0, DIFFERENCE_MISSING_ROW, NONE, false},
    {"no row yet", 1, 0, 0, 1, 0, 0, 0, 1, NONE, NONE, true},
    {"no row, its event is lost", 1, 0, 0, 1, 0, 0, 0, 0, DIFFERENCE_MISSING_ROW, NONE, false},
    {"no entity", 0, 1, 0, 0, 1, 3, 0, 0, DIFFERENCE_EXTRA_ROW, NONE, false},
    {"no entity, the delete waits", 0, 1, 0, 0, 1, 3, 0, 1, NONE, NONE, true},
    {"different", 1, 1, 0, 3, 1, 3, 0, 0, DIFFERENCE_COLUMNS, NONE, false},
    {"different, event pending", 1, 1, 0, 4, 1, 3, 0, 1, NONE, NONE, true},
    {"different, a late event pending", 1, 1, 0, 3, 1, 3, 0, 1, NONE, NONE, true},
    {"different, no version", 1, 1, 0, 0, 1, 0, 0, 0, DIFFERENCE_COLUMNS, NONE, false},
    {"different, its event is lost", 1, 1, 0, 4, 1, 3, 0, 0, DIFFERENCE_COLUMNS, NONE, false},

    {"position behind", 1, 1, 1, 4, 1, 3, 0, 0, NONE, DIFFERENCE_POSITION_BEHIND, false},
    {"position ahead", 1, 1, 1, 4, 1, 5, 0, 0, NONE, DIFFERENCE_POSITION_AHEAD, false},
    {"refreshed ahead", 1, 1, 1, 4, 1, 4, 9, 0, NONE, DIFFERENCE_POSITION_AHEAD, false},
    {"ahead, event pending", 1, 1, 0, 4, 1, 5, 0, 1, NONE, DIFFERENCE_POSITION_AHEAD, true},
    {"ahead and different", 1, 1, 0, 4, 1, 5, 0, 0, DIFFERENCE_COLUMNS, DIFFERENCE_POSITION_AHEAD,
     false},
    {"position of a deleted entity", 0, 0, 0, 0, 1, 5, 0, 0, NONE, NONE, false},
};

static void decisions(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(decision_cases); i++) {
    const DecisionCase *row = &decision_cases[i];
    Sight sight = {.entity = row->entity,
                   .row = row->row,
                   .equal = row->equal,
                   .version = row->version,
                   .position = {.known = row->known,
                                .max_version = row->applied,
                                .refreshed_version = row->refreshed},
                   .pending = row->pending};
    Decision decision = difference_decide(&sight);
    check_text(row->name, difference_name(decision.row), difference_name(row->expected_row));
    check_text(row->name, difference_name(decision.position),
               difference_name(row->expected_position));
    check_number(row->name, decision.lagging, row->lagging);
  }
}

/* --- columns -------------------------------------------------------------------------------- */

typedef struct ColumnCase {
  const char *type, *entity; /* {"v": entity} in extended JSON */
  const char *row;           /* as MySQL sends it; NULL: NULL */
  bool equal;
} ColumnCase;

static const ColumnCase column_cases[] = {
    {"varchar(10)", "'Ada'", "Ada", true},
    {"varchar(10)", "'Ada'", "Ada ", false},
    {"varchar(10)", "'Ada'", "ada", false},
    {"varchar(10)", "''", "", true},
    {"varchar(10)", "''", NULL, false},
    {"varchar(10)", "null", "", false},
    {"varchar(10)", "null", NULL, true},
    {"boolean", "true", "1", true},
    {"boolean", "true", "2", false},
    {"bigint unsigned", "5", "5", true},
    {"bigint unsigned", "5", "-5", false},
    {"int", "-5", "-5", true},
    {"decimal(18,2)", "{'$numberDecimal': '10.5'}", "10.50", true},
    {"decimal(18,2)", "{'$numberDecimal': '10.5'}", "10.5000", true},
    {"decimal(18,2)", "{'$numberDecimal': '10.5'}", "10.51", false},
    {"decimal(18,2)", "{'$numberDecimal': '-0'}", "0.00", true},
    {"double", "{'$numberDouble': '0.1'}", "0.1", true},
    {"double", "{'$numberDouble': '0.1'}", "0.10000000000000002", false},
    {"date", "'2024-02-29'", "2024-02-29", true},
    {"date", "'2024-02-29'", "0000-00-00", false},
    {"datetime(3)", "{'$date': {'$numberLong': '1'}}", "1970-01-01 00:00:00.001", true},
    {"datetime(3)", "{'$date': {'$numberLong': '1'}}", "1970-01-01 00:00:00.001000", true},
    {"datetime(3)", "{'$date': {'$numberLong': '1'}}", "1970-01-01 00:00:00.001001", false},
    {"json", "{'a': 1, 'b': [1.5, null]}", "{\"b\": [1.5, null], \"a\": 1}", true},
    {"json", "{'a': 1}", "{\"a\": 1, \"b\": null}", false},
    {"json", "{'a': {'$numberDouble': '1.0'}}", "{\"a\": 1}", false},
    {"uuid", "'00000000-0000-0000-0000-000000000000'", "0123456789abcdef", false},
};

static void columns(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(column_cases); i++) {
    const ColumnCase *row = &column_cases[i];
    g_autoptr(Arena) arena = arena_new();
    g_autofree char *document = g_strdup_printf(
        "{'aggregate_type': 'a', 'aggregate_id': 'i', 'payload': {'v': %s}}", row->entity);
    g_autofree char *json = json_text(document);
    g_autoptr(Event) event = event_from(json);
    Column column = {
        .name = "v", .from = {.in_payload = true, .path = "v", .text = "v"}, .nullable = true};
    Value expected, found = {.kind = VALUE_NULL};
    Failure failure;
    check_that(row->type, column_type_parse(row->type, &column.type), "is a type");
    check_that(row->entity,
               value_for_column(event, &column.from, &column, arena, &expected, &failure), "fits");
    if (row->row && !value_from_sql(row->row, strlen(row->row), &column.type, arena, &found))
      found = (Value){.kind = VALUE_TEXT, .length = (uint32_t)strlen(row->row), .text = row->row};
    g_autofree char *name =
        g_strdup_printf("%s %s and %s", row->type, row->entity, row->row ? row->row : "NULL");
    check_number(name, column_equal(&column, &expected, &found, 0), row->equal);
  }
}

/* --- layout --------------------------------------------------------------------------------- */

static const char mapping_json[] =
    "{'projections': [{'aggregate_type': 'account', 'table': 'account', 'entities': 'accounts',"
    " 'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    " 'columns': {'name': {'from': 'name', 'type': 'varchar(10)'},"
    "  'at': {'from': '$occurred_at', 'type': 'datetime(3)'},"
    "  'by': {'from': '$metadata.by', 'type': 'varchar(10)'},"
    "  'free': {'from': 'free', 'type': 'varchar(10)', 'compare': false}},"
    " 'events': {'Opened': {'op': 'upsert'}}},"
    "{'aggregate_type': 'account', 'table': 'history', 'entities': 'accounts',"
    " 'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(36)'},"
    "  'version': {'from': '$version', 'type': 'bigint'}}, 'events': {'Opened': {'op': "
    "'upsert'}}}]}";

/* Columns without a source in the entity are not compared; a key without one is refused. */
static void layouts(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  g_autofree char *json = json_text(mapping_json);
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(json, &failure);
  check_text("mapping", failure.message, "");
  Layout layout;
  check_that("account", layout_init(mapping_projection(mapping, 0), arena, &layout, &failure),
             "can be compared");
  check_number("columns", layout.count, 4);

  g_autofree char *text = json_text("{'_id': 'a1', 'name': 'Ada'}");
  g_autoptr(bson_t) document = document_from(text);
  Aggregate aggregate = {"account", 7, {ID_STRING, 2, 0, (const uint8_t *)"a1"}};
  g_autoptr(Event) entity = entity_as_event(document, &aggregate, 1, INT64_MIN);
  Expected expected;
  check_that("entity", layout_map(&layout, entity, arena, &expected, &failure), "maps");
  static const bool known[] = {true, true, false, false};
  for (unsigned i = 0; i < COUNT_OF(known); i++)
    check_number(layout.columns[i]->name, expected.known[i], known[i]);

  check_that("history", !layout_init(mapping_projection(mapping, 1), arena, &layout, &failure),
             "is refused");
  check_that("history", strstr(failure.message, "$version") != NULL, "names the source");
}

/* Whatever wrote it: mongosh and Node.js write a double. */
static void versions_of_entities(void **state) {
  (void)state;
  static const struct {
    const char *entity;
    int64_t version;
  } cases[] = {
      {"{'version': {'$numberInt': '3'}}", 3},
      {"{'version': {'$numberLong': '3'}}", 3},
      {"{'version': {'$numberDouble': '3.0'}}", 3},
      {"{'version': '3'}", 0},
      {"{'version': null}", 0},
      {"{}", 0},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *text = json_text(cases[i].entity);
    g_autoptr(bson_t) document = document_from(text);
    check_number(text, entity_version(document), cases[i].version);
  }
}

/* --- from a key back to ids ------------------------------------------------------------------- */

static void ids_of_keys(void **state) {
  (void)state;
  static const struct {
    const char *type, *key, *ids;
  } cases[] = {
      {"varchar(36)", "a1", "string:a1 "},
      {"varchar(36)", "5", "string:5 int:5 "},
      {"varchar(36)", "0123456789abcdef01234567",
       "string:0123456789abcdef01234567 objectid:0123456789abcdef01234567 "},
      {"int", "-5", "int:-5 "},
      {"bigint unsigned", "18446744073709551615", ""},
      {"uuid", "0123456789abcdef",
       "uuid:30313233-3435-3637-3839-616263646566 string:30313233-3435-3637-3839-616263646566 "
       "string:30313233-3435-3637-3839-616263646566 "},
      {"uuid", "klmnopqrstuvwxyz",
       "uuid:6b6c6d6e-6f70-7172-7374-75767778797a string:6b6c6d6e-6f70-7172-7374-75767778797a "
       "string:6B6C6D6E-6F70-7172-7374-75767778797A "},
      {"binary(12)", "0123456789ab", "objectid:303132333435363738396162 "},
      {"date", "2024-02-29", ""},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(Arena) arena = arena_new();
    Column column = {.name = "id", .from = {.path = "aggregate_id", .text = "$aggregate_id"}};
    const Column *list[] = {&column};
    Layout layout = {.key_count = 1, .count = 1, .columns = list};
    Value key;
    Id ids[AGGREGATE_IDS];
    g_autoptr(GString) text = g_string_new(NULL);
    check_that(cases[i].type, column_type_parse(cases[i].type, &column.type), "is a type");
    check_that(cases[i].key,
               value_from_sql(cases[i].key, strlen(cases[i].key), &column.type, arena, &key),
               "is a value");
    unsigned count = aggregate_ids_of(&layout, &key, arena, ids);
    for (unsigned k = 0; k < count; k++) {
      char id[ID_TEXT_SIZE];
      id_text(&ids[k], id);
      g_string_append_printf(text, "%s:%s ", id_kind_name(ids[k].kind), id);
    }
    check_text(cases[i].key, text->str, cases[i].ids);
  }
}

/* --- keys by size ----------------------------------------------------------------------------- */

static void order_of_keys(void **state) {
  (void)state;
  static const struct {
    const char *type, *smaller, *larger;
  } cases[] = {
      {"int", "-10", "9"},
      {"bigint unsigned", "9", "18446744073709551615"},
      {"varchar(10)", "B", "a"},
      {"varchar(10)", "a", "a "},
      {"decimal(9,2)", "-2", "-1"},
      {"decimal(9,2)", "9.5", "10"},
      {"date", "1999-12-31", "2000-01-01"},
      {"binary(2)", "0x00ff", "0x0100"},
      {"uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-00000000000F"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(Arena) arena = arena_new();
    ColumnType type;
    Value a, b;
    check_that(cases[i].type, column_type_parse(cases[i].type, &type), "is a type");
    check_that(cases[i].smaller,
               value_from_text(cases[i].smaller, strlen(cases[i].smaller), &type, arena, &a) &&
                   value_from_text(cases[i].larger, strlen(cases[i].larger), &type, arena, &b),
               "are values");
    check_number(cases[i].smaller, value_compare(&a, &b), -1);
    check_number(cases[i].larger, value_compare(&b, &a), 1);
    check_number(cases[i].type, value_compare(&a, &a), 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decisions),   cmocka_unit_test(columns),
      cmocka_unit_test(layouts),     cmocka_unit_test(versions_of_entities),
      cmocka_unit_test(ids_of_keys), cmocka_unit_test(order_of_keys),
  };
  return RUN_TESTS(tests);
}

/* test_value_source.c - where values come from, sql parameters, sums of values. */
#include "tests/unit/support.h"

#include <string.h>

#define INT(text) "{'$numberInt': '" text "'}"
#define LONG(text) "{'$numberLong': '" text "'}"
#define DOUBLE(text) "{'$numberDouble': '" text "'}"
#define DECIMAL(text) "{'$numberDecimal': '" text "'}"
#define DATE(text) "{'$date': {'$numberLong': '" text "'}}"
#define BINARY(base64, subtype) "{'$binary': {'base64': '" base64 "', 'subType': '" subtype "'}}"

static const Source payload_v = {.in_payload = true, .path = "v", .text = "v"};

/* --- sources --------------------------------------------------------------------------------- */

static const char source_event[] =
    "{'_id': {'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '04'}},"
    " 'aggregate_type': 'account', 'aggregate_id': 'acc-1', 'version': {'$numberLong': '7'},"
    " 'event_type': 'Opened', 'occurred_at': {'$date': {'$numberLong': '1714979289123'}},"
    " 'metadata': {'tenant': 't1', 'deep': {'x': 5}},"
    " 'payload': {'v': 1, 'a': {'b': {'c': 2}}, 'list': [10, {'x': 11}], 'aggregate_id': 'wrong'}}";

static void test_sources(void **state) {
  (void)state;
  static const struct {
    Source source;
    const char *type, *expected;
  } cases[] = {
      {{true, false, "v", "v"}, "int", "int 1"},
      {{true, true, "a.b.c", "a.b.c"}, "int", "int 2"},
      {{true, true, "list.0", "list.0"}, "int", "int 10"},
      {{true, true, "list.1.x", "list.1.x"}, "int", "int 11"},
      {{true, true, "a.b", "a.b"}, "json", "text { \"c\" : 2 }"},
      {{true, true, "a.x.c", "a.x.c"}, "int", "! payload.a.x.c: expected int, found nothing"},
      {{true, true, "v.x", "v.x"}, "int", "! payload.v.x: expected int, found nothing"},
      {{true, true, "list.2", "list.2"}, "int", "! payload.list.2: expected int, found nothing"},
      {{false, false, "_id", "$event_id"}, "uuid", "bytes 00112233445566778899aabbccddeeff"},
      {{false, false, "aggregate_id", "$aggregate_id"}, "varchar(9)", "text acc-1"},
      {{false, false, "version", "$version"}, "bigint", "int 7"},
      {{false, false, "event_type", "$event_type"}, "varchar(9)", "text Opened"},
      {{false, false, "occurred_at", "$occurred_at"},
       "datetime(3)",
       "datetime 2024-05-06 07:08:09.123"},
      {{false, false, "occurred_at", "$occurred_at"},
       "datetime",
       "! $occurred_at: expected datetime, found date 2024-05-06 07:08:09.123"},
      {{false, true, "metadata.tenant", "$metadata.tenant"}, "varchar(9)", "text t1"},
      {{false, true, "metadata.deep.x", "$metadata.deep.x"}, "int", "int 5"},
      {{false, true, "metadata.y", "$metadata.y"},
       "int",
       "! $metadata.y: expected int, found nothing"},
  };
  g_autoptr(Event) event = event_from(source_event);
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Column column = {.name = "c"};
    check_that(cases[i].type, column_type_parse(cases[i].type, &column.type), "the type is known");
    Value value;
    Failure failure;
    g_autofree char *found =
        value_for_column(event, &cases[i].source, &column, arena, &value, &failure)
            ? value_text(&value)
            : g_strdup_printf("! %s", failure.message);
    check_text(cases[i].source.text, found, cases[i].expected);
  }
}

/* --- parameters of sql rules ----------------------------------------------------------------- */

static void test_natural_parameters(void **state) {
  (void)state;
  static const struct {
    const char *value, *expected;
  } cases[] = {
      {"true", "int 1"},
      {INT("5"), "int 5"},
      {LONG("-9223372036854775808"), "int -9223372036854775808"},
      {DOUBLE("0.1"), "double 0.10000000000000001"},
      {DOUBLE("NaN"), "! payload.v: expected a value that SQL can hold, found double nan"},
      {DECIMAL("12.50"), "decimal 12.5"},
      {DECIMAL("1234567890123456789012345678901234"), "decimal 1234567890123456789012345678901234"},
      {DECIMAL("1E-31"), "! payload.v: expected a value that SQL can hold, found Decimal128 1E-31"},
      {DECIMAL("1E+65"), "! payload.v: expected a value that SQL can hold, found Decimal128 1E+65"},
      {"'a\\u0000 '", "text a\\0 "},
      {"{'$oid': '0123456789abcdef01234567'}", "text 0123456789abcdef01234567"},
      {BINARY("ABEiM0RVZneImaq7zN3u/w==", "04"), "text 00112233-4455-6677-8899-aabbccddeeff"},
      {BINARY("AP8=", "04"), "bytes 00ff"},
      {BINARY("AP8=", "00"), "bytes 00ff"},
      {DATE("1001"), "datetime 1970-01-01 00:00:01.001"},
      {"{'a': 1}", "text { \"a\" : 1 }"},
      {"[1]", "text [ 1 ]"},
      {"null", "null"},
      {"{'$undefined': true}", "null"},
  };
  g_autoptr(Arena) arena = arena_new();
  const Parameter parameter = {.from = payload_v, .column = -1};
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'payload': {'v': %s}}", cases[i].value);
    g_autoptr(Event) event = event_from(json);
    Value value;
    Failure failure;
    g_autofree char *found = value_for_parameter(event, &parameter, NULL, arena, &value, &failure)
                                 ? value_text(&value)
                                 : g_strdup_printf("! %s", failure.message);
    check_text(cases[i].value, found, cases[i].expected);
  }
}

static void test_parameters_of_columns(void **state) {
  (void)state;
  Column columns[] = {{.name = "c", .from = payload_v}};
  check_that("type", column_type_parse("decimal(18,2)", &columns[0].type), "it is known");
  const Projection projection = {.table = "t", .column_count = 1, .columns = columns};
  const Parameter as_column = {.from = payload_v, .column = 0};
  const Parameter missing = {.from = {true, false, "w", "w"}, .column = -1};
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(Event) event = event_from("{'payload': {'v': '12.50'}}");
  Value value;
  Failure failure;
  check_that("column", value_for_parameter(event, &as_column, &projection, arena, &value, &failure),
             "it converts");
  g_autofree char *found = value_text(&value);
  check_text("as the column's type", found, "decimal 12.5");
  check_that("missing", !value_for_parameter(event, &missing, &projection, arena, &value, &failure),
             "it is refused");
  check_text("missing", failure.message, "payload.w: expected a value, found nothing");
}

/* --- arithmetic ------------------------------------------------------------------------------ */

static Value decimal_of(const char *text) {
  return (Value){.kind = VALUE_DECIMAL, .length = (uint32_t)strlen(text), .text = text};
}

static Value int_of(int64_t number) {
  return (Value){.kind = VALUE_INT, .integer = number};
}

static Value uint_of(uint64_t number) {
  return (Value){.kind = VALUE_UINT, .natural = number};
}

static Value double_of(double number) {
  return (Value){.kind = VALUE_DOUBLE, .real = number};
}

static void test_add(void **state) {
  (void)state;
  const struct {
    const char *type; /* NULL: the sum of two deltas */
    Value base, delta;
    const char *expected; /* NULL: does not fit */
  } cases[] = {
      {"decimal(5,2)", decimal_of("999.98"), decimal_of("0.01"), "decimal 999.99"},
      {"decimal(5,2)", decimal_of("999.99"), decimal_of("0.01"), NULL},
      {"decimal(5,2)", decimal_of("-999.99"), decimal_of("-0.01"), NULL},
      {"decimal(5,2)", decimal_of("10"), decimal_of("-10.00"), "decimal 0"},
      {"tinyint", int_of(127), int_of(-1), "int 126"},
      {"tinyint", int_of(127), int_of(1), NULL},
      {"tinyint", int_of(-128), decimal_of("-1"), NULL},
      {"tinyint unsigned", uint_of(5), decimal_of("-5"), "uint 0"},
      {"tinyint unsigned", uint_of(5), decimal_of("-6"), NULL},
      {"tinyint unsigned", uint_of(255), uint_of(1), NULL},
      {"bigint", int_of(INT64_MAX), int_of(1), NULL},
      {"bigint", int_of(INT64_MIN), decimal_of("9223372036854775808"), "int 0"},
      {"bigint unsigned", uint_of(UINT64_MAX), decimal_of("-18446744073709551615"), "uint 0"},
      {"double", double_of(0.5), double_of(0.25), "double 0.75"},
      {"double", double_of(1.7e308), double_of(1.7e308), NULL},
      {"int", int_of(1), {.kind = VALUE_TEXT, .length = 1, .text = "1"}, NULL},
      {"int", {.kind = VALUE_NULL}, int_of(1), NULL},
      {NULL, int_of(INT64_MAX), int_of(INT64_MAX), "decimal 18446744073709551614"},
      {NULL, uint_of(UINT64_MAX), uint_of(1), "decimal 18446744073709551616"},
      {NULL, decimal_of("0.01"), decimal_of("-0.02"), "decimal -0.01"},
      {NULL, double_of(1), double_of(2), "double 3"},
  };
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Column column = {.name = "c"};
    if (cases[i].type)
      check_that(cases[i].type, column_type_parse(cases[i].type, &column.type), "it is known");
    Value sum;
    bool fits =
        value_add(&cases[i].base, &cases[i].delta, cases[i].type ? &column : NULL, arena, &sum);
    g_autofree char *found = fits ? value_text(&sum) : NULL;
    g_autofree char *name = g_strdup_printf("row %zu, %s", i, cases[i].type);
    check_text(name, found, cases[i].expected);
  }
}

static void test_negate(void **state) {
  (void)state;
  const struct {
    Value value;
    const char *expected;
  } cases[] = {
      {int_of(5), "decimal -5"},
      {int_of(-5), "decimal 5"},
      {int_of(0), "decimal 0"},
      {int_of(INT64_MIN), "decimal 9223372036854775808"},
      {uint_of(UINT64_MAX), "decimal -18446744073709551615"},
      {decimal_of("-0.5"), "decimal 0.5"},
      {decimal_of("0.5"), "decimal -0.5"},
      {double_of(0.5), "double -0.5"},
  };
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Value negated = value_negate(&cases[i].value, arena);
    g_autofree char *found = value_text(&negated);
    check_text("negated", found, cases[i].expected);
  }
}

static void test_equal(void **state) {
  (void)state;
  const Value null = {.kind = VALUE_NULL};
  const Value text = {.kind = VALUE_TEXT, .length = 1, .text = "5"};
  const Value longer = {.kind = VALUE_TEXT, .length = 2, .text = "55"};
  const Value empty = {.kind = VALUE_TEXT},
              bytes = {.kind = VALUE_BINARY, .length = 1, .text = "5"};
  const Value day = {.kind = VALUE_DATE, .us = 5}, time = {.kind = VALUE_DATETIME, .us = 5};
  const Value values[] = {null, text,      longer,    empty,      bytes,        day,
                          time, int_of(5), int_of(6), uint_of(5), double_of(5), decimal_of("5")};
  for (size_t i = 0; i < COUNT_OF(values); i++)
    for (size_t j = 0; j < COUNT_OF(values); j++)
      check_number("equal", value_equal(&values[i], &values[j]), i == j);
}

/* Each before the next, whichever is asked first: rows are locked in this order. */
static void test_values_have_one_order(void **state) {
  (void)state;
  const Value values[] = {
      {.kind = VALUE_NULL},
      int_of(-5),
      int_of(6),
      uint_of(5),
      uint_of(6),
      double_of(-0.5),
      double_of(0.5),
      decimal_of("-0.02"),
      decimal_of("0"),
      decimal_of("0.01"),
      {.kind = VALUE_TEXT, .text = ""},
      {.kind = VALUE_TEXT, .length = 1, .text = "5"},
      {.kind = VALUE_TEXT, .length = 2, .text = "55"},
      {.kind = VALUE_TEXT, .length = 1, .text = "6"},
      {.kind = VALUE_BINARY, .length = 1, .text = "5"},
      {.kind = VALUE_BINARY, .length = 1, .text = "6"},
      {.kind = VALUE_DATE, .us = -1},
      {.kind = VALUE_DATE, .us = 5},
      {.kind = VALUE_DATETIME, .us = -1},
      {.kind = VALUE_DATETIME, .us = 5},
  };
  for (size_t i = 0; i < COUNT_OF(values); i++)
    for (size_t j = 0; j < COUNT_OF(values); j++)
      check_number("order", value_compare(&values[i], &values[j]), (i > j) - (i < j));
}

static void test_a_value_as_a_person_reads_it(void **state) {
  (void)state;
  static const uint8_t bytes[] = {0, 0xff};
  const struct {
    Value value;
    const char *expected;
  } cases[] = {
      {{.kind = VALUE_NULL}, "NULL"},
      {int_of(-5), "-5"},
      {uint_of(UINT64_MAX), "18446744073709551615"},
      {double_of(0.5), "0.5"},
      {decimal_of("0.10"), "0.10"},
      {{.kind = VALUE_TEXT, .length = 3, .text = "Ada"}, "Ada"},
      {{.kind = VALUE_BINARY, .length = 2, .bytes = bytes}, "0x00ff"},
      {{.kind = VALUE_DATE, .us = 0}, "1970-01-01"},
      {{.kind = VALUE_DATETIME, .us = 1000, .length = 3}, "1970-01-01 00:00:00.001"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autoptr(GString) text = g_string_new(NULL);
    value_append_text(text, &cases[i].value);
    check_text("text", text->str, cases[i].expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sources),
      cmocka_unit_test(test_natural_parameters),
      cmocka_unit_test(test_parameters_of_columns),
      cmocka_unit_test(test_add),
      cmocka_unit_test(test_negate),
      cmocka_unit_test(test_equal),
      cmocka_unit_test(test_values_have_one_order),
      cmocka_unit_test(test_a_value_as_a_person_reads_it),
  };
  return RUN_TESTS(tests);
}

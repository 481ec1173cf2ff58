/* test_value_special.c - enum, year, time, bit, float and plain JSON: what fits, and exactly
 * how. */
#include "projector/domain/value_special.h"
#include "projector/domain/value_text.h"
#include "tests/unit/support.h"

#include <string.h>

#define DECIMAL(text) "{'$numberDecimal': '" text "'}"
#define DOUBLE(text) "{'$numberDouble': '" text "'}"
#define LONG(text) "{'$numberLong': '" text "'}"
#define PLAIN "json" /* as plain values */

static const struct {
  const char *type, *value, *expected; /* "-": refused */
} cases[] = {
    {"enum('a','b c')", "'a'", "text a"},
    {"enum('a','b c')", "'b c'", "text b c"},
    {"enum('a','b c')", "'A'", "-"},
    {"enum('a','b c')", "'b'", "-"},
    {"enum('a','b c')", "''", "-"},
    {"enum('a','b c')", "','", "-"},
    {"enum('a','b c')", "{'$numberInt': '1'}", "-"},
    {"year", "{'$numberInt': '1901'}", "int 1901"},
    {"year", DOUBLE("2155"), "int 2155"},
    {"year", "{'$numberInt': '1900'}", "-"},
    {"year", "{'$numberInt': '2156'}", "-"},
    {"year", "{'$numberInt': '0'}", "-"},
    {"year", "'2024'", "-"},
    {"year", DOUBLE("2024.5"), "-"},
    {"year", DOUBLE("1e10"), "-"},
    {"bit(1)", "true", "int 1"},
    {"bit(1)", "false", "int 0"},
    {"bit(1)", "{'$numberInt': '1'}", "int 1"},
    {"bit(1)", "{'$numberInt': '2'}", "-"},
    {"bit(1)", "'1'", "-"},
    {"bit(1)", DOUBLE("1"), "int 1"},
    {"float", DOUBLE("0.5"), "double 0.5"},
    {"float", DOUBLE("0.1"), "-"},
    {"float", DOUBLE("1234567.5"), "double 1234567.5"},
    {"float", DOUBLE("16777217"), "-"},
    {"float", DOUBLE("1e39"), "-"},
    {"float", DOUBLE("NaN"), "-"},
    {"float", DOUBLE("-1e39"), "-"},
    {"float", LONG("16777217"), "-"},
    {"float", "'1'", "-"},
    {"float", LONG("16777216"), "double 16777216"},
    {"float", LONG("-9223372036854775808"), "-"},
    {"time", "'12:34:56'", "text 12:34:56"},
    {"time", "'12:34:56.000'", "text 12:34:56"},
    {"time", "'12:34:56.5'", "-"},
    {"time(3)", "'12:34:56.5'", "text 12:34:56.500"},
    {"time(6)", "'-838:59:59'", "text -838:59:59.000000"},
    {"time(6)", "'838:59:59.1'", "-"},
    {"time(6)", "'839:00:00'", "-"},
    {"time(6)", "'1:00:00'", "-"},
    {"time(6)", "'12:60:00'", "-"},
    {"time(6)", "'12:00:60'", "-"},
    {"time(6)", "'12:00'", "-"},
    {"time(6)", "''", "-"},
    {"time(6)", "'12'", "-"},
    {"time(6)", "'1234:00:00'", "-"},
    {"time(6)", "'12:0'", "-"},
    {"time(6)", "'12:x0:00'", "-"},
    {"time(6)", "'12:0x:00'", "-"},
    {"time(6)", "'12:00:0'", "-"},
    {"time(6)", "'12.00:00'", "-"},
    {"time(6)", "'838:58:59.1'", "text 838:58:59.100000"},
    {"time(6)", "'838:59:58.1'", "text 838:59:58.100000"},
    {"time(6)", "{'$numberInt': '12'}", "-"},
    {"time(6)", "'12:00:00.'", "-"},
    {"time(6)", "'12:00:00.1234567'", "-"},
    {"time(6)", "'12:00:00.1234560'", "text 12:00:00.123456"},
    {"time(6)", "'12:00:00Z'", "-"},
    {"time", "'-00:00:00'", "text 00:00:00"},

    {PLAIN, DECIMAL("12.50"), "text 12.50"},
    {PLAIN, DECIMAL("-0.001"), "text -0.001"},
    {PLAIN, DECIMAL("1E+3"), "text 1000"},
    {PLAIN, DECIMAL("18446744073709551615"), "text 18446744073709551615"},
    {PLAIN, DECIMAL("18446744073709551617"), "wide text 18446744073709551617"},
    {PLAIN, DECIMAL("123456789012345.7"), "text 123456789012345.7"},
    {PLAIN, DECIMAL("1234567890123456.7"),
     "wide text 1234567890123456.7"}, /* a double would have an 8 */
    {PLAIN, DECIMAL("12345678901234567.8"), "wide text 12345678901234567.8"},
    {PLAIN, DECIMAL("1.23456789012345678901E-10"), "wide text 0.000000000123456789012345678901"},
    {PLAIN, DECIMAL("1.234567890123456789012E-10"), "-"},
    {PLAIN, DECIMAL("1234567890123456789012345678901234E+32"), "-"},
    {PLAIN, DECIMAL("NaN"), "-"},
    {PLAIN, LONG("9223372036854775807"), "text 9223372036854775807"},
    {PLAIN, DOUBLE("0.1"), "text 0.1"},
    {PLAIN, DOUBLE("2"), "text 2.0"},
    {PLAIN, DOUBLE("Infinity"), "-"},
    {PLAIN, "{'$numberInt': '5'}", "text 5"},
    {PLAIN, "true", "text true"},
    {PLAIN, "false", "text false"},
    {PLAIN, "null", "text null"},
    {PLAIN, "{'$undefined': true}", "text null"},
    {PLAIN, "[{'$numberDouble': 'NaN'}]", "-"},
    {PLAIN, "{'$minKey': 1}", "text  { \"$minKey\" : 1 } "},
    {PLAIN, "{'$binary': {'base64': 'AA==', 'subType': '00'}}",
     "text  { \"$binary\" : { \"base64\" : \"AA==\", \"subType\" : \"00\" } } "},
    {PLAIN, "{'$date': {'$numberLong': '1714979289123'}}", "text \"2024-05-06T07:08:09.123Z\""},
    {PLAIN, "{'$date': {'$numberLong': '1714979289000'}}", "text \"2024-05-06T07:08:09Z\""},
    {PLAIN, "{'$date': {'$numberLong': '-62135596800000'}}", "text \"0001-01-01T00:00:00Z\""},
    {PLAIN, "{'$date': {'$numberLong': '-62135596800001'}}", "-"},
    {PLAIN, "{'$oid': '0123456789abcdef01234567'}", "text \"0123456789abcdef01234567\""},
    {PLAIN, "{'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '04'}}",
     "text \"00112233-4455-6677-8899-aabbccddeeff\""},
    {PLAIN, "{'a': [true, null, {'b': " DECIMAL("1.10") "}], 'c': {}}",
     "text {\"a\": [true, null, {\"b\": 1.10}], \"c\": {}}"},
    {PLAIN, "{'a': [" DECIMAL("0.12345678901234567890") "]}",
     "wide text {\"a\": [0.1234567890123456789]}"},
    {PLAIN, "'q\\u0022 \\\\ \\u0001 \\u00e4'", "text \"q\\\" \\\\ \\u0001 \xc3\xa4\""},
};

static void test_conversions(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'v': %s}", cases[i].value);
    g_autofree char *name = g_strdup_printf("%s into %s", cases[i].value, cases[i].type);
    g_autoptr(bson_t) document = document_from(json);
    ColumnType type;
    Value value;
    bson_iter_t iter;
    check_that(name, column_type_parse(cases[i].type, &type), "the type is known");
    type.plain = !strcmp(cases[i].type, PLAIN);
    bson_iter_init_find(&iter, document, "v");
    g_autofree char *found =
        special_convert(&iter, &type, arena, &value) ? value_text(&value) : g_strdup("-");
    g_autofree char *wide = g_strconcat(*found != '-' && value.wide ? "wide " : "", found, NULL);
    check_text(name, wide, cases[i].expected);
  }
}

static void test_what_a_server_sends(void **state) {
  (void)state;
  static const struct {
    const char *type, *text, *expected;
  } rows[] = {
      {"year", "2024", "int 2024"},
      {"year", "0000", "int 0"},
      {"bit(1)", "\1", "int 1"},
      {"bit(1)", "1", "int 1"},
      {"bit(1)", "0", "int 0"},
      {"float", "0.5", "double 0.5"},
      {"time(3)", "12:34:56.500000", "text 12:34:56.500"},
      {"time", "-01:00:00", "text -01:00:00"},
      {"time", "12:34:56.5", "text 12:34:56.5"},
      {"enum('a')", "a", "text a"},
  };
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    ColumnType type;
    Value value;
    check_that(rows[i].type, column_type_parse(rows[i].type, &type), "the type is known");
    check_that(rows[i].text,
               value_from_sql(rows[i].text, strlen(rows[i].text), &type, arena, &value),
               "it is read");
    g_autofree char *found = value_text(&value);
    check_text(rows[i].text, found, rows[i].expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_conversions),
      cmocka_unit_test(test_what_a_server_sends),
  };
  return RUN_TESTS(tests);
}

/* test_value_matrix.c - every column type against every BSON type: which conversions exist. */
#include "tests/unit/support.h"

#include <string.h>

static const struct {
  const char *value, *found; /* extended JSON, and what a refusal calls it */
} samples[] = {
    {"{'$numberDouble': '1'}", "double 1"},
    {"{'$numberDouble': '0.5'}", "double 0.5"},
    {"{'$numberDouble': 'NaN'}", "double nan"},
    {"{'$numberDouble': '-Infinity'}", "double -inf"},

    {"'abc'", "string of 3 bytes \"abc\""},
    {"'12'", "string of 2 bytes \"12\""},
    {"'2024-05-06'", "string of 10 bytes \"2024-05-06\""},
    {"'2024-05-06T07:08:09Z'", "string of 20 bytes \"2024-05-06T07:08:09Z\""},
    {"'00112233-4455-6677-8899-aabbccddeeff'",
     "string of 36 bytes \"00112233-4455-6677-8899-aabbccddeeff\""},

    {"{'a': 1}", "document \"{ \"a\" : 1 }\""},
    {"[1]", "array \"[ 1 ]\""},
    {"{'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '00'}}",
     "binary of 16 bytes, subtype 0"},
    {"{'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '03'}}",
     "binary of 16 bytes, subtype 3"},
    {"{'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '04'}}",
     "binary of 16 bytes, subtype 4"},

    {"{'$oid': '0123456789abcdef01234567'}", "ObjectId 0123456789abcdef01234567"},
    {"true", "bool true"},
    {"{'$date': {'$numberLong': '1714953600000'}}", "date 2024-05-06 00:00:00.000"},
    {"{'$date': {'$numberLong': '1714979289000'}}", "date 2024-05-06 07:08:09.000"},

    {"{'$regularExpression': {'pattern': 'a', 'options': ''}}", "regular expression"},
    {"{'$dbPointer': {'$ref': 'a', '$id': {'$oid': '0123456789abcdef01234567'}}}", "DBPointer"},
    {"{'$code': 'x'}", "JavaScript"},
    {"{'$symbol': 'x'}", "symbol"},
    {"{'$code': 'x', '$scope': {}}", "JavaScript with scope"},

    {"{'$numberInt': '1'}", "int32 1"},
    {"{'$numberInt': '300'}", "int32 300"},
    {"{'$timestamp': {'t': 1, 'i': 2}}", "timestamp"},
    {"{'$numberLong': '5000000000'}", "int64 5000000000"},
    {"{'$numberDecimal': '1.0'}", "Decimal128 1.0"},
    {"{'$numberDecimal': '1.5'}", "Decimal128 1.5"},
    {"{'$numberDecimal': 'NaN'}", "Decimal128 NaN"},

    {"{'$minKey': 1}", "MinKey"},
    {"{'$maxKey': 1}", "MaxKey"},
    {"null", "null"},
    {"{'$undefined': true}", "null"},
};

/* In the order of the samples: + converts, - is refused; blanks separate the groups. */
static const struct {
  const char *type, *converts;
} matrix[] = {
    {"boolean", "---- ----- ----- -+-- ----- +---  --- ----"},
    {"tinyint", "+--- ----- ----- ---- ----- +---  +-- ----"},
    {"tinyint unsigned", "+--- ----- ----- ---- ----- +---  +-- ----"},
    {"smallint", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"smallint unsigned", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"mediumint", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"mediumint unsigned", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"int", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"int unsigned", "+--- ----- ----- ---- ----- ++--  +-- ----"},
    {"bigint", "+--- ----- ----- ---- ----- ++-+  +-- ----"},
    {"bigint unsigned", "+--- ----- ----- ---- ----- ++-+  +-- ----"},
    {"double", "++-- ----- ----- ---- ----- ++-+  --- ----"},
    {"decimal(18,2)", "++-- -+--- ----- ---- ----- ++-+  ++- ----"},
    {"char(36)", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"varchar(36)", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"tinytext", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"text", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"mediumtext", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"longtext", "---- +++++ ----+ +--- ----- ++-+  --- ----"},
    {"binary(16)", "---- ----- --+++ ---- ----- ----  --- ----"},
    {"binary(12)", "---- ----- ----- +--- ----- ----  --- ----"},
    {"varbinary(16)", "---- ----- --+++ +--- ----- ----  --- ----"},
    {"tinyblob", "---- ----- --+++ +--- ----- ----  --- ----"},
    {"blob", "---- ----- --+++ +--- ----- ----  --- ----"},
    {"mediumblob", "---- ----- --+++ +--- ----- ----  --- ----"},
    {"longblob", "---- ----- --+++ +--- ----- ----  --- ----"},
    {"date", "---- --+-- ----- --+- ----- ----  --- ----"},
    {"datetime", "---- ---+- ----- --++ ----- ----  --- ----"},
    {"datetime(6)", "---- ---+- ----- --++ ----- ----  --- ----"},
    {"timestamp(3)", "---- ---+- ----- --++ ----- ----  --- ----"},
    {"json", "++++ +++++ +++++ ++++ +++++ ++++  +++ ++--"},
    {"uuid", "---- ----+ ----+ ---- ----- ----  --- ----"},
};

static void check_cell(const char *type_text, size_t sample, bool converts, bool nullable) {
  g_autofree char *json = g_strdup_printf("{'payload': {'v': %s}}", samples[sample].value);
  g_autofree char *name = g_strdup_printf("%s into %s", samples[sample].value, type_text);
  g_autoptr(Event) event = event_from(json);
  g_autoptr(Arena) arena = arena_new();
  Column column = {.name = "c", .nullable = nullable};
  Source source = {.in_payload = true, .path = "v", .text = "v"};
  Value value;
  Failure failure = {0};
  check_that(name, column_type_parse(type_text, &column.type), "the type is known");
  check_number(name, value_for_column(event, &source, &column, arena, &value, &failure), converts);
  bool is_text = g_str_has_prefix(samples[sample].found, "string");
  const char *found = samples[sample].found;
  /* A refusal of something that is not a time says how times are written; no text but '12' is a
   * number. */
  TypeKind kind = column.type.kind;
  const char *form =
      is_text && kind == TYPE_DECIMAL ? " that is no number"
      : !is_text || (kind != TYPE_DATE && kind != TYPE_DATETIME && kind != TYPE_TIMESTAMP) ? ""
      : kind == TYPE_DATE       ? " that is no date written 2024-01-31"
      : column.type.length == 0 ? " that is no time written 2024-01-31T12:34:56Z"
      : column.type.length == 3 ? " that is no time written 2024-01-31T12:34:56.789Z"
                                : " that is no time written 2024-01-31T12:34:56.789012Z";
  g_autofree char *message =
      converts ? g_strdup("")
               : g_strdup_printf("payload.v: expected %s, found %s%s", type_text, found, form);
  check_text(name, failure.message, message);
  check_number(name, failure.class, converts ? FAILURE_NONE : FAILURE_DATA);
}

static void test_matrix(void **state) {
  (void)state;
  for (size_t row = 0; row < COUNT_OF(matrix); row++) {
    size_t sample = 0;
    for (const char *at = matrix[row].converts; *at; at++)
      if (*at != ' ')
        check_cell(matrix[row].type, sample++, *at == '+', false);
    check_number(matrix[row].type, (int64_t)sample, COUNT_OF(samples));
  }
}

static void test_matrix_of_nullable_columns(void **state) {
  (void)state;
  for (size_t row = 0; row < COUNT_OF(matrix); row++) {
    size_t sample = 0;
    for (const char *at = matrix[row].converts; *at; at++)
      if (*at != ' ') {
        bool is_null = !strcmp(samples[sample].found, "null");
        check_cell(matrix[row].type, sample++, *at == '+' || is_null, true);
      }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matrix),
      cmocka_unit_test(test_matrix_of_nullable_columns),
  };
  return RUN_TESTS(tests);
}

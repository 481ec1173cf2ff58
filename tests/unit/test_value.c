/* test_value.c - values: exact conversions at their limits, null and missing, messages. */
#include "tests/unit/support.h"

#include <string.h>

#define INT(text) "{'$numberInt': '" text "'}"
#define LONG(text) "{'$numberLong': '" text "'}"
#define DOUBLE(text) "{'$numberDouble': '" text "'}"
#define DECIMAL(text) "{'$numberDecimal': '" text "'}"
#define DATE(text) "{'$date': {'$numberLong': '" text "'}}"
#define BINARY(base64, subtype) "{'$binary': {'base64': '" base64 "', 'subType': '" subtype "'}}"
#define EURO4 "\xf0\x9f\x92\xb6" /* a character of four bytes */
#define NINES_65 "99999999999999999999999999999999999999999999999999999999999999999"

static const Source payload_v = {.in_payload = true, .path = "v", .text = "v"};

/* The payload's "v" as the column's type: its text, or the failure's message after a "!". */
static char *converted(const Event *event, const char *type, bool nullable) {
  g_autoptr(Arena) arena = arena_new();
  Column column = {.name = "c", .nullable = nullable};
  check_that(type, column_type_parse(type, &column.type), "the type is known");
  Value value;
  Failure failure;
  if (value_for_column(event, &payload_v, &column, arena, &value, &failure))
    return value_text(&value);
  check_number(type, failure.class, FAILURE_DATA);
  check_number(type, failure.source, SOURCE_EVENT);
  return g_strdup_printf("! %s", failure.message);
}

typedef struct ConvertCase {
  const char *type, *value;
  const char *expected; /* NULL: refused */
} ConvertCase;

/* JSON is compared as JSON: its blanks are up to the driver. */
static void check_json(const char *name, const char *found, const char *expected) {
  json_t *a = json_loads(found + strlen("text "), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  json_t *b = json_loads(expected + strlen("text "), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  check_that(name, a && b, "both are JSON");
  check_that(name, json_equal(a, b), found);
  json_decref(a);
  json_decref(b);
}

static void check_conversions(const ConvertCase *cases, size_t count) {
  for (size_t i = 0; i < count; i++) {
    g_autofree char *json = g_strdup_printf("{'payload': {'v': %s}}", cases[i].value);
    g_autofree char *name = g_strdup_printf("%s into %s", cases[i].value, cases[i].type);
    g_autoptr(Event) event = event_from(json);
    g_autofree char *found = converted(event, cases[i].type, false);
    if (!cases[i].expected)
      check_that(name, found[0] == '!', "it is refused");
    else if (!strcmp(cases[i].type, "json"))
      check_json(name, found, cases[i].expected);
    else
      check_text(name, found, cases[i].expected);
  }
}

static void test_integers(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"tinyint", INT("127"), "int 127"},
      {"tinyint", INT("128"), NULL},
      {"tinyint", INT("-128"), "int -128"},
      {"tinyint", INT("-129"), NULL},
      {"tinyint", LONG("9223372036854775807"), NULL},
      {"tinyint unsigned", INT("0"), "uint 0"},
      {"tinyint unsigned", INT("255"), "uint 255"},
      {"tinyint unsigned", INT("256"), NULL},
      {"tinyint unsigned", INT("-1"), NULL},
      {"smallint", INT("32767"), "int 32767"},
      {"smallint", INT("32768"), NULL},
      {"smallint", INT("-32768"), "int -32768"},
      {"smallint", INT("-32769"), NULL},
      {"smallint unsigned", INT("65535"), "uint 65535"},
      {"smallint unsigned", INT("65536"), NULL},
      {"mediumint", INT("8388607"), "int 8388607"},
      {"mediumint", INT("8388608"), NULL},
      {"mediumint", INT("-8388608"), "int -8388608"},
      {"mediumint", INT("-8388609"), NULL},
      {"mediumint unsigned", INT("16777215"), "uint 16777215"},
      {"mediumint unsigned", INT("16777216"), NULL},
      {"int", INT("2147483647"), "int 2147483647"},
      {"int", LONG("2147483648"), NULL},
      {"int", INT("-2147483648"), "int -2147483648"},
      {"int", LONG("-2147483649"), NULL},
      {"int unsigned", LONG("4294967295"), "uint 4294967295"},
      {"int unsigned", LONG("4294967296"), NULL},
      {"bigint", LONG("9223372036854775807"), "int 9223372036854775807"},
      {"bigint", LONG("-9223372036854775808"), "int -9223372036854775808"},
      {"bigint", DECIMAL("9223372036854775808"), NULL},
      {"bigint", DECIMAL("-9223372036854775808"), "int -9223372036854775808"},
      {"bigint", DECIMAL("-9223372036854775809"), NULL},
      {"bigint unsigned", LONG("9223372036854775807"), "uint 9223372036854775807"},
      {"bigint unsigned", DECIMAL("18446744073709551615"), "uint 18446744073709551615"},
      {"bigint unsigned", DECIMAL("18446744073709551616"), NULL},
      {"bigint unsigned", LONG("-1"), NULL},
      {"bigint", DECIMAL("1E+3"), "int 1000"},
      {"bigint", DECIMAL("1.000"), "int 1"},
      {"bigint", DECIMAL("1.5"), NULL},
      {"bigint", DECIMAL("-0"), "int 0"},
      {"bigint", DECIMAL("Infinity"), NULL},
      {"bigint", DECIMAL("9.99E+6144"), NULL},
      {"bigint", DECIMAL("1E-6176"), NULL},
      {"bigint", DOUBLE("9007199254740993"), "int 9007199254740992"}, /* the double's own value */
      {"bigint", DOUBLE("9.3e18"), NULL},
      {"bigint", DOUBLE("-0.0"), "int 0"},
      {"bigint unsigned", DOUBLE("-0.0"), "uint 0"},
      {"int", DOUBLE("3.0"), "int 3"},
      {"int", DOUBLE("3.0000000000000004"), NULL},
      {"int", DOUBLE("NaN"), NULL},
      {"int", DOUBLE("Infinity"), NULL},
      {"int", "'5'", NULL}, /* texts are numbers in decimal columns only */
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_booleans(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"boolean", "true", "int 1"},   {"boolean", "false", "int 0"},
      {"boolean", INT("0"), "int 0"}, {"boolean", LONG("1"), "int 1"},
      {"boolean", INT("2"), NULL},    {"boolean", INT("-1"), NULL},
      {"boolean", DOUBLE("1"), NULL}, {"boolean", "'true'", NULL},
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_decimals(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"decimal(18,2)", DOUBLE("0.1"), "decimal 0.1"},
      {"decimal(18,2)", DOUBLE("0.30000000000000004"), NULL}, /* 0.1 + 0.2 */
      {"decimal(18,2)", DOUBLE("0.3"), "decimal 0.3"},
      {"decimal(18,2)", DOUBLE("1.005"), NULL},
      {"decimal(18,2)", DOUBLE("1e16"), NULL},
      {"decimal(18,2)", DOUBLE("1234567890123.25"), "decimal 1234567890123.25"},
      {"decimal(18,2)", DOUBLE("-0.0"), "decimal 0"},
      {"decimal(18,2)", DOUBLE("NaN"), NULL},
      {"decimal(18,2)", DOUBLE("Infinity"), NULL},
      {"decimal(18,2)", DOUBLE("-Infinity"), NULL},
      {"decimal(65,30)", DOUBLE("1e-30"), "decimal 0.000000000000000000000000000001"},
      {"decimal(65,30)", DOUBLE("1e-31"), NULL},
      {"decimal(65,30)", DOUBLE("1.7976931348623157e308"), NULL},
      {"decimal(65,30)", DOUBLE("4.9e-324"), NULL},
      {"decimal(18,2)", INT("5"), "decimal 5"},
      {"decimal(18,2)", LONG("9999999999999999"), "decimal 9999999999999999"},
      {"decimal(18,2)", LONG("10000000000000000"), NULL},
      {"decimal(18,2)", DECIMAL("12.50"), "decimal 12.5"},
      {"decimal(18,2)", DECIMAL("-12.50"), "decimal -12.5"},
      {"decimal(18,2)", DECIMAL("12.501"), NULL},
      {"decimal(18,2)", DECIMAL("12.5000"), "decimal 12.5"},
      {"decimal(18,2)", DECIMAL("9999999999999999.99"), "decimal 9999999999999999.99"},
      {"decimal(18,2)", DECIMAL("NaN"), NULL},
      {"decimal(18,2)", DECIMAL("-Infinity"), NULL},
      {"decimal(18,2)", DECIMAL("0E+6111"), "decimal 0"},
      {"decimal(65,30)", DECIMAL("9.99E+6144"), NULL},
      {"decimal(65,30)", DECIMAL("9.99E-6144"), NULL},
      {"decimal(34,0)", DECIMAL("1234567890123456789012345678901234"),
       "decimal 1234567890123456789012345678901234"},
      {"decimal(34,0)", DECIMAL("-9999999999999999999999999999999999"),
       "decimal -9999999999999999999999999999999999"},
      {"decimal(33,0)", DECIMAL("1234567890123456789012345678901234"), NULL},
      {"decimal(65,30)", DECIMAL("1234.567890123456789012345678901234"),
       "decimal 1234.567890123456789012345678901234"},
      {"decimal(65,29)", DECIMAL("1234.567890123456789012345678901234"), NULL},
      {"decimal(65,0)", "'" NINES_65 "'", "decimal " NINES_65},
      {"decimal(65,0)", "'1" NINES_65 "'", NULL},
      {"decimal(18,2)", "'12.50'", "decimal 12.5"},
      {"decimal(18,2)", "''", NULL},
      {"decimal(18,2)", "' 1'", NULL},
      {"decimal(18,2)", "'1\\u0000'", NULL},
      {"decimal(18,2)", "'1; DROP TABLE account'", NULL},
      {"decimal(18,2)", "true", NULL},
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_doubles(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"double", DOUBLE("0.1"), "double 0.10000000000000001"},
      {"double", DOUBLE("1.7976931348623157e308"), "double 1.7976931348623157e+308"},
      {"double", DOUBLE("4.9406564584124654e-324"), "double 4.9406564584124654e-324"},
      {"double", DOUBLE("NaN"), NULL},
      {"double", DOUBLE("Infinity"), NULL},
      {"double", DOUBLE("-Infinity"), NULL},
      {"double", INT("-7"), "double -7"},
      {"double", LONG("9007199254740992"), "double 9007199254740992"},
      {"double", LONG("9007199254740993"), NULL},
      {"double", LONG("-9007199254740993"), NULL},
      {"double", LONG("9223372036854775807"), NULL},
      {"double", LONG("-9223372036854775808"), "double -9.2233720368547758e+18"},
      {"double", "'1'", NULL},
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_texts(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"varchar(3)", "'abc'", "text abc"},
      {"varchar(3)", "'abcd'", NULL},
      {"varchar(3)", "''", "text "},
      {"varchar(3)", "'" EURO4 EURO4 EURO4 "'", "text " EURO4 EURO4 EURO4},
      {"varchar(3)", "'" EURO4 EURO4 EURO4 EURO4 "'", NULL},
      {"varchar(3)", "'\xc3\xa4\xe2\x82\xacx'", "text \xc3\xa4\xe2\x82\xacx"},
      {"varchar(3)", "'a  '", "text a  "},
      {"varchar(3)", "'a   '", NULL}, /* blanks count; MySQL would cut them off with only a note */
      {"varchar(9)", "'\\u0000a\\u0000'", "text \\0a\\0"},
      {"varchar(9)", "'\\\\ \\u0027 \\\" `'", "text \\ ' \" `"},
      {"varchar(40)", BINARY("ABEiM0RVZneImaq7zN3u/w==", "04"),
       "text 00112233-4455-6677-8899-aabbccddeeff"},
      {"varchar(35)", BINARY("ABEiM0RVZneImaq7zN3u/w==", "04"), NULL},
      {"varchar(40)", BINARY("ABEiM0RVZneImaq7zN3u", "04"), NULL},
      {"varchar(24)", "{'$oid': '0123456789abcdef01234567'}", "text 0123456789abcdef01234567"},
      {"varchar(23)", "{'$oid': '0123456789abcdef01234567'}", NULL},
      {"varchar(20)", LONG("-9223372036854775808"), "text -9223372036854775808"},
      {"varchar(19)", LONG("-9223372036854775808"), NULL},
      {"varchar(9)", INT("7"), "text 7"},
      {"char(3)", "'abc'", "text abc"},
      {"char(3)", "'ab'", "text ab"},
      {"char(3)", "''", "text "},
      {"char(3)", "' ab'", "text  ab"},
      {"char(3)", "'ab '", NULL},
      {"char(3)", "' '", NULL},
      {"char(3)", "'ab\\t'", "text ab\t"},
      {"char(3)", "'abcd'", NULL},
      {"char(1)", "'" EURO4 "'", "text " EURO4},
      {"text", "'ends with a blank '", "text ends with a blank "},
  };
  check_conversions(cases, COUNT_OF(cases));
}

/* Text types are measured in bytes, varchar in characters. */
static void test_text_lengths(void **state) {
  (void)state;
  static const struct {
    const char *type;
    size_t fits;       /* one-byte characters */
    size_t fits_euros; /* four-byte characters */
  } cases[] = {
      {"char(255)", 255, 255}, {"varchar(16383)", 16383, 16383},  {"tinytext", 255, 63},
      {"text", 65535, 16383},  {"mediumtext", 16777215, 4194303},
  };
  for (size_t i = 0; i < 4 * COUNT_OF(cases); i++) {
    const char *type = cases[i / 4].type, *character = i & 2 ? EURO4 : "x";
    size_t count = (i & 2 ? cases[i / 4].fits_euros : cases[i / 4].fits) + (i & 1);
    g_autoptr(GString) text = g_string_new("");
    for (size_t j = 0; j < count; j++)
      g_string_append(text, character);
    g_autoptr(bson_t) document = bson_new();
    bson_t payload;
    bson_append_document_begin(document, "payload", -1, &payload);
    bson_append_utf8(&payload, "v", 1, text->str, (int)text->len);
    bson_append_document_end(document, &payload);
    g_autoptr(Event) event = event_decode(document);
    g_autofree char *found = converted(event, type, false);
    g_autofree char *name = g_strdup_printf("%zu of %s in %s", count, character, type);
    check_number(name, found[0] != '!', !(i & 1));
  }
}

static void test_broken_utf8(void **state) {
  (void)state;
  static const struct {
    const char *name, *bytes;
  } cases[] = {
      {"continuation alone", "\x80"},
      {"no continuation", "a\xc3"},
      {"cut before the end", "\xf0\x9f\x92"},
      {"overlong slash", "\xc0\xaf"},
      {"overlong NUL", "x\xc0\x80y"},
      {"overlong in three bytes", "\xe0\x80\xaf"},
      {"a surrogate", "\xed\xa0\x80"},
      {"above U+10FFFF", "\xf4\x90\x80\x80"},
      {"five bytes", "\xf8\x88\x80\x80\x80"},
      {"0xFF", "\xff"},
      {"Latin-1", "Stra\xdf"
                  "e"},
  };
  static const char *const types[] = {"varchar(99)", "char(99)", "text",          "json",  "uuid",
                                      "date",        "datetime", "decimal(18,2)", "bigint"};
  for (size_t i = 0; i < COUNT_OF(cases) * COUNT_OF(types); i++) {
    const char *bytes = cases[i / COUNT_OF(types)].bytes, *type = types[i % COUNT_OF(types)];
    g_autoptr(bson_t) document = bson_new();
    bson_t payload;
    bson_append_document_begin(document, "payload", -1, &payload);
    bson_append_utf8(&payload, "v", 1, bytes, (int)strlen(bytes));
    bson_append_document_end(document, &payload);
    g_autoptr(Event) event = event_decode(document);
    g_autofree char *found = converted(event, type, false);
    g_autofree char *expected =
        g_strdup_printf("! payload.v: expected %s, found string that is not UTF-8", type);
    check_that(found, g_str_has_prefix(found, expected), cases[i / COUNT_OF(types)].name);
    const char *at = i / COUNT_OF(types) == 10 ? "(6 bytes, the first wrong one is 0xdf at 4)" : "";
    check_that(found, strstr(found, at) != NULL, "the wrong byte is named");
  }
}

static void test_bytes_and_ids(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"binary(2)", BINARY("AP8=", "00"), "bytes 00ff"},
      {"binary(2)", BINARY("AA==", "00"), NULL},
      {"binary(2)", BINARY("AP8A", "00"), NULL},
      {"binary(3)", BINARY("AP8=", "00"), NULL},
      {"varbinary(2)", BINARY("AP8=", "00"), "bytes 00ff"},
      {"varbinary(2)", BINARY("", "00"), "bytes "},
      {"varbinary(2)", BINARY("AP8A", "00"), NULL},
      {"varbinary(2)", BINARY("AP8=", "80"), "bytes 00ff"},
      {"varbinary(8)", BINARY("AP8=", "02"), "bytes 00ff"}, /* without its inner length */
      {"blob", BINARY("JyJcAAo=", "00"), "bytes 27225c000a"},
      {"binary(12)", "{'$oid': '0123456789abcdef01234567'}", "bytes 0123456789abcdef01234567"},
      {"binary(16)", "{'$oid': '0123456789abcdef01234567'}", NULL},
      {"binary(16)", BINARY("ABEiM0RVZneImaq7zN3u/w==", "04"),
       "bytes 00112233445566778899aabbccddeeff"},
      {"blob", "'text'", NULL},
      {"uuid", BINARY("ABEiM0RVZneImaq7zN3u/w==", "04"), "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", BINARY("ABEiM0RVZneImaq7zN3u/w==", "03"), NULL},
      {"uuid", BINARY("ABEiM0RVZneImaq7zN3u/w==", "00"), NULL},
      {"uuid", BINARY("ABEiM0RVZneImaq7zN3u", "04"), NULL},
      {"uuid", "'00112233-4455-6677-8899-aabbccddeeff'", "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", "'00112233-4455-6677-8899-AABBCCDDEEFF'", "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", "'00112233445566778899aabbccddeeff'", NULL},
      {"uuid", "'{0112233-4455-6677-8899-aabbccddeef}'", NULL},
      {"uuid", "'00112233-4455-6677-8899-aabbccddeefg'", NULL},
      {"uuid", "'001122334455-6677-8899-aabb-ccddeeff'", NULL},
      {"uuid", "'0011223--4455-6677-8899-aabbccddeeff'", NULL},
      {"uuid", "'00112233-4455-6677-8899-aabbccddeef\\u0000'", NULL},
      {"uuid", "''", NULL},
      {"uuid", "{'$oid': '0123456789abcdef01234567'}", NULL},
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_times(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"date", DATE("0"), "date 1970-01-01"},
      {"date", DATE("1"), NULL},
      {"date", DATE("-86400000"), "date 1969-12-31"},
      {"date", DATE("-1"), NULL},
      {"date", DATE("43200000"), NULL},
      {"date", "'2024-02-29'", "date 2024-02-29"},
      {"date", "'2023-02-29'", NULL},
      {"date", "'2024-02-29T00:00:00Z'", NULL},
      {"date", DATE("253402214400000"), "date 9999-12-31"},
      {"date", DATE("253402300800000"), NULL},
      {"date", DATE("-30610224000000"), "date 1000-01-01"},
      {"date", DATE("-30610310400000"), "date 0999-12-31"},
      {"date", DATE("-62135683200000"), NULL},
      {"datetime", DATE("1000"), "datetime 1970-01-01 00:00:01"},
      {"datetime", DATE("1001"), NULL},
      {"datetime(1)", DATE("1100"), "datetime 1970-01-01 00:00:01.1"},
      {"datetime(1)", DATE("1110"), NULL},
      {"datetime(2)", DATE("-10"), "datetime 1969-12-31 23:59:59.99"},
      {"datetime(2)", DATE("-1"), NULL},
      {"datetime(3)", DATE("-1"), "datetime 1969-12-31 23:59:59.999"},
      {"datetime(6)", DATE("-1"), "datetime 1969-12-31 23:59:59.999000"},
      {"datetime(3)", DATE("253402300799999"), "datetime 9999-12-31 23:59:59.999"},
      {"datetime(3)", DATE("253402300800000"), NULL},
      {"datetime(3)", DATE("-30610224000001"), "datetime 0999-12-31 23:59:59.999"},
      {"datetime(3)", DATE("-62135596800000"), "datetime 0001-01-01 00:00:00.000"},
      {"datetime(3)", DATE("-62135596800001"), NULL},
      {"datetime(3)", DATE("9223372036854775807"), NULL},
      {"datetime(3)", DATE("-9223372036854775808"), NULL},
      {"datetime(6)", "'2024-05-06T07:08:09.123456Z'", "datetime 2024-05-06 07:08:09.123456"},
      {"datetime(5)", "'2024-05-06T07:08:09.123456Z'", NULL},
      {"datetime(5)", "'2024-05-06T07:08:09.123450Z'", "datetime 2024-05-06 07:08:09.12345"},
      {"datetime", "'2024-05-06T07:08:09.000Z'", "datetime 2024-05-06 07:08:09"},
      {"datetime", "'2024-05-06T07:08:09'", NULL},
      {"datetime", "'2024-05-06'", NULL},
      {"datetime(3)", "{'$timestamp': {'t': 5, 'i': 0}}", NULL},
      {"datetime(3)", LONG("0"), NULL},
      {"timestamp", DATE("0"), NULL},
      {"timestamp(3)", DATE("999"), NULL},
      {"timestamp", DATE("1000"), "datetime 1970-01-01 00:00:01"},
      {"timestamp(3)", DATE("2147483647999"), "datetime 2038-01-19 03:14:07.999"},
      {"timestamp(3)", DATE("2147483648000"), NULL},
      {"timestamp(3)", DATE("-1000"), NULL},
  };
  check_conversions(cases, COUNT_OF(cases));
}

static void test_json(void **state) {
  (void)state;
  static const ConvertCase cases[] = {
      {"json", "{'a': [1, {'b': null}]}", "text { \"a\" : [ 1, { \"b\" : null } ] }"},
      {"json", "{}", "text { }"},
      {"json", "[]", "text [ ]"},
      {"json", "[true, false]", "text [ true, false ]"},
      {"json", "{'a:b': ':'}", "text { \"a:b\" : \":\" }"},
      {"json", "'} '", "text \"} \""},
      {"json", "'plain'", "text \"plain\""},
      {"json", "'a\\u0000b \\\" \\\\'", "text \"a\\u0000b \\\" \\\\\""},
      {"json", "'" EURO4 "'", "text \"" EURO4 "\""},
      {"json", "true", "text true"},
      {"json", LONG("9223372036854775807"), "text 9223372036854775807"},
      {"json", LONG("-9223372036854775808"), "text -9223372036854775808"},
      {"json", "[{'$numberLong': '9007199254740993'}]", "text [ 9007199254740993 ]"},
      {"json", DECIMAL("1234567890123456789012345678901234"),
       "text { \"$numberDecimal\" : \"1234567890123456789012345678901234\" }"},
      {"json", "{'a': {'$numberDecimal': '1.10'}}",
       "text { \"a\" : { \"$numberDecimal\" : \"1.10\" } }"},
      {"json", DOUBLE("0.5"), "text 0.5"},
      {"json", DOUBLE("NaN"), "text { \"$numberDouble\" : \"NaN\" }"},
      {"json", DATE("0"), "text { \"$date\" : \"1970-01-01T00:00:00Z\" }"},
      {"json", "{'$oid': '0123456789abcdef01234567'}",
       "text { \"$oid\" : \"0123456789abcdef01234567\" }"},
      {"json", BINARY("AP8=", "00"),
       "text { \"$binary\" : { \"base64\" : \"AP8=\", \"subType\" : \"00\" } }"},
  };
  check_conversions(cases, COUNT_OF(cases));
}

/* MongoDB accepts documents with 100 levels; the text must contain all of them. */
static void test_json_of_deep_documents(void **state) {
  (void)state;
  bson_t *nested = document_from("{'bottom': 1}");
  for (int level = 1; level < 100; level++) {
    bson_t *outer = bson_new();
    BSON_APPEND_DOCUMENT(outer, level == 99 ? "payload" : "v", nested);
    bson_destroy(nested);
    nested = outer;
  }
  g_autoptr(bson_t) document = nested;
  g_autoptr(Event) event = event_decode(document);
  g_autofree char *found = converted(event, "json", false);
  check_that("100 levels", strstr(found, "\"bottom\" : 1") != NULL, "the innermost value is there");
}

static void test_null_and_missing(void **state) {
  (void)state;
  static const struct {
    const char *payload;
    bool nullable;
    const char *expected;
  } cases[] = {
      {"{}", true, "null"},
      {"{'v': null}", true, "null"},
      {"{'v': {'$undefined': true}}", true, "null"},
      {"{'V': 1}", true, "null"},
      {"{'vv': 1}", true, "null"},
      {"{}", false, "! payload.v: expected int, found nothing"},
      {"{'v': null}", false, "! payload.v: expected int, found null"},
      {"{'v': {'$undefined': true}}", false, "! payload.v: expected int, found null"},
      {"{'V': 1}", false, "! payload.v: expected int, found nothing"},
      {"{'v': 1}", true, "int 1"},
      {"{'v': 'x'}", true, "! payload.v: expected int, found string of 1 bytes \"x\""},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'payload': %s}", cases[i].payload);
    g_autoptr(Event) event = event_from(json);
    g_autofree char *found = converted(event, "int", cases[i].nullable);
    check_text(cases[i].payload, found, cases[i].expected);
  }
}

/* The value helps whoever repairs the event, but it may be confidential, so the log leaves it
 * out. */
static void test_a_log_tells_no_text(void **state) {
  (void)state;
  static const char *const types[] = {"boolean",    "int",  "decimal(18,2)", "double", "char(3)",
                                      "varchar(3)", "date", "datetime(3)",   "uuid",   "binary(3)"};
  static const char *const values[] = {
      "'SECRET'",
      "{'SECRET': 'SECRET'}",
      "['SECRET']",
      "{'$code': 'SECRET'}",
      "{'$symbol': 'SECRET'}",
      "{'$regularExpression': {'pattern': 'SECRET', 'options': ''}}",
      BINARY("U0VDUkVU", "00")};
  for (size_t i = 0; i < COUNT_OF(types) * COUNT_OF(values); i++) {
    g_autofree char *json = g_strdup_printf("{'payload': {'v': %s}}", values[i / COUNT_OF(types)]);
    g_autoptr(Event) event = event_from(json);
    g_autofree char *found = converted(event, types[i % COUNT_OF(types)], false);
    Failure failure;
    failure_set(&failure, FAILURE_DATA, SOURCE_EVENT, 0, "%s", found);
    Failure told = failure_without_values(&failure);
    check_that(found, g_str_has_prefix(found, "! payload.v: expected "), "it is refused");
    check_that(found, i >= 3 * COUNT_OF(types) || strstr(found, "SECRET"), "the reason has it");
    check_that(told.message, !strstr(told.message, "SECRET"), "the log has not");
  }
}

static void test_values_in_reasons_are_short(void **state) {
  (void)state;
  static const struct {
    const char *value, *found;
  } cases[] = {
      {"'"
       "ööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööx"
       "'",
       "string of 121 bytes \"öööööööööööööööööööööööööööööööööööööööööööööööööööööööööööö\"…"},
      {"'a\\u0000b\\n'", "string of 4 bytes \"a\\u0000b\\u000a\""},
      {"{'a': 'b'}", "document \"{ \"a\" : \"b\" }\""},
      {"{}", "document \"{  }\""},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'payload': {'v': %s}}", cases[i].value);
    g_autofree char *expected =
        g_strdup_printf("! payload.v: expected int, found %s", cases[i].found);
    g_autoptr(Event) event = event_from(json);
    g_autofree char *found = converted(event, "int", false);
    check_text(cases[i].value, found, expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_integers),
      cmocka_unit_test(test_booleans),
      cmocka_unit_test(test_decimals),
      cmocka_unit_test(test_doubles),
      cmocka_unit_test(test_texts),
      cmocka_unit_test(test_text_lengths),
      cmocka_unit_test(test_broken_utf8),
      cmocka_unit_test(test_bytes_and_ids),
      cmocka_unit_test(test_times),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_json_of_deep_documents),
      cmocka_unit_test(test_null_and_missing),
      cmocka_unit_test(test_a_log_tells_no_text),
      cmocka_unit_test(test_values_in_reasons_are_short),
  };
  return RUN_TESTS(tests);
}

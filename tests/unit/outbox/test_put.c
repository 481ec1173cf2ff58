// `outbox put`: what is read as an event, and what each bad input is called.
#include "outbox/cli/json_stream.h"
#include "outbox/cli/put_line.h"
#include "outbox/text/iso8601.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_times(void **unused) {
  (void)unused;
  static const struct {
    const char *text;
    bool good;
    int64_t ms;
  } cases[] = {
      {"1970-01-01T00:00:00Z", true, 0},
      {"1970-01-01T00:00:00.001Z", true, 1},
      {"1969-12-31T23:59:59.999Z", true, -1},
      {"2024-02-29T12:34:56.7Z", true, 1709210096700},
      {"2024-02-29T12:34:56.78Z", true, 1709210096780},
      {"2024-02-29T14:34:56+02:00", true, 1709210096000},
      {"2024-02-29T14:34:56+0200", true, 1709210096000},
      {"2024-02-29T05:04:56-07:30", true, 1709210096000},
      {"2024-02-29T12:34Z", true, 1709210040000},
      {"0001-01-01T00:00:00Z", true, -62135596800000},
      {"9999-12-31T23:59:59.999Z", true, 253402300799999},
      {"2000-02-29T00:00:00Z", true, 951782400000},
      {"1900-02-29T00:00:00Z", false, 0},
      {"2023-02-29T00:00:00Z", false, 0},
      {"2024-02-30T00:00:00Z", false, 0},
      {"2024-13-01T00:00:00Z", false, 0},
      {"2024-00-01T00:00:00Z", false, 0},
      {"2024-01-00T00:00:00Z", false, 0},
      {"2024-01-01T24:00:00Z", false, 0},
      {"2024-01-01T00:60:00Z", false, 0},
      {"2024-01-01T00:00:60Z", false, 0},
      {"0000-01-01T00:00:00Z", false, 0},
      {"2024-01-01T00:00:00", false, 0},
      {"2024-01-01T00:00:00.1234Z", false, 0},
      {"2024-01-01T00:00:00.Z", false, 0},
      {"2024-01-01T00:00:00Zx", false, 0},
      {"2024-01-01T00:00:00+24:00", false, 0},
      {"2024-01-01 00:00:00Z", false, 0},
      {"2024-01-01", false, 0},
      {"-024-01-01T00:00:00Z", false, 0},
      {"2024/01-01T00:00:00Z", false, 0},
      {"2024-1-01T00:00:00Z", false, 0},
      {"2024-01/01T00:00:00Z", false, 0},
      {"2024-01-1T00:00:00Z", false, 0},
      {"2024-01-01T0:00:00Z", false, 0},
      {"2024-01-01T00.00:00Z", false, 0},
      {"2024-01-01T00:0:00Z", false, 0},
      {"2024-01-01T00:00:0Z", false, 0},
      {"2024-01-01T00:00:00+1:00", false, 0},
      {"2024-01-01T00:00:00+01:0", false, 0},
      {"2024-01-01T00:00:00+01:60", false, 0},
      {"", false, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t ms = 0;
    assert_int_equal(iso8601_parse(cases[i].text, &ms), cases[i].good);
    assert_int_equal(ms, cases[i].ms);
  }
}

// The objects of a text as "LINE:OBJECT" joined by '|', and how it ended.
static char *split(const char *text, size_t length) {
  GString *result = g_string_new(NULL);
  g_autoptr(GString) object = g_string_new(NULL);
  char message[256];
  int line;
  FILE *file = length ? fmemopen((char *)text, length, "r") : fopen("/dev/null", "r");
  json_stream_t stream = {.file = file};
  json_next_t next;
  while ((next = json_stream_next(&stream, object, &line, message, sizeof message)) ==
         JSON_OBJECT) {
    g_string_append_printf(result, "%d:%s|", line, object->str);
  }
  if (next == JSON_BAD) {
    g_string_append_printf(result, "%d!%s", line, message);
  }
  fclose(file);
  return g_string_free(result, FALSE);
}

static void test_stream(void **unused) {
  (void)unused;
  static const struct {
    const char *text, *expected;
  } cases[] = {
      {"", ""},
      {" \n\r\n\t", ""},
      {"{}", "1:{}|"},
      {"{}\n{}\r\n\n{}", "1:{}|2:{}|4:{}|"},
      {"{\n\"a\": [{}]\n}\n{}", "1:{\n\"a\": [{}]\n}|4:{}|"},
      {"{\"}\": \"\\\"}{\"}\n", "1:{\"}\": \"\\\"}{\"}|"},
      {"{\"a\": \"\\\\\"}\n{}", "1:{\"a\": \"\\\\\"}|2:{}|"},
      {"{}\n{} {}\n", "1:{}|2!expected the end of the line after the object, found more"},
      {"{}\n{}x\n", "1:{}|2!expected the end of the line after the object, found more"},
      {"{}\n[]", "1:{}|2!expected an object, found something that does not begin with '{'"},
      {"{}\t\n{}", "1:{}|2:{}|"},
      {"\n\nx", "3!expected an object, found something that does not begin with '{'"},
      {"{}\n{\"a\": 1", "1:{}|2!expected the end of the object, found the end of the input"},
      {"{\"a\": \"x\n\"}", "1!expected the end of a string, found the end of the line"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    g_autofree char *found = split(cases[i].text, strlen(cases[i].text));
    assert_string_equal(found, cases[i].expected);
  }
  g_autofree char *nul = split("{\"a\": \0}", 8);
  assert_string_equal(nul, "1!expected JSON, found a NUL byte");
  g_autofree char *endless = g_strnfill(JSON_OBJECT_MAX_BYTES + 1, '{');
  g_autofree char *refused = split(endless, JSON_OBJECT_MAX_BYTES + 1);
  assert_string_equal(refused, "1!expected an object of at most 64 MiB, found a longer one");
}

// Reads one object; "" or the complaint.
static void check_line(const char *json, const char *entities, const char *expected) {
  char message[512] = "";
  put_line_t line;
  g_autoptr(GString) full = g_string_new(json);
  g_string_replace(full, "GOOD",
                   "\"aggregate_type\": \"a\", \"aggregate_id\": \"1\", \"event_type\": \"E\", "
                   "\"payload\": {}",
                   0);
  bson_error_t cause = {0};
  bson_t *object = bson_new_from_json((const uint8_t *)full->str, -1, &cause);
  assert_string_equal(cause.message, "");
  bool good = put_line_read(object, entities, &line, message, sizeof message);
  assert_string_equal(message, expected);
  assert_int_equal(good, *expected == '\0');
  if (good) {
    put_line_clear(&line);
  }
  bson_destroy(object);
}

static const struct {
  const char *json, *message;
} line_cases[] = {
    {"{GOOD}", ""},
    {"{GOOD, \"_id\": \"x\", \"version\": 5, \"metadata\": {}}", ""},
    {"{}", "aggregate_type: expected a value, found nothing"},
    {"{\"aggregate_type\": \"a\", \"aggregate_id\": 1, \"event_type\": \"e\"}",
     "payload: expected a value, found nothing"},
    {"{GOOD, \"status\": \"dead\"}", "status: this member is not known"},
    {"{GOOD, \"payload\": {}}", "payload: expected once, found again"},
    {"{\"aggregate_type\": 5}", "aggregate_type: expected a string, found an integer"},
    {"{\"event_type\": \"a\\u0000b\"}", "event_type: expected a string without NUL, found one"},
    {"{\"payload\": []}", "payload: expected a document, found an array"},
    {"{\"payload\": null}", "payload: expected a document, found null"},
    {"{\"payload\": true}", "payload: expected a document, found a boolean"},
    {"{\"payload\": {\"$oid\": \"0123456789abcdef01234567\"}}",
     "payload: expected a document, found an ObjectId"},
    {"{\"payload\": {\"$binary\": {\"base64\": \"\", \"subType\": \"00\"}}}",
     "payload: expected a document, found binary data"},
    {"{\"payload\": {\"$date\": {\"$numberLong\": \"0\"}}}",
     "payload: expected a document, found a date"},
    {"{\"payload\": {\"$numberLong\": \"1\"}}", "payload: expected a document, found an integer"},
    {"{\"payload\": {\"$numberDecimal\": \"1\"}}", "payload: expected a document, found a decimal"},
    {"{\"payload\": {\"$minKey\": 1}}", "payload: expected a document, found another type"},
    {"{\"event_type\": {}}", "event_type: expected a string, found a document"},
    {"{\"aggregate_type\": \"a\", \"event_type\": \"e\", \"payload\": {}}",
     "aggregate_id: expected a value, found nothing"},
    {"{\"aggregate_type\": \"a\", \"aggregate_id\": 1, \"payload\": {}}",
     "event_type: expected a value, found nothing"},
    {"{GOOD, \"version\": {\"$numberLong\": \"5\"}}", ""},
    {"{\"occurred_at\": \"2024\\u0000\"}", "occurred_at: expected a string without NUL, found one"},
    {"{GOOD, \"entity\": {\"insert\": {}, \"update\": {}}}",
     "entity: expected one of insert, update, replace, delete, found two"},
    {"{\"metadata\": \"x\"}", "metadata: expected a document, found a string"},
    {"{\"version\": 0}", "version: expected 1 or more, found 0"},
    {"{\"version\": 1.5}", "version: expected an integer, found a double"},
    {"{\"occurred_at\": 5}", "occurred_at: expected a date or an ISO 8601 time, found an integer"},
    {"{\"occurred_at\": \"yesterday\"}",
     "occurred_at: expected a time like 2026-01-31T23:59:59.123Z, found \"yesterday\""},
    {"{GOOD, \"entity\": 1}", "entity: expected a document, found an integer"},
    {"{GOOD, \"entity\": {}}",
     "entity: expected one of insert, update, replace, delete, found none"},
    {"{GOOD, \"entity\": {\"insert\": {}, \"delete\": true}}",
     "entity: expected one of insert, update, replace, delete, found two"},
    {"{GOOD, \"entity\": {\"delete\": false}}", "entity.delete: expected true, found false"},
    {"{GOOD, \"entity\": {\"delete\": 1}}", "entity.delete: expected true, found an integer"},
    {"{GOOD, \"entity\": {\"update\": 1}}", "entity.update: expected a document, found an integer"},
    {"{GOOD, \"entity\": {\"upsert\": {}}}", "entity.upsert: this member is not known"},
    {"{GOOD, \"entity\": {\"delete\": true, \"expected_version\": 0}}",
     "entity.expected_version: expected 1 or more, found 0"},
    {"{GOOD, \"entity\": {\"delete\": true}}",
     "entity.collection: expected a name (or --entities), found nothing"},
    {"{GOOD, \"entity\": {\"delete\": true, \"collection\": \"c\"}}", ""},
    {"{GOOD, \"version\": 1, \"entity\": {\"delete\": true, \"collection\": \"c\"}}",
     "version: expected none beside an entity, which determines it"},
    {"{GOOD, \"occurred_at\": {\"$date\": 5}, \"entity\": {\"delete\": true}}",
     "occurred_at: expected none beside an entity, which determines it"},
};

static void test_lines(void **unused) {
  (void)unused;
  for (size_t i = 0; i < sizeof line_cases / sizeof *line_cases; i++) {
    check_line(line_cases[i].json, NULL, line_cases[i].message);
  }
  check_line("{GOOD, \"entity\": {\"replace\": {\"a\": 1}}}", "things", "");
}

static void test_line_as_read(void **unused) {
  (void)unused;
  const char *json =
      "{\"_id\": {\"$uuid\": \"0190a000-0000-7000-8000-000000000001\"}, \"aggregate_type\": \"a\", "
      "\"aggregate_id\": {\"$oid\": \"0190a00000007000800000aa\"}, \"event_type\": \"E\", "
      "\"payload\": {\"x\": 1}, \"occurred_at\": \"1970-01-01T00:00:00Z\"}";
  char message[256];
  put_line_t line;
  bson_t *object = bson_new_from_json((const uint8_t *)json, -1, NULL);
  assert_non_null(object);
  assert_true(put_line_read(object, NULL, &line, message, sizeof message));
  assert_int_equal(line.event.id->value_type, BSON_TYPE_BINARY);
  assert_int_equal(line.event.id->value.v_binary.subtype, BSON_SUBTYPE_UUID);
  assert_int_equal(line.event.aggregate_id->value_type, BSON_TYPE_OID);
  assert_int_equal(*line.event.occurred_at_ms, 0); // a time like any other
  assert_int_equal(bson_count_keys(line.event.payload), 1);
  assert_null(line.event.metadata);
  assert_false(line.has_change);
  put_line_clear(&line);
  bson_destroy(object);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_times),
      cmocka_unit_test(test_stream),
      cmocka_unit_test(test_lines),
      cmocka_unit_test(test_line_as_read),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

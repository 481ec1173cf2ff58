// Extended JSON: each value that is written is read as it is, and what is none is refused in words.
#include "outbox/text/extended_json.h"

#include <glib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// In the cases, ' stands for ".
static char *with_quotes(const char *text) {
  char *copy = g_strdup(text);
  g_strdelimit(copy, "'", '"');
  return copy;
}

static const struct {
  const char *json, *read; // a value, and the same in canonical form
} values[] = {
    {"{'$oid': '0123456789abcdefABCDEF01'}", "{ '$oid' : '0123456789abcdefabcdef01' }"},
    {"{'$uuid': '0190A000-0000-7000-8000-000000000001'}",
     "{ '$binary' : { 'base64' : 'AZCgAAAAcACAAAAAAAAAAQ==', 'subType' : '04' } }"},
    {"{'$date': '1970-01-01T00:00:01Z'}", "{ '$date' : { '$numberLong' : '1000' } }"},
    {"{'$date': 5}", "{ '$date' : { '$numberLong' : '5' } }"},
    {"{'$date': {'$numberLong': '-5'}}", "{ '$date' : { '$numberLong' : '-5' } }"},
    {"{'\\u0024date': 5}", "{ '$date' : { '$numberLong' : '5' } }"},
    {"{'$numberInt': '-2147483648'}", "{ '$numberInt' : '-2147483648' }"},
    {"{'$numberLong' : '9223372036854775807'}", "{ '$numberLong' : '9223372036854775807' }"},
    {"{'$numberDouble': '1.5e2'}", "{ '$numberDouble' : '150.0' }"},
    {"{'$numberDouble': '-Infinity'}", "{ '$numberDouble' : '-Infinity' }"},
    {"{'$numberDouble': 'NaN'}", "{ '$numberDouble' : 'NaN' }"},
    // without quotes, as Python's json.dumps writes them
    {"NaN", "{ '$numberDouble' : 'NaN' }"},
    {"[Infinity,-Infinity]",
     "[ { '$numberDouble' : 'Infinity' }, { '$numberDouble' : '-Infinity' } ]"},
    {"{'$numberDecimal': '1.10'}", "{ '$numberDecimal' : '1.10' }"},
    {"{'$numberDecimal': 'NaN'}", "{ '$numberDecimal' : 'NaN' }"},
    {"{'$binary': {'base64': '/w==', 'subType': '80'}}",
     "{ '$binary' : { 'base64' : '/w==', 'subType' : '80' } }"},
    {"{'$binary': {'subType': '0', 'base64': ''}}",
     "{ '$binary' : { 'base64' : '', 'subType' : '00' } }"},
    {"{'$binary': '/w==', '$type': '80'}",
     "{ '$binary' : { 'base64' : '/w==', 'subType' : '80' } }"},
    {"{'$type': '00', '$binary': '/w=='}",
     "{ '$binary' : { 'base64' : '/w==', 'subType' : '00' } }"},
    {"{'$timestamp': {'t': 4294967295, 'i': 1}}",
     "{ '$timestamp' : { 't' : 4294967295, 'i' : 1 } }"},
    {"{'$regularExpression': {'pattern': '^a', 'options': 'i'}}",
     "{ '$regularExpression' : { 'pattern' : '^a', 'options' : 'i' } }"},
    {"{'$regex': '^a', '$options': 'i'}",
     "{ '$regularExpression' : { 'pattern' : '^a', 'options' : 'i' } }"},
    {"{'$code': 'f()'}", "{ '$code' : 'f()' }"},
    {"{'$code': 'f()', '$scope': {'a': 1}}",
     "{ '$code' : 'f()', '$scope' : { 'a' : { '$numberInt' : '1' } } }"},
    {"{'$symbol': 's'}", "{ '$symbol' : 's' }"},
    {"{'$dbPointer': {'$ref': 'c', '$id': {'$oid': '0123456789abcdef01234567'}}}",
     "{ '$dbPointer' : { '$ref' : 'c', '$id' : { '$oid' : '0123456789abcdef01234567' } } }"},
    {"{'$undefined': true}", "{ '$undefined' : true }"},
    {"{'$minKey': 1}", "{ '$minKey' : 1 }"},
    {"{'$maxKey': 1}", "{ '$maxKey' : 1 }"},
    // plain documents: another key comes first, or the name means nothing
    {"{'a': true, '$date': 'never'}", "{ 'a' : true, '$date' : 'never' }"},
    {"{'$set': {'b': 'x'}}", "{ '$set' : { 'b' : 'x' } }"},
    {"{'$type': 'string'}", "{ '$type' : 'string' }"},
    {"{'$ref': 'c', '$id': 'x'}", "{ '$ref' : 'c', '$id' : 'x' }"},
    {"['$date', 'never']", "[ '$date', 'never' ]"},
    {"'\\u00e4\\ud83d\\ude00\\n\\\\\\/'", "'\xc3\xa4\xf0\x9f\x98\x80\\n\\\\/'"},
    {"9223372036854775807", "{ '$numberLong' : '9223372036854775807' }"},
    {"-9223372036854775808", "{ '$numberLong' : '-9223372036854775808' }"},
    {"1.5E+2", "{ '$numberDouble' : '150.0' }"},
    {"0e-5", "{ '$numberDouble' : '0.0' }"},
    {"[]", "[  ]"},
    {"[{}, [null, false]]", "[ {  }, [ null, false ] ]"},
};

static void test_values_are_read(void **unused) {
  (void)unused;
  for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
    char message[EXTENDED_JSON_MESSAGE_SIZE] = "";
    g_autofree char *object = g_strdup_printf("{ 'a' :\n%s\t}", values[i].json);
    g_autofree char *expected = g_strdup_printf("{ 'a' : %s }", values[i].read);
    g_autofree char *text = with_quotes(object);
    g_autofree char *wanted = with_quotes(expected);
    bson_t *document = extended_json_read(text, strlen(text), "", message);
    assert_string_equal(message, "");
    char *found = bson_as_canonical_extended_json(document, NULL);
    assert_string_equal(found, wanted);
    bson_free(found);
    bson_destroy(document);
  }
}

#define A_TIME "a time like 2026-01-31T23:59:59.123Z"

static const struct {
  const char *json, *message; // a value
} refused[] = {
    {"{'$date': 'rubbish'}", "a.$date: expected " A_TIME ", found \"rubbish\""},
    {"{'\\u0024date': 'rubbish'}", "a.$date: expected " A_TIME ", found \"rubbish\""},
    {"{'$date': '2024-02-30T00:00:00Z'}",
     "a.$date: expected " A_TIME ", found \"2024-02-30T00:00:00Z\""},
    {"{'$date': 1.5}", "a.$date: expected " A_TIME ", found 1.5"},
    {"{'$date': null}", "a.$date: expected " A_TIME ", found null"},
    {"{'$date': {'$numberLong': 'x'}}",
     "a.$date.$numberLong: expected a string with an integer of 64 bits, found \"x\""},
    {"{'$date': {'$numberInt': '5'}}",
     "a.$date.$numberInt: expected $numberLong, found another key"},
    {"{'$date': {}}", "a.$date: expected a string, found }"},
    {"{'$date': 1, '$date': 2}", "a.$date: expected $date, found it again"},
    {"{'$date': 1, 'b': 2}", "a.b: expected $date, found another key"},
    {"{'$numberDouble': 'abc'}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"abc\""},
    {"{'$numberDouble': '1x'}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"1x\""},
    {"{'$numberDouble': ''}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"\""},
    {"{'$numberDouble': '0x10'}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"0x10\""},
    {"{'$numberDouble': '1e999'}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"1e999\""},
    {"{'$numberDouble': '1e-999'}",
     "a.$numberDouble: expected a string with a number that a double can hold, found \"1e-999\""},
    {"{'$numberDouble': '1\\u0000'}", "a.$numberDouble: expected a string without NUL, found one"},
    {"{'$numberDouble': 1}", "a.$numberDouble: expected a string, found 1"},
    {"{'$numberInt': '2147483648'}",
     "a.$numberInt: expected a string with an integer of 32 bits, found \"2147483648\""},
    {"{'$numberInt': ''}",
     "a.$numberInt: expected a string with an integer of 32 bits, found \"\""},
    {"{'$numberInt': '1.5'}",
     "a.$numberInt: expected a string with an integer of 32 bits, found \"1.5\""},
    {"{'$numberLong': '9223372036854775808'}",
     "a.$numberLong: expected a string with an integer of 64 bits, found \"9223372036854775808\""},
    {"{'$numberLong': ' 5'}",
     "a.$numberLong: expected a string with an integer of 64 bits, found \" 5\""},
    {"{'$numberLong': 5}", "a.$numberLong: expected a string, found 5"},
    {"{'$numberDecimal': '1,5'}",
     "a.$numberDecimal: expected a number of at most 34 digits, found \"1,5\""},
    {"{'$numberDecimal': '1.1234567890123456789012345678901234'}",
     "a.$numberDecimal: expected a number of at most 34 digits, found "
     "\"1.1234567890123456789012345678901234\""},
    {"{'$oid': 'xyz'}", "a.$oid: expected 24 hexadecimal digits, found \"xyz\""},
    {"{'$oid': 'zzzzzzzzzzzzzzzzzzzzzzzz'}",
     "a.$oid: expected 24 hexadecimal digits, found \"zzzzzzzzzzzzzzzzzzzzzzzz\""},
    {"{'$oid': null}", "a.$oid: expected a string, found null"},
    {"{'$uuid': '0190a000-0000-7000-8000-00000000000'}",
     "a.$uuid: expected a UUID, found \"0190a000-0000-7000-8000-00000000000\""},
    {"{'$uuid': '0190a000-0000-7000-8000-000000000 +1'}",
     "a.$uuid: expected a UUID, found \"0190a000-0000-7000-8000-000000000 +1\""},
    {"{'$binary': {'base64': 'A', 'subType': '00'}}",
     "a.$binary.base64: expected base64, found \"A\""},
    {"{'$binary': {'base64': 'A*==', 'subType': '00'}}",
     "a.$binary.base64: expected base64, found \"A*==\""},
    {"{'$binary': {'base64': 'AA==', 'subType': 'x'}}",
     "a.$binary.subType: expected two hexadecimal digits, found \"x\""},
    {"{'$binary': {'base64': 'AA==', 'subType': '1ff'}}",
     "a.$binary.subType: expected two hexadecimal digits, found \"1ff\""},
    {"{'$binary': {'base64': 'AA=='}}", "a.$binary: expected subType, found nothing"},
    {"{'$binary': 'AA=='}", "a: expected $type, found nothing"},
    {"{'$type': '1ff', '$binary': 'AA=='}",
     "a.$type: expected two hexadecimal digits, found \"1ff\""},
    {"{'$timestamp': {'t': 4294967296, 'i': 1}}",
     "a.$timestamp.t: expected an integer from 0 to 4294967295, found 4294967296"},
    {"{'$timestamp': {'t': 1, 'i': 1, 'j': 2}}", "a.$timestamp.j: expected t, found another key"},
    {"{'$regularExpression': {'pattern': 'a\\u0000b', 'options': ''}}",
     "a.$regularExpression.pattern: expected a string without NUL, found one"},
    {"{'$regex': 'a'}", "a: expected $options, found nothing"},
    {"{'$code': 'a\\u0000b'}", "a.$code: expected a string without NUL, found one"},
    {"{'$code': 'a', '$scope': 1}", "a.$scope: expected a document, found 1"},
    {"{'$code': 'a', '$scope': {'b': {'$oid': ''}}}",
     "a.$scope.b.$oid: expected 24 hexadecimal digits, found \"\""},
    {"{'$scope': {}}", "a: expected $code, found nothing"},
    {"{'$undefined': false}", "a.$undefined: expected true, found false"},
    {"{'$minKey': 2}", "a.$minKey: expected 1, found 2"},
    {"{'$dbPointer': {'$ref': 'c', '$id': 'x'}}",
     "a.$dbPointer.$id: expected an object, found \"x\""},
    {"[1, {'b': [{'$numberInt': 'x'}]}]",
     "a[1].b[0].$numberInt: expected a string with an integer of 32 bits, found \"x\""},
    // numbers and texts of JSON itself
    {"9223372036854775808", "a: expected an integer of at most 64 bits, found 9223372036854775808"},
    {"[1,-9223372036854775809]",
     "a[1]: expected an integer of at most 64 bits, found -9223372036854775809"},
    {"1e999", "a: expected a number that a double can hold, found 1e999"},
    {"1e-999", "a: expected a number that a double can hold, found 1e-999"},
    {"01", "a: expected a value of JSON, found 01"},
    {"1.", "a: expected a value of JSON, found 1."},
    {"1-2", "a: expected a value of JSON, found 1-2"},
    {"+1", "a: expected a value of JSON, found +1"},
    {"nan", "a: expected a value of JSON, found nan"},
    {"Inf", "a: expected a value of JSON, found Inf"},
    {"+Infinity", "a: expected a value of JSON, found +Infinity"},
    {"-NaN", "a: expected a value of JSON, found -NaN"},
    {"NaN1", "expected the end of the object, found 1"},
    {"{'$date': NaN}", "a.$date: expected " A_TIME ", found NaN"},
    {"nul", "a: expected a value of JSON, found nul"},
    {"'\\x'", "a: expected an escape sequence of JSON after \\, found x'"},
    {"'\\ud800'", "a: expected a character after \\u, found half of a surrogate pair"},
    {"'a\nb'", "a: expected the end of a string, found a control character"},
    {"{'b\\u0000': 1}", "a: expected a string without NUL, found one"},
    {"[1 2]", "a: expected the end of the array, found 2"},
    {"{'b' 1}", "a.b: expected a colon after the key, found 1"},
    {"{'b': 1,}", "a: expected a string, found }"},
    {"{'b': 1, 'c': {'b': 2}, 'b': 3}", "a.b: expected once, found again"},
    {"[{'b': {'c': 1, 'c': 1}}]", "a[0].b.c: expected once, found again"},
    {"1} {'b': 2", "expected the end of the text, found {'b'"},
};

static void test_what_is_no_value_is_refused(void **unused) {
  (void)unused;
  for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
    char message[EXTENDED_JSON_MESSAGE_SIZE] = "";
    g_autofree char *object = g_strdup_printf("{'a': %s}", refused[i].json);
    g_autofree char *text = with_quotes(object);
    g_autofree char *expected = with_quotes(refused[i].message);
    bson_t *document = extended_json_read(text, strlen(text), "", message);
    assert_string_equal(message, expected);
    assert_null(document);
  }
}

static void test_the_path_goes_on(void **unused) {
  (void)unused;
  char message[EXTENDED_JSON_MESSAGE_SIZE] = "";
  const char *text = "{\"a\": {\"$oid\": \"x\"}}";
  assert_null(extended_json_read(text, strlen(text), "events[0].payload", message));
  assert_string_equal(message,
                      "events[0].payload.a.$oid: expected 24 hexadecimal digits, found \"x\"");
  assert_null(extended_json_read("[]", 2, "", message));
  assert_string_equal(message, "expected an object, found [");
  assert_null(extended_json_read("{\"a", 3, "", message));
  assert_string_equal(message, "expected the end of a string, found the end of the text");
  assert_null(extended_json_read("{\"a\": tr", 8, "", message));
}

static void test_depth_is_limited(void **unused) {
  (void)unused;
  char message[EXTENDED_JSON_MESSAGE_SIZE] = "";
  g_autoptr(GString) text = g_string_new("{\"a\": ");
  for (int i = 0; i < 100000; i++) {
    g_string_append_c(text, '[');
  }
  assert_null(extended_json_read(text->str, text->len, "", message));
  assert_non_null(strstr(message, "expected at most 200 levels, found more"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values_are_read),
      cmocka_unit_test(test_what_is_no_value_is_refused),
      cmocka_unit_test(test_the_path_goes_on),
      cmocka_unit_test(test_depth_is_limited),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

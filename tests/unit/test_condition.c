/* test_condition.c - `when` as a matrix: condition, event, and whether it holds, does not hold, or
 * cannot be evaluated. */
#include "projector/domain/condition.h"
#include "tests/unit/support.h"

#include <string.h>

static const char event_json[] =
    "{'_id': 'e-1', 'aggregate_type': 'order', 'aggregate_id': 'o-1', 'event_type': 'Placed',"
    " 'version': {'$numberLong': '3'}, 'occurred_at': {'$date': {'$numberLong': '1714979289123'}},"
    " 'metadata': {'tenant': 't1'},"
    " 'payload': {'kind': 'web', 'n': {'$numberInt': '5'}, 'big': {'$numberLong': '5'},"
    "   'real': {'$numberDouble': '5.0'}, 'half': {'$numberDouble': '0.5'},"
    "   'nan': {'$numberDouble': 'NaN'}, 'money': {'$numberDecimal': '5.00'},"
    "   'yes': true, 'no': false, 'nil': null, 'old': {'$undefined': true}, 'text5': '5',"
    "   'oid': {'$oid': '65a000000000000000000001'},"
    "   'uuid': {'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '04'}},"
    "   'at': {'$date': {'$numberLong': '1714979289123'}}, 'list': ['web', 2],"
    "   'a': {'b': 'deep'}, 'x.y': 'dotted',"
    "   'deep': {'a': {'$numberLong': '1'}, 'l': [{'$numberDouble': '2.0'}, null]}}}";

static const struct {
  const char *when, *expected; /* "yes", "no", or why it cannot be evaluated */
} cases[] = {
    {"{'path': 'kind', 'is': 'web'}", "yes"},
    {"{'path': 'kind', 'is': 'Web'}", "no"},
    {"{'path': 'kind', 'is': 'we'}", "no"},
    {"{'path': 'kind', 'is': 5}", "no"},
    {"{'path': 'kind', 'is': null}", "no"},
    {"{'path': 'kind', 'in': ['phone', 'web']}", "yes"},
    {"{'path': 'kind', 'in': ['phone', 'shop']}", "no"},
    {"{'path': 'kind', 'in': [null, 5, true]}", "no"},
    {"{'path': 'a.b', 'is': 'deep'}", "yes"},
    {"{'path': '/a/b', 'is': 'deep'}", "yes"},
    {"{'path': '/x.y', 'is': 'dotted'}", "yes"},
    {"{'path': '/list/0', 'is': 'web'}", "yes"},
    {"{'path': ['new', 'kind'], 'is': 'web'}", "yes"},
    {"{'path': '$event_type', 'is': 'Placed'}", "yes"},
    {"{'path': '$metadata.tenant', 'in': ['t1']}", "yes"},
    {"{'path': '$aggregate_id', 'is': 'o-1'}", "yes"},
    {"{'path': '$version', 'is': 3}", "yes"},

    /* numbers compare by value */
    {"{'path': 'n', 'is': 5}", "yes"},
    {"{'path': 'big', 'is': 5}", "yes"},
    {"{'path': 'real', 'is': 5}", "yes"},
    {"{'path': 'money', 'is': 5}", "yes"},
    {"{'path': 'n', 'is': 5.0}", "yes"},
    {"{'path': 'n', 'is': {'$numberDecimal': '5.000'}}", "yes"},
    {"{'path': 'half', 'is': 0.5}", "yes"},
    {"{'path': 'half', 'is': {'$numberDecimal': '0.50'}}", "yes"},
    {"{'path': 'n', 'is': 6}", "no"},
    {"{'path': 'n', 'is': '5'}", "no"},
    {"{'path': 'n', 'is': true}", "no"},
    {"{'path': 'text5', 'is': 5}", "no"},
    {"{'path': 'nan', 'is': 5}", "no"},
    {"{'path': 'half', 'is': {'$numberDecimal': 'NaN'}}", "no"},
    {"{'path': 'n', 'is': -5}", "no"},
    {"{'path': 'n', 'is': 0}", "no"},

    /* also inside of a document or an array, whose members are compared in their order */
    {"{'path': 'deep', 'is': {'a': 1, 'l': [2, null]}}", "yes"},
    {"{'path': 'deep', 'is': {'l': [2, null], 'a': 1}}", "no"},
    {"{'path': 'deep', 'is': {'a': 1, 'l': [2]}}", "no"},
    {"{'path': 'deep', 'is': {'a': 1}}", "no"},
    {"{'path': 'deep', 'is': {'a': 1, 'l': [2, null], 'x': 1}}", "no"},
    {"{'path': 'deep', 'is': {'a': 2, 'l': [2, null]}}", "no"},
    {"{'path': 'deep', 'is': 1}", "no"},
    {"{'path': 'n', 'is': {'a': 1}}", "no"},

    /* true, false and null equal only themselves */
    {"{'path': 'yes', 'is': true}", "yes"},
    {"{'path': 'yes', 'is': false}", "no"},
    {"{'path': 'yes', 'is': 1}", "no"},
    {"{'path': 'no', 'is': false}", "yes"},
    {"{'path': 'nil', 'is': null}", "yes"},
    {"{'path': 'nil', 'is': ''}", "no"},
    {"{'path': 'nil', 'in': ['web']}", "no"},
    {"{'path': 'old', 'is': null}", "yes"}, /* as a column takes it */
    {"{'path': 'old', 'in': ['web', null]}", "yes"},
    {"{'path': 'old', 'is': 'web'}", "no"},

    /* ids and times in their text forms, and in extended JSON */
    {"{'path': 'oid', 'is': '65a000000000000000000001'}", "yes"},
    {"{'path': 'oid', 'is': {'$oid': '65a000000000000000000001'}}", "yes"},
    {"{'path': 'oid', 'is': '65a000000000000000000002'}", "no"},
    {"{'path': 'oid', 'is': '65a00000000000000000000x'}", "no"},
    {"{'path': 'uuid', 'is': '00112233-4455-6677-8899-aabbccddeegg'}", "no"},
    {"{'path': 'uuid', 'is': '00112233-4455-6677-8899-aabbccddeeff'}", "yes"},
    {"{'path': 'uuid', 'is': '00112233-4455-6677-8899-aabbccddeefe'}", "no"},
    {"{'path': 'at', 'is': '2024-05-06T07:08:09.123Z'}", "yes"},
    {"{'path': 'at', 'is': {'$date': '2024-05-06T07:08:09.123Z'}}", "yes"},
    {"{'path': 'at', 'is': '2024-05-06T07:08:09.124Z'}", "no"},
    {"{'path': 'at', 'is': '2024-05-06T07:08:09.123001Z'}", "no"},
    {"{'path': 'list', 'is': 'web'}", "no"}, /* the array, not one of its members */

    /* missing fields */
    {"{'path': 'none', 'exists': true}", "no"},
    {"{'path': 'none', 'exists': false}", "yes"},
    {"{'path': 'nil', 'exists': true}", "yes"},
    {"{'path': 'kind', 'exists': false}", "no"},
    {"{'path': 'kind.x', 'exists': true}", "no"},
    {"{'path': ['none', 'kind'], 'exists': true}", "yes"},
    {"{'path': 'none', 'is': 'web'}",
     "payload.none: expected a value to compare with in \"when\", found nothing"},
    {"{'path': 'none', 'is': null}",
     "payload.none: expected a value to compare with in \"when\", found nothing"},
    {"{'path': ['none', '$metadata.x'], 'in': ['web']}",
     "payload.none or $metadata.x: expected a value to compare with in \"when\", found nothing"},

    /* all, any, not: from left to right, no further than necessary */
    {"{'all': [{'path': 'n', 'is': 5}, {'path': 'kind', 'is': 'web'}]}", "yes"},
    {"{'all': [{'path': 'n', 'is': 5}, {'path': 'kind', 'is': 'shop'}]}", "no"},
    {"{'any': [{'path': 'n', 'is': 6}, {'path': 'kind', 'is': 'web'}]}", "yes"},
    {"{'any': [{'path': 'n', 'is': 6}, {'path': 'kind', 'is': 'shop'}]}", "no"},
    {"{'not': {'path': 'kind', 'is': 'web'}}", "no"},
    {"{'not': {'not': {'path': 'kind', 'is': 'web'}}}", "yes"},
    {"{'not': {'path': 'none', 'is': 'web'}}",
     "payload.none: expected a value to compare with in \"when\", found nothing"},
    {"{'all': [{'path': 'none', 'exists': true}, {'path': 'none', 'is': 'web'}]}", "no"},
    {"{'any': [{'path': 'none', 'exists': false}, {'path': 'none', 'is': 'web'}]}", "yes"},
    {"{'all': [{'path': 'none', 'is': 'web'}, {'path': 'n', 'is': 6}]}",
     "payload.none: expected a value to compare with in \"when\", found nothing"},
    {"{'all': [{'any': [{'path': 'n', 'is': 1}, {'path': 'n', 'is': 5}]},"
     " {'not': {'path': 'kind', 'in': ['shop']}}]}",
     "yes"},
};

static void test_matrix(void **state) {
  (void)state;
  g_autoptr(Event) event = event_from(event_json);
  g_autoptr(Arena) arena = arena_new();
  check_that("event", !event->malformed, "it is well-formed");
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Failure failure = {0};
    bool holds = false;
    json_t *json = json_from(cases[i].when);
    const Condition *when = condition_parse(json, "when", CONDITION_OF_EVENT, arena, &failure);
    json_decref(json);
    check_text(cases[i].when, failure.message, "");
    bool told = condition_holds(when, event, &holds, &failure);
    check_text(cases[i].when, !told ? failure.message : holds ? "yes" : "no", cases[i].expected);
  }
}

static void test_depth_has_a_limit(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GString) text = g_string_new("{'path': 'a', 'is': 1}");
  for (int i = 0; i < 17; i++) {
    g_string_prepend(text, "{'not': ");
    g_string_append_c(text, '}');
  }
  json_t *json = json_from(text->str);
  Failure failure = {0};
  check_that("17 deep", !condition_parse(json, "w", CONDITION_OF_EVENT, arena, &failure),
             "it is refused");
  check_that("17 deep", strstr(failure.message, "nested 16 deep") != NULL, "it says why");
  failure = (Failure){0};
  check_that("16 deep",
             condition_parse(json_object_get(json, "not"), "w", CONDITION_OF_EVENT, arena,
                             &failure) != NULL,
             "it is taken");
  json_decref(json);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matrix),
      cmocka_unit_test(test_depth_has_a_limit),
  };
  return RUN_TESTS(tests);
}

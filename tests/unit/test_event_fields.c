/* test_event_fields.c - documents of other outboxes in the contract's form. */
#include "projector/domain/event_fields.h"
#include "tests/unit/support.h"

#include <string.h>

#define CAP                                                                                        \
  "{'fields': {'aggregate_type': 'h.type', 'aggregate_id': 'h.id', 'event_type': 'Name',"          \
  " 'occurred_at': 'Added', 'payload': 'Content', 'metadata': 'h'}}"
#define DEBEZIUM "{'layout': 'debezium'}"
#define OID "{'$oid': '65a0000000aabbccddeeff01'}" /* of second 1704984576 */

static const struct {
  const char *settings, *document, *expected; /* as canonical extended JSON */
} cases[] = {
    {DEBEZIUM,
     "{'_id': 'e', 'aggregatetype': 'order', 'aggregateid': 'o-1', 'type': 'Placed',"
     " 'timestamp': {'$date': {'$numberLong': '1000'}}, 'payload': {'a': true}}",
     "{ '$foreign' : true, '_id' : 'e', 'aggregatetype' : 'order', 'aggregateid' : 'o-1', 'type' : "
     "'Placed', 'timestamp' : { '$date' : { '$numberLong' : '1000' } }, 'aggregate_type' : "
     "'order', 'aggregate_id' : 'o-1', 'event_type' : 'Placed', 'occurred_at' : { '$date' : { "
     "'$numberLong' : '1000' } }, 'payload' : { 'a' : true } }"},
    /* the time of the ObjectId, a payload in a text, our own fields */
    {DEBEZIUM, "{'_id': " OID ", 'payload': ' {}', 'status': 'failed', 'timestamp': null}",
     "{ '$foreign' : true, '_id' : { '$oid' : '65a0000000aabbccddeeff01' }, 'status' : 'failed', "
     "'timestamp' : null, 'occurred_at' : { '$date' : { '$numberLong' : '1704984576000' } }, "
     "'payload' : {  } }"},
    /* what cannot be read stays as it is */
    {DEBEZIUM, "{'_id': 'e', 'payload': '{', 'timestamp': 'soon'}",
     "{ '$foreign' : true, '_id' : 'e', 'timestamp' : 'soon', 'occurred_at' : 'soon', 'payload' : "
     "'{' }"},
    {DEBEZIUM, "{'_id': 'e', 'payload': '[1]'}",
     "{ '$foreign' : true, '_id' : 'e', 'payload' : '[1]' }"},
    /* every digit of a number is kept, or the payload is not read */
    {DEBEZIUM,
     "{'_id': 'e', 'payload': '{\\'a\\': 12345678901234567.89, \\'b\\': 18446744073709551615,"
     " \\'c\\': 0.5, \\'d\\': -7}'}",
     "{ '$foreign' : true, '_id' : 'e', 'payload' : { 'a' : { '$numberDecimal' : "
     "'12345678901234567.89' }, 'b' : { '$numberDecimal' : '18446744073709551615' }, 'c' : { "
     "'$numberDouble' : '0.5' }, 'd' : { '$numberInt' : '-7' } } }"},
    {DEBEZIUM, "{'_id': 'e', 'payload': '{\\'a\\': 0.12345678901234567890123456789012345}'}",
     "{ '$foreign' : true, '_id' : 'e', 'payload' : '{\\'a\\': "
     "0.12345678901234567890123456789012345}' }"},
    {DEBEZIUM, "{'_id': 'e', 'payload': '{\\'a\\': {\\'$numberDecimal\\': \\'1,50\\'}}'}",
     "{ '$foreign' : true, '_id' : 'e', 'payload' : '{\\'a\\': {\\'$numberDecimal\\': "
     "\\'1,50\\'}}' }"},
    /* numbers and texts of times; a field of the contract's name that means something else */
    {CAP,
     "{'_id': {'$numberLong': '5'}, 'h': {'type': 't', 'id': {'$numberInt': '7'}}, 'Name': 'N',"
     " 'Added': {'$numberLong': '5'}, 'payload': 'other', 'version': {'$numberInt': '3'}}",
     "{ '$foreign' : true, '_id' : { '$numberLong' : '5' }, 'h' : { 'type' : 't', 'id' : { "
     "'$numberInt' : '7' } }, 'Name' : 'N', 'Added' : { '$numberLong' : '5' }, 'aggregate_type' : "
     "'t', 'aggregate_id' : { '$numberInt' : '7' }, 'version' : { '$numberInt' : '3' }, "
     "'event_type' : 'N', 'occurred_at' : { '$date' : { '$numberLong' : '5' } }, 'metadata' : { "
     "'type' : 't', 'id' : { '$numberInt' : '7' } } }"},
    {"{'fields': {'occurred_at': 'at'}}",
     "{'_id': 'e', 'at': '1970-01-01T00:00:01.500Z', 'occurred_at': 'x'}",
     "{ '$foreign' : true, '_id' : 'e', 'at' : '1970-01-01T00:00:01.500Z', 'occurred_at' : { "
     "'$date' : { '$numberLong' : '1500' } } }"},
    {"{'fields': {'occurred_at': '_id'}}", "{'_id': " OID "}",
     "{ '$foreign' : true, '_id' : { '$oid' : '65a0000000aabbccddeeff01' }, 'occurred_at' : { "
     "'$date' : { '$numberLong' : '1704984576000' } } }"},
};

static EventFields fields_from(const char *settings) {
  json_t *json = json_from(settings);
  static char names[EVENT_FIELDS][64]; /* they live in the JSON, which is freed */
  EventFields fields = {0};
  Failure failure = {0};
  check_that(settings, event_fields_parse(json, &fields, &failure), "they are taken");
  for (int i = 0; i < EVENT_FIELDS; i++) {
    g_strlcpy(names[i], fields.names[i], sizeof names[i]);
    fields.names[i] = names[i];
  }
  json_decref(json);
  return fields;
}

typedef bson_t *Translate(const EventFields *fields, const bson_t *document);

static void check_translation(Translate *translate, const char *settings, const char *theirs,
                              const char *expected) {
  const EventFields fields = fields_from(settings);
  g_autoptr(bson_t) document = document_from(theirs);
  g_autoptr(bson_t) found = translate(&fields, document);
  char *text = bson_as_canonical_extended_json(found, NULL);
  g_autofree char *wanted = json_text(expected);
  check_text(theirs, text, wanted);
  bson_free(text);
}

static void test_translations(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(cases); i++)
    check_translation(event_fields_translate, cases[i].settings, cases[i].document,
                      cases[i].expected);
}

/* Rebuild and explain keep thousands of them, which may be of megabytes. */
static void test_a_brief_translation_has_nothing_large(void **state) {
  (void)state;
  static const struct {
    const char *settings, *document, *expected;
  } brief[] = {
      {CAP,
       "{'_id': {'$numberLong': '5'}, 'h': {'type': 't', 'id': 'i', 'large': 'x'}, 'Name': 'N',"
       " 'Added': {'$numberLong': '5'}, 'Content': '{\\'large\\': 1}', 'attempts': 3}",
       "{ '$foreign' : true, '_id' : { '$numberLong' : '5' }, 'attempts' : { '$numberInt' : '3' },"
       " 'aggregate_type' : 't', 'aggregate_id' : 'i', 'event_type' : 'N', 'occurred_at' : {"
       " '$date' : { '$numberLong' : '5' } }, 'payload' : {  } }"},
      {DEBEZIUM, "{'_id': 'e', 'payload': 'none', 'timestamp': 'soon', 'status': 'dead'}",
       "{ '$foreign' : true, '_id' : 'e', 'status' : 'dead', 'occurred_at' : 'soon', 'payload' : "
       "null }"},
  };
  for (size_t i = 0; i < COUNT_OF(brief); i++)
    check_translation(event_fields_translate_briefly, brief[i].settings, brief[i].document,
                      brief[i].expected);
}

static void test_an_integer_is_an_event_id_there_alone(void **state) {
  (void)state;
  const char *document = "{'_id': {'$numberLong': '5'}, 'aggregate_type': 't', 'aggregate_id': 'a',"
                         " 'event_type': 'E', 'occurred_at': {'$date': {'$numberLong': '1'}},"
                         " 'payload': {}}";
  const EventFields fields = fields_from("{'fields': {'metadata': 'm'}}");
  g_autoptr(bson_t) ours = document_from(document);
  g_autoptr(bson_t) theirs = event_fields_translate(&fields, ours);
  g_autoptr(Event) refused = event_decode(ours);
  g_autoptr(Event) taken = event_decode(theirs);
  check_that("ours", refused->malformed != NULL, "it is malformed");
  check_that("theirs", taken->malformed == NULL && taken->key.event_id.kind == ID_INT,
             "it is an event");
  check_number("theirs", taken->key.event_id.number, 5);
}

static void test_the_contract_needs_no_translation(void **state) {
  (void)state;
  static const char *const settings[] = {"{}", "{'layout': 'outbox'}", "{'fields': {}}"};
  for (size_t i = 0; i < COUNT_OF(settings); i++) {
    const EventFields fields = fields_from(settings[i]);
    check_that(settings[i], !fields.foreign, "nothing is foreign");
    check_text(settings[i], fields.names[FIELD_OCCURRED_AT], "occurred_at");
  }
}

/* A payload that is the JSON text of one number, read into a column. */
static const struct {
  const char *number, *type, *expected;
} numbers[] = {
    {"0.10000000000000001", "double", "double 0.10000000000000001"},
    {"0.10000000000000001", "decimal(18,2)", "decimal 0.1"},
    {"0.1000000000000000055511151231257827021181583404541015625", "decimal(18,2)", "decimal 0.1"},
    {"2.5000000000000000", "float", "double 2.5"},
    {"0.10000000000000001", "int", NULL},
    {"0.12345678901234559", "double", NULL},
    {"12345678901234567.89", "decimal(20,2)", "decimal 12345678901234567.89"},
    {"700000000000000.12", "decimal(20,2)", "decimal 700000000000000.12"},
    {"700000000000000.12", "double", NULL},
    {"12345678901234567.89", "double", NULL},
    {"12345678901234567.89", "float", NULL},
    {"12345678901234567.0", "bigint", "int 12345678901234567"},
    {"9007199254740993.0", "decimal(20,2)", "decimal 9007199254740993"},
    {"18446744073709551615", "bigint unsigned", "uint 18446744073709551615"},
    {"3.4028235E38", "double", "double 3.4028234999999999e+38"},
    {"3.4028235E38", "decimal(65,2)", "decimal 340282350000000000000000000000000000000"},
    {"3.4028235E38", "float", NULL},
    {"3.4028235E38", "bigint", NULL},
    {"1e37", "float", NULL},
    {"340282350000000000000000000000000000000", "double", NULL},
    {"1.5e-40", "double", "double 1.5000000000000001e-40"},
    {"1.5e+159", "double", "double 1.5000000000000001e+159"},
    {"1234567890123456789012345e150", "double", "double 1.2345678901234567e+174"},
    {"100000000000000000000", "double", NULL},
    {"1.0", "int", "int 1"},
};

static char *number_into(const char *number, const char *type) {
  const EventFields fields = fields_from(DEBEZIUM);
  g_autofree char *json = g_strdup_printf("{'_id': 'e', 'aggregatetype': 't', 'aggregateid': 'a', "
                                          "'type': 'E', 'timestamp': {'$date': 1},"
                                          " 'payload': '{\\'v\\': %s}'}",
                                          number);
  g_autoptr(bson_t) theirs = document_from(json);
  g_autoptr(bson_t) ours = event_fields_translate(&fields, theirs);
  g_autoptr(Event) event = event_decode(ours);
  g_autoptr(Arena) arena = arena_new();
  Column column = {.name = "c"};
  Source source = {.in_payload = true, .path = "v", .text = "v"};
  Value value;
  Failure failure = {0};
  check_that(number, column_type_parse(type, &column.type) && !event->malformed, "it is an event");
  return value_for_column(event, &source, &column, arena, &value, &failure) ? value_text(&value)
                                                                            : NULL;
}

static void test_numbers_of_json_texts_fit_the_columns_that_hold_them(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(numbers); i++) {
    g_autofree char *name = g_strdup_printf("%s into %s", numbers[i].number, numbers[i].type);
    g_autofree char *found = number_into(numbers[i].number, numbers[i].type);
    check_text(name, found, numbers[i].expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_translations),
      cmocka_unit_test(test_a_brief_translation_has_nothing_large),
      cmocka_unit_test(test_an_integer_is_an_event_id_there_alone),
      cmocka_unit_test(test_numbers_of_json_texts_fit_the_columns_that_hold_them),
      cmocka_unit_test(test_the_contract_needs_no_translation),
  };
  return RUN_TESTS(tests);
}

/* test_event.c - decoding of outbox documents against their contract, and the order of events. */
#include "projector/domain/id_text.h"
#include "tests/unit/support.h"

#include <string.h>

#define ID "'_id': 'e1', "
#define TYPE "'aggregate_type': 'account', "
#define AGGREGATE "'aggregate_id': 'acc-1', "
#define NAME "'event_type': 'Opened', "
#define TIME "'occurred_at': {'$date': {'$numberLong': '1714979289123'}}, "
#define PAYLOAD "'payload': {'a': 1}"
#define ALL_BUT_VERSION ID TYPE AGGREGATE NAME TIME PAYLOAD
#define UUID(subtype)                                                                              \
  "{'$binary': {'base64': 'ABEiM0RVZneImaq7zN3u/w==', 'subType': '" subtype "'}}"
#define OID "{'$oid': '0123456789abcdef01234567'}"
#define TEXT_32 "0123456789abcdef0123456789abcdef"
#define TEXT_60 TEXT_32 "0123456789abcdef0123456789ab"
#define TEXT_64 TEXT_32 TEXT_32
#define TEXT_128 TEXT_64 TEXT_64
#define TEXT_255 TEXT_128 TEXT_64 TEXT_32 "0123456789abcdef0123456789abcde"
#define EVENT_ID_RULE                                                                              \
  "_id: expected a UUID (binary subtype 4), an ObjectId or a string of 1 to 64 bytes, found "
#define A_TEXT_RULE(key) key ": expected a string of 1 to 128 bytes, found "
#define AGGREGATE_ID_RULE                                                                          \
  "aggregate_id: expected a string of 1 to 255 bytes, a UUID (binary subtype 4), an ObjectId, an " \
  "int32 or int64, found "

/* What is wrong with the document; "": nothing. */
static const struct {
  const char *document, *malformed;
} contract_cases[] = {
    {"{" ALL_BUT_VERSION "}", ""},
    {"{" ALL_BUT_VERSION ", 'metadata': {}}", ""},
    {"{" ALL_BUT_VERSION ", 'metadata': null}", ""},
    {"{" ALL_BUT_VERSION ", 'metadata': {'tenant': 't'}, 'unknown': [1], 'x': null}", ""},
    {"{" ALL_BUT_VERSION ", 'status': 'pending', 'attempts': 3, 'claimed_by': 'p',"
     " 'claimed_at': {'$date': {'$numberLong': '0'}}, 'next_attempt_at': null,"
     " 'last_error': {'class': 'data', 'code': 1, 'message': 'm'}}",
     ""},
    {"{" ALL_BUT_VERSION ", 'status': 'in_progress'}", ""},
    {"{" ALL_BUT_VERSION ", 'status': 'failed'}", ""},
    {"{" ALL_BUT_VERSION ", 'status': 'dead', 'attempts': 'x'}", ""},
    {"{'payload': {}, " TIME NAME AGGREGATE TYPE "'_id': " UUID("04") "}", ""},

    {"{" TYPE AGGREGATE NAME TIME PAYLOAD "}", EVENT_ID_RULE "nothing"},
    {"{'_id': ''," TYPE AGGREGATE NAME TIME PAYLOAD "}", EVENT_ID_RULE "string of 0 bytes \"\""},
    {"{'_id': '" TEXT_64 "'," TYPE AGGREGATE NAME TIME PAYLOAD "}", ""},
    {"{'_id': '" TEXT_64 "x'," TYPE AGGREGATE NAME TIME PAYLOAD "}",
     EVENT_ID_RULE "string of 65 bytes \"" TEXT_60 "\"…"},
    {"{'_id': " OID "," TYPE AGGREGATE NAME TIME PAYLOAD "}", ""},
    {"{'_id': " UUID("03") "," TYPE AGGREGATE NAME TIME PAYLOAD "}",
     EVENT_ID_RULE "binary of 16 bytes, subtype 3"},
    {"{'_id': {'$binary': {'base64': 'AA==', 'subType': '04'}}," TYPE AGGREGATE NAME TIME PAYLOAD
     "}",
     EVENT_ID_RULE "binary of 1 bytes, subtype 4"},
    {"{'_id': 5," TYPE AGGREGATE NAME TIME PAYLOAD "}", EVENT_ID_RULE "int32 5"},
    {"{'_id': {'$numberLong': '5'}," TYPE AGGREGATE NAME TIME PAYLOAD "}", EVENT_ID_RULE "int64 5"},
    {"{'_id': {'a': 1}," TYPE AGGREGATE NAME TIME PAYLOAD "}",
     EVENT_ID_RULE "document \"{ \"a\" : 1 }\""},
    {"{'_id': null," TYPE AGGREGATE NAME TIME PAYLOAD "}", EVENT_ID_RULE "null"},

    {"{" ID AGGREGATE NAME TIME PAYLOAD "}", A_TEXT_RULE("aggregate_type") "nothing"},
    {"{" ID "'aggregate_type': 5," AGGREGATE NAME TIME PAYLOAD "}",
     A_TEXT_RULE("aggregate_type") "int32 5"},
    {"{" ID "'aggregate_type': ''," AGGREGATE NAME TIME PAYLOAD "}",
     A_TEXT_RULE("aggregate_type") "string of 0 bytes \"\""},
    {"{" ID "'aggregate_type': '" TEXT_128 "'," AGGREGATE NAME TIME PAYLOAD "}", ""},
    {"{" ID "'aggregate_type': '" TEXT_128 "x'," AGGREGATE NAME TIME PAYLOAD "}",
     A_TEXT_RULE("aggregate_type") "string of 129 bytes \"" TEXT_60 "\"…"},

    {"{" ID TYPE NAME TIME PAYLOAD "}", AGGREGATE_ID_RULE "nothing"},
    {"{" ID TYPE "'aggregate_id': 5," NAME TIME PAYLOAD "}", ""},
    {"{" ID TYPE "'aggregate_id': {'$numberLong': '-5'}," NAME TIME PAYLOAD "}", ""},
    {"{" ID TYPE "'aggregate_id': " UUID("04") "," NAME TIME PAYLOAD "}", ""},
    {"{" ID TYPE "'aggregate_id': " OID "," NAME TIME PAYLOAD "}", ""},
    {"{" ID TYPE "'aggregate_id': '" TEXT_255 "'," NAME TIME PAYLOAD "}", ""},
    {"{" ID TYPE "'aggregate_id': '" TEXT_255 "x'," NAME TIME PAYLOAD "}",
     AGGREGATE_ID_RULE "string of 256 bytes \"" TEXT_60 "\"…"},
    {"{" ID TYPE "'aggregate_id': ''," NAME TIME PAYLOAD "}",
     AGGREGATE_ID_RULE "string of 0 bytes \"\""},
    {"{" ID TYPE "'aggregate_id': 5.0," NAME TIME PAYLOAD "}", AGGREGATE_ID_RULE "double 5"},
    {"{" ID TYPE "'aggregate_id': {'$numberDecimal': '5'}," NAME TIME PAYLOAD "}",
     AGGREGATE_ID_RULE "Decimal128 5"},
    {"{" ID TYPE "'aggregate_id': {'a': 1}," NAME TIME PAYLOAD "}",
     AGGREGATE_ID_RULE "document \"{ \"a\" : 1 }\""},
    {"{" ID TYPE "'aggregate_id': null," NAME TIME PAYLOAD "}", AGGREGATE_ID_RULE "null"},
    {"{" ID TYPE "'aggregate_id': " UUID("00") "," NAME TIME PAYLOAD "}",
     AGGREGATE_ID_RULE "binary of 16 bytes, subtype 0"},

    {"{" ID TYPE AGGREGATE TIME PAYLOAD "}", A_TEXT_RULE("event_type") "nothing"},
    {"{" ID TYPE AGGREGATE "'event_type': null," TIME PAYLOAD "}",
     A_TEXT_RULE("event_type") "null"},
    {"{" ID TYPE AGGREGATE "'event_type': ''," TIME PAYLOAD "}",
     A_TEXT_RULE("event_type") "string of 0 bytes \"\""},
    {"{" ID TYPE AGGREGATE "'event_type': '" TEXT_128 "x'," TIME PAYLOAD "}",
     A_TEXT_RULE("event_type") "string of 129 bytes \"" TEXT_60 "\"…"},

    {"{" ID TYPE AGGREGATE NAME PAYLOAD "}", "occurred_at: expected a date, found nothing"},
    {"{" ID TYPE AGGREGATE NAME "'occurred_at': '2024-05-06T07:08:09Z'," PAYLOAD "}",
     "occurred_at: expected a date, found string of 20 bytes \"2024-05-06T07:08:09Z\""},
    {"{" ID TYPE AGGREGATE NAME "'occurred_at': {'$numberLong': '5'}," PAYLOAD "}",
     "occurred_at: expected a date, found int64 5"},
    {"{" ID TYPE AGGREGATE NAME "'occurred_at': {'$timestamp': {'t': 1, 'i': 1}}," PAYLOAD "}",
     "occurred_at: expected a date, found timestamp"},
    {"{" ID TYPE AGGREGATE NAME
     "'occurred_at': {'$date': {'$numberLong': '253402300800000'}}," PAYLOAD "}",
     "occurred_at: expected a date from year 1000 to 9999, found one outside"},
    {"{" ID TYPE AGGREGATE NAME
     "'occurred_at': {'$date': {'$numberLong': '-9223372036854775808'}}," PAYLOAD "}",
     "occurred_at: expected a date from year 1000 to 9999, found one outside"},

    {"{" ID TYPE AGGREGATE NAME TIME "'x': 1}", "payload: expected a document, found nothing"},
    {"{" ID TYPE AGGREGATE NAME TIME "'payload': {}}", ""},
    {"{" ID TYPE AGGREGATE NAME TIME "'payload': []}",
     "payload: expected a document, found array \"[  ]\""},
    {"{" ID TYPE AGGREGATE NAME TIME "'payload': null}",
     "payload: expected a document, found null"},
    {"{" ID TYPE AGGREGATE NAME TIME "'payload': '{}'}",
     "payload: expected a document, found string of 2 bytes \"{}\""},
    {"{" ALL_BUT_VERSION ", 'metadata': 'x'}",
     "metadata: expected a document, found string of 1 bytes \"x\""},
    {"{" ALL_BUT_VERSION ", 'metadata': []}",
     "metadata: expected a document, found array \"[  ]\""},

    {"{'payload': 5, 'version': 'x'}",
     "payload: expected a document, found int32 5"}, /* the first */
    {"{}", EVENT_ID_RULE "nothing"},
};

static void test_contract(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(contract_cases); i++) {
    g_autoptr(Event) event = event_from(contract_cases[i].document);
    check_text(contract_cases[i].document, event->malformed ? event->malformed->message : "",
               contract_cases[i].malformed);
    if (event->malformed)
      check_number("class", event->malformed->class, FAILURE_DATA);
  }
}

static void test_good_event(void **state) {
  (void)state;
  g_autoptr(Event) event = event_from(
      "{'version': {'$numberLong': '7'}, 'attempts': 3, 'metadata': {'m': 1}, " ALL_BUT_VERSION
      "}");
  char text[600];
  bson_t view;
  check_text("aggregate", aggregate_text(&event->aggregate, text, sizeof text), "account acc-1");
  check_that("event type", event->event_type_length == 6 && !memcmp(event->event_type, "Opened", 6),
             "Opened");
  check_number("time", event->key.occurred_at, 1714979289123);
  check_number("version", event->key.version, 7);
  check_number("attempts", event->attempts, 3);
  check_number("id", event->key.event_id.kind, ID_STRING);
  check_that("payload", bson_has_field(event_payload(event, &view), "a"), "it has its field");
  check_that("metadata", bson_has_field(event_metadata(event, &view), "m"), "it has its field");
  check_that("aggregate", event_has_aggregate(event), "it was read");
  check_that("memory", event_memory(event) > event_document(event, &view)->len,
             "it counts the document");
}

/* The event keeps a copy: the driver reuses its buffer for the next document. */
static void test_event_outlives_its_document(void **state) {
  (void)state;
  bson_t *document = document_from("{" ALL_BUT_VERSION "}");
  g_autoptr(Event) event = event_decode(document);
  memset((uint8_t *)bson_get_data(document), 0xAA, document->len);
  bson_destroy(document);
  char text[ID_TEXT_SIZE];
  bson_t view;
  id_text(&event->key.event_id, text);
  check_text("id", text, "e1");
  check_that("payload", bson_has_field(event_payload(event, &view), "a"), "it has its field");
}

static const struct {
  const char *version;
  int64_t expected; /* -1: refused */
  const char *found;
} version_cases[] = {
    {"null", 0, NULL},
    {"1", 1, NULL},
    {"2147483647", 2147483647, NULL},
    {"{'$numberLong': '1'}", 1, NULL},
    {"{'$numberLong': '9223372036854775807'}", INT64_MAX, NULL},
    {"{'$numberDouble': '1'}", 1, NULL},
    {"{'$numberDouble': '9007199254740992'}", INT64_C(9007199254740992), NULL},
    {"0", -1, "int32 0"},
    {"-1", -1, "int32 -1"},
    {"{'$numberLong': '-9223372036854775808'}", -1, "int64 -9223372036854775808"},
    {"{'$numberDouble': '0'}", -1, "double 0"},
    {"{'$numberDouble': '1.5'}", -1, "double 1.5"},
    {"{'$numberDouble': '0.5'}", -1, "double 0.5"},
    {"{'$numberDouble': '-3'}", -1, "double -3"},
    {"{'$numberDouble': '9007199254740994'}", -1, "double 9007199254740994"},
    {"{'$numberDouble': '1e300'}", -1, "double 1.0000000000000001e+300"},
    {"{'$numberDouble': 'NaN'}", -1, "double nan"},
    {"{'$numberDouble': 'Infinity'}", -1, "double inf"},
    {"{'$numberDecimal': '1'}", -1, "Decimal128 1"},
    {"'1'", -1, "string of 1 bytes \"1\""},
    {"true", -1, "bool true"},
    {"[1]", -1, "array \"[ 1 ]\""},
};

static void test_versions(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(version_cases); i++) {
    g_autofree char *json =
        g_strdup_printf("{" ALL_BUT_VERSION ", 'version': %s}", version_cases[i].version);
    g_autoptr(Event) event = event_from(json);
    bool good = version_cases[i].expected >= 0;
    g_autofree char *message = good ? g_strdup("")
                                    : g_strdup_printf("version: expected an int64 from 1, found %s",
                                                      version_cases[i].found);
    check_text(version_cases[i].version, event->malformed ? event->malformed->message : "",
               message);
    check_number(version_cases[i].version, event->key.version,
                 good ? version_cases[i].expected : 0);
  }
}

static Event *event_with_text(const char *field, const char *bytes) {
  g_autoptr(bson_t) good = document_from("{" ALL_BUT_VERSION "}");
  g_autoptr(bson_t) document = bson_new();
  bson_copy_to_excluding_noinit(good, document, field, NULL);
  bson_append_utf8(document, field, -1, bytes, (int)strlen(bytes));
  return event_decode(document);
}

static void test_texts_must_be_utf8(void **state) {
  (void)state;
  static const char *const fields[] = {"_id", "aggregate_type", "aggregate_id", "event_type"};
  static const char *const broken[] = {"\xff", "a\xc3", "x\xc0\x80", "\xed\xa0\x80"};
  for (size_t i = 0; i < COUNT_OF(fields) * COUNT_OF(broken); i++) {
    const char *field = fields[i / COUNT_OF(broken)];
    g_autoptr(Event) event = event_with_text(field, broken[i % COUNT_OF(broken)]);
    check_that(field, event->malformed != NULL, "it is refused");
    check_that(field, g_str_has_prefix(event->malformed->message, field), "the message names it");
    check_that(field, strstr(event->malformed->message, "UTF-8") != NULL, "the message says why");
  }
  for (size_t i = 0; i < COUNT_OF(fields); i++) {
    g_autoptr(Event) event = event_with_text(fields[i], "\xf0\x9f\x92\xb6 \xc3\xa4'\"\\");
    check_that(fields[i], !event->malformed, "any UTF-8 will do");
  }
}

/* An event with a wrong id can still be addressed in MongoDB, to be marked or repaired. */
static void test_wrong_ids_stay_addressable(void **state) {
  (void)state;
  static const char *const ids[] = {"5",  "{'a': [1, 2]}",  "null",
                                    "''", "'" TEXT_64 "x'", UUID("03")};
  for (size_t i = 0; i < COUNT_OF(ids); i++) {
    g_autofree char *json =
        g_strdup_printf("{'_id': %s," TYPE AGGREGATE NAME TIME PAYLOAD "}", ids[i]);
    g_autofree char *id_json = g_strdup_printf("{'q': %s}", ids[i]);
    g_autoptr(Event) event = event_from(json);
    g_autoptr(bson_t) expected = document_from(id_json);
    g_autoptr(bson_t) query = bson_new();
    event_append_id(event, query, "q");
    check_that(ids[i], bson_equal(query, expected), "the query has the document's own _id");
    check_number(ids[i], event->key.event_id.kind, ID_OTHER);
  }
}

/* What `list` shows, `skip` takes. An int is found as the number that any text of digits may be. */
static void test_wrong_ids_have_a_text(void **state) {
  (void)state;
  static const struct {
    const char *id, *text;
  } cases[] = {
      {"1.5", "1.5"},
      {"null", "null"},
      {"true", "true"},
      {"{'a': 'x: }'}", "{ \"a\" : \"x: }\" }"},
      {"'" TEXT_64 "x'", "\"" TEXT_64 "x\""},
      {"{'$date': {'$numberLong': '0'}}", "{ \"$date\" : \"1970-01-01T00:00:00Z\" }"},
      {"{'$numberDecimal': '1.50'}", "{ \"$numberDecimal\" : \"1.50\" }"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json =
        g_strdup_printf("{'_id': %s," TYPE AGGREGATE NAME TIME PAYLOAD "}", cases[i].id);
    g_autofree char *value_json = g_strdup_printf("{'': %s}", cases[i].id);
    g_autoptr(Event) event = event_from(json);
    g_autoptr(bson_t) expected = document_from(value_json);
    char text[ID_TEXT_SIZE];
    size_t length = id_text(&event->key.event_id, text);
    check_text(cases[i].id, text, cases[i].text);
    check_number(cases[i].id, (int64_t)length, (int64_t)strlen(text));
    g_autoptr(bson_t) read = id_other_from_text(text);
    check_that(cases[i].id, read && bson_equal(read, expected), "its text is read");
  }
  g_autoptr(Event) five = event_from("{'_id': 5}"), none = event_from("{'x': 5}");
  char text[ID_TEXT_SIZE];
  id_text(&five->key.event_id, text);
  check_text("5", text, "5");
  id_text(&none->key.event_id, text);
  check_text("none", text, "(not a valid id)");
}

static void test_a_long_wrong_id_is_cut_in_texts(void **state) {
  (void)state;
  for (unsigned length = 200; length < 300; length++) {
    g_autoptr(GString) json = g_string_new("{'_id': {'': '");
    for (unsigned i = 0; i < length; i++)
      g_string_append(json, "ä");
    g_string_append_printf(json, "'}}");
    g_autoptr(Event) event = event_from(json->str);
    char text[ID_TEXT_SIZE];
    id_text(&event->key.event_id, text);
    check_that("cut", g_utf8_validate(text, -1, NULL), "no half a character");
    check_that("cut", g_str_has_suffix(text, "ä…"), "it ends with …");
    g_autofree char *whole = id_other_json(&event->key.event_id);
    check_that("cut", strlen(whole) > 2 * length, "the whole is there for machines");
  }
}

static void test_what_names_no_wrong_id(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "e-1",
      "'e'",
      "\"e\"",
      "5",
      "[1]",
      "1.5, \"x\": 1",
      "1.5}",
      "{\"$gt\": 0}",
      "{\"a\": 1, \"$gt\": 0}",
      "{\"$undefined\": true}",
      "{\"$oid\": \"0123456789abcdef01234567\"}",
      "{\"$regularExpression\": {\"pattern\": \".\", \"options\": \"\"}}"};
  for (size_t i = 0; i < COUNT_OF(texts); i++)
    check_that(texts[i], !id_other_from_text(texts[i]), "it is no _id that breaks the contract");
}

static void test_wrong_ids_differ(void **state) {
  (void)state;
  g_autoptr(Event) five = event_from("{'_id': 5}"), six = event_from("{'_id': 6}");
  check_that("5 and 6", !id_equal(&five->key.event_id, &six->key.event_id), "they are two events");
  check_that("5 and 6", id_compare(&five->key.event_id, &six->key.event_id) != 0, "they differ");
}

/* BSON allows a field twice; such a document must neither leak nor crash. */
static void test_fields_that_come_twice(void **state) {
  (void)state;
  g_autoptr(bson_t) document = bson_new();
  for (int i = 0; i < 3; i++) {
    BSON_APPEND_INT32(document, "_id", i);
    BSON_APPEND_INT32(document, "payload", i);
    BSON_APPEND_UTF8(document, "aggregate_type", "t");
  }
  BSON_APPEND_UTF8(document, "_id", "good");
  g_autoptr(Event) event = event_decode(document);
  check_text("_id", event->malformed->message, EVENT_ID_RULE "int32 0");
  check_number("_id", event->key.event_id.kind, ID_OTHER);
}

static void test_malformed_event_with_an_aggregate(void **state) {
  (void)state;
  g_autoptr(Event) no_payload = event_from("{" ID TYPE AGGREGATE NAME TIME "'x': 1}");
  g_autoptr(Event) no_type = event_from("{" ID AGGREGATE NAME TIME PAYLOAD "}");
  g_autoptr(Event) no_id = event_from("{" ID TYPE NAME TIME PAYLOAD "}");
  check_that("no payload", event_has_aggregate(no_payload), "its aggregate waits behind it");
  check_that("no aggregate_type", !event_has_aggregate(no_type), "it blocks nobody");
  check_that("no aggregate_id", !event_has_aggregate(no_id), "it blocks nobody");
}

/* --- ids ------------------------------------------------------------------------------------- */

/* In the order of `db.c.find().sort({_id: 1})`: numbers, strings, binary, ObjectId; strings byte by
 * byte, the shorter of two first. */
static const char *const ids_in_order[] = {
    "{'$numberLong': '-9223372036854775808'}",
    "-5",
    "0",
    "{'$numberLong': '1'}",
    "2",
    "10",
    "{'$numberLong': '9223372036854775807'}",
    "''",
    "'\\u0000'",
    "'\\u0000a'",
    "'10'",
    "'2'",
    "'A'",
    "'a'",
    "'a\\u0000'",
    "'aa'",
    "'ab'",
    "'b'",
    "'\xc3\xa4'",
    "'\xef\xbf\xbd'",
    "'\xf0\x9f\x92\xb6'", /* UTF-16 order would put this before the one above */
    "{'$binary': {'base64': 'AAAAAAAAAAAAAAAAAAAAAA==', 'subType': '04'}}",
    "{'$binary': {'base64': 'AAAAAAAAAAAAAAAAAAAAAQ==', 'subType': '04'}}",
    "{'$binary': {'base64': 'fwAAAAAAAAAAAAAAAAAAAA==', 'subType': '04'}}",
    "{'$binary': {'base64': '/wAAAAAAAAAAAAAAAAAAAA==', 'subType': '04'}}",
    "{'$oid': '000000000000000000000000'}",
    "{'$oid': '7fffffffffffffffffffffff'}",
    "{'$oid': 'ffffffffffffffffffffffff'}",
};

static Id id_of(const bson_t *document) {
  bson_iter_t iter;
  Id id = {0};
  check_that("id", bson_iter_init_find(&iter, document, "id") && id_from_iter(&iter, &id),
             "it can be read");
  return id;
}

static int sign(int number) {
  return (number > 0) - (number < 0);
}

static void test_id_order(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(ids_in_order); i++)
    for (size_t j = 0; j < COUNT_OF(ids_in_order); j++) {
      g_autofree char *x_json = g_strdup_printf("{'id': %s}", ids_in_order[i]);
      g_autofree char *y_json = g_strdup_printf("{'id': %s}", ids_in_order[j]);
      g_autofree char *name = g_strdup_printf("%s and %s", ids_in_order[i], ids_in_order[j]);
      g_autoptr(bson_t) x_document = document_from(x_json), y_document = document_from(y_json);
      Id x = id_of(x_document), y = id_of(y_document);
      check_number(name, sign(id_compare(&x, &y)), i < j ? -1 : i > j);
      check_number(name, id_equal(&x, &y), i == j);
      if (i == j)
        check_number(name, id_hash_key(&x), id_hash_key(&y));
    }
}

static void test_id_texts(void **state) {
  (void)state;
  static const struct {
    const char *id, *text, *kind;
  } cases[] = {
      {"5", "5", "int"},
      {"{'$numberLong': '-9223372036854775808'}", "-9223372036854775808", "int"},
      {"'acc-1'", "acc-1", "string"},
      {"''", "", "string"},
      {"'" TEXT_255 "'", TEXT_255, "string"},
      {"'" TEXT_255 "xyz'", TEXT_255, "string"},
      {UUID("04"), "00112233-4455-6677-8899-aabbccddeeff", "uuid"},
      {OID, "0123456789abcdef01234567", "objectid"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'id': %s}", cases[i].id);
    g_autoptr(bson_t) document = document_from(json);
    Id id = id_of(document);
    char text[ID_TEXT_SIZE];
    size_t length = id_text(&id, text);
    check_text(cases[i].id, text, cases[i].text);
    check_number(cases[i].id, (int64_t)length, (int64_t)strlen(text));
    check_text(cases[i].id, id_kind_name(id.kind), cases[i].kind);
  }
}

static void test_ids_that_a_person_types(void **state) {
  (void)state;
  static const struct {
    const char *text, *kinds, *as_text; /* of the last one */
  } cases[] = {
      {"acc-1", "string", "acc-1"},
      {"", "string", ""},
      {"5", "string int", "5"},
      {"0", "string int", "0"},
      {"007", "string", "007"},
      {"+5", "string", "+5"},
      {"-0", "string", "-0"},
      {"-9223372036854775808", "string int", "-9223372036854775808"},
      {"9223372036854775808", "string", "9223372036854775808"},
      {"00112233-4455-6677-8899-AABBccddeeff", "string uuid",
       "00112233-4455-6677-8899-aabbccddeeff"},
      {"00112233-4455-6677-8899-aabbccddeefg", "string", "00112233-4455-6677-8899-aabbccddeefg"},
      {"0011223g-4455-6677-8899-aabbccddeeff", "string", "0011223g-4455-6677-8899-aabbccddeeff"},
      {"00112233-445g-6677-8899-aabbccddeeff", "string", "00112233-445g-6677-8899-aabbccddeeff"},
      {"00112233-4455-667g-8899-aabbccddeeff", "string", "00112233-4455-667g-8899-aabbccddeeff"},
      {"00112233-4455-6677-889g-aabbccddeeff", "string", "00112233-4455-6677-889g-aabbccddeeff"},
      {"00112233-4455x6677-8899-aabbccddeeff", "string", "00112233-4455x6677-8899-aabbccddeeff"},
      {"00112233-4455-6677x8899-aabbccddeeff", "string", "00112233-4455-6677x8899-aabbccddeeff"},
      {"00112233-4455-6677-8899xaabbccddeeff", "string", "00112233-4455-6677-8899xaabbccddeeff"},
      {"0123456789abcdef0123456x", "string", "0123456789abcdef0123456x"},
      {"00112233445566778899aabbccddeeff", "string", "00112233445566778899aabbccddeeff"},
      {"0123456789ABCDEF01234567", "string objectid", "0123456789abcdef01234567"},
      {"012345678901234567890123", "string objectid", "012345678901234567890123"},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    const char *text = cases[i].text;
    uint8_t bytes[16];
    Id ids[IDS_OF_TEXT];
    char last[ID_TEXT_SIZE];
    g_autoptr(GString) kinds = g_string_new(NULL);
    unsigned count = ids_from_text(text, strlen(text), bytes, ids);
    for (unsigned k = 0; k < count; k++)
      g_string_append_printf(kinds, "%s%s", k ? " " : "", id_kind_name(ids[k].kind));
    check_text(text, kinds->str, cases[i].kinds);
    id_text(&ids[count - 1], last);
    check_text(text, last, cases[i].as_text);
  }
}

static void test_ids_as_bson(void **state) {
  (void)state;
  static const struct {
    const char *id, *back;
  } cases[] = {
      {"5", "{'$numberLong': '5'}"}, /* one type for both integers */
      {"{'$numberLong': '5'}", "{'$numberLong': '5'}"},
      {"'a\\u0000b'", "'a\\u0000b'"},
      {"''", "''"},
      {UUID("04"), UUID("04")},
      {OID, OID},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *json = g_strdup_printf("{'id': %s}", cases[i].id);
    g_autofree char *back_json = g_strdup_printf("{'id': %s}", cases[i].back);
    g_autoptr(bson_t) document = document_from(json), expected = document_from(back_json);
    g_autoptr(bson_t) found = bson_new();
    Id id = id_of(document);
    id_append_bson(&id, found, "id");
    check_that(cases[i].id, bson_equal(found, expected), "it comes back");
  }
}

/* --- aggregates and order -------------------------------------------------------------------- */

static void test_aggregates(void **state) {
  (void)state;
  static const char *const in_order[] = {"'aggregate_type': 'a', 'aggregate_id': 5",
                                         "'aggregate_type': 'a', 'aggregate_id': 6",
                                         "'aggregate_type': 'a', 'aggregate_id': '5'",
                                         "'aggregate_type': 'a', 'aggregate_id': 'bc'",
                                         ("'aggregate_type': 'a', 'aggregate_id': " UUID("04")),
                                         "'aggregate_type': 'ab', 'aggregate_id': 'c'",
                                         "'aggregate_type': 'b', 'aggregate_id': 5"};
  for (size_t i = 0; i < COUNT_OF(in_order); i++)
    for (size_t j = 0; j < COUNT_OF(in_order); j++) {
      g_autofree char *x_json = g_strdup_printf("{'_id': 'e', %s}", in_order[i]);
      g_autofree char *y_json = g_strdup_printf("{'_id': 'f', %s}", in_order[j]);
      g_autoptr(Event) x = event_from(x_json), y = event_from(y_json);
      g_autofree Aggregate *copy = aggregate_copy(&y->aggregate);
      check_number(in_order[i], aggregate_equal(&x->aggregate, copy), i == j);
      check_number(in_order[i], sign(aggregate_compare(&x->aggregate, copy)), i < j ? -1 : i > j);
      check_number(in_order[i], x->aggregate_hash == aggregate_hash(copy), i == j);
    }
  g_autoptr(Event) small = event_from("{'_id': 'e', 'aggregate_type': 'a', 'aggregate_id': 5}");
  g_autoptr(Event) large =
      event_from("{'_id': 'e', 'aggregate_type': 'a', 'aggregate_id': {'$numberLong': '5'}}");
  check_that("int32 and int64", aggregate_equal(&small->aggregate, &large->aggregate),
             "they are one aggregate");
  check_number("int32 and int64", (int64_t)small->aggregate_hash, (int64_t)large->aggregate_hash);
}

static void test_order_keys(void **state) {
  (void)state;
  const Id a = {.kind = ID_STRING, .length = 1, .bytes = (const uint8_t *)"a"};
  const Id b = {.kind = ID_STRING, .length = 1, .bytes = (const uint8_t *)"b"};
  const OrderKey in_order[] = {
      {INT64_MIN, 0, b}, {-1, 9, b}, {0, 0, a}, {0, 0, b},         {0, 1, a},
      {0, 1, b},         {0, 2, a},  {1, 0, a}, {1, INT64_MAX, a}, {INT64_MAX, 0, a},
  };
  for (size_t i = 0; i < COUNT_OF(in_order); i++)
    for (size_t j = 0; j < COUNT_OF(in_order); j++)
      check_number("order", sign(order_key_compare(&in_order[i], &in_order[j])),
                   i < j ? -1 : i > j);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_contract),
      cmocka_unit_test(test_good_event),
      cmocka_unit_test(test_event_outlives_its_document),
      cmocka_unit_test(test_versions),
      cmocka_unit_test(test_texts_must_be_utf8),
      cmocka_unit_test(test_wrong_ids_stay_addressable),
      cmocka_unit_test(test_wrong_ids_have_a_text),
      cmocka_unit_test(test_a_long_wrong_id_is_cut_in_texts),
      cmocka_unit_test(test_what_names_no_wrong_id),
      cmocka_unit_test(test_wrong_ids_differ),
      cmocka_unit_test(test_fields_that_come_twice),
      cmocka_unit_test(test_malformed_event_with_an_aggregate),
      cmocka_unit_test(test_id_order),
      cmocka_unit_test(test_id_texts),
      cmocka_unit_test(test_ids_that_a_person_types),
      cmocka_unit_test(test_ids_as_bson),
      cmocka_unit_test(test_aggregates),
      cmocka_unit_test(test_order_keys),
  };
  return RUN_TESTS(tests);
}

// The event contract: what is accepted, how it is written, and the rule for occurred_at.
#include "outbox/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N1000                                                                                      \
  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"   \
  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"   \
  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const uint8_t UUID[16] = {0x01, 0x90, 0xa0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x01};

static bson_value_t text_of(const char *text, uint32_t length) {
  bson_value_t value = {.value_type = BSON_TYPE_UTF8};
  value.value.v_utf8.str = (char *)text;
  value.value.v_utf8.len = length;
  return value;
}

static bson_value_t binary_of(bson_subtype_t subtype, uint32_t length) {
  bson_value_t value = outbox_id_uuid(UUID);
  value.value.v_binary.subtype = subtype;
  value.value.v_binary.data_len = length;
  return value;
}

static void test_occurred_at(void **unused) {
  (void)unused;
  static const struct {
    int64_t now, last, expected;
  } cases[] = {
      {1000, 999, 1000},
      {1000, 1000, 1001},
      {1000, 1001, 1002},
      {1000, 0, 1000},
      {1000, -5, 1000},
      {-10, -20, -10},
      {-10, -10, -9},
      {1000, 9999999, 10000000},
      {INT64_MAX, INT64_MAX, INT64_MAX},
      {0, INT64_MAX, INT64_MAX},
      {1000, INT64_MIN, 1000},
  };
  assert_int_equal(outbox_occurred_at(1000, NULL), 1000);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(outbox_occurred_at(cases[i].now, &cases[i].last), cases[i].expected);
  }
}

// Two writers whose clocks differ by two seconds: the times of one entity still rise.
static void test_occurred_at_rises_under_skew(void **unused) {
  (void)unused;
  int64_t last = 0;
  for (int i = 0; i < 1000; i++) {
    int64_t now = 100000 + i + (i % 3 ? 0 : 2000);
    int64_t next = outbox_occurred_at(now, &last);
    assert_true(next > last && next >= now);
    last = next;
  }
}

static outbox_event_t good_event(const bson_value_t *aggregate_id, const bson_t *payload) {
  return (outbox_event_t){.aggregate_type = "account",
                          .aggregate_id = aggregate_id,
                          .event_type = "AccountOpened",
                          .payload = payload};
}

static void test_types_of_ids(void **unused) {
  (void)unused;
  bson_value_t oid = {.value_type = BSON_TYPE_OID};
  bson_value_t int32 = {.value_type = BSON_TYPE_INT32};
  bson_value_t real = {.value_type = BSON_TYPE_DOUBLE};
  bson_value_t null = {.value_type = BSON_TYPE_NULL};
  const struct {
    bson_value_t value;
    bool as_event_id, as_aggregate_id;
  } cases[] = {
      {text_of("a", 1), true, true},
      {text_of("", 0), false, false},
      {text_of(N1000, 64), true, true},
      {text_of(N1000, 65), false, true},
      {text_of(N1000, 255), false, true},
      {text_of(N1000, 256), false, false},
      {text_of("a\0b", 3), false, false},
      {text_of("\xff\xfe", 2), false, false},
      {text_of("\xc3", 1), false, false},
      {text_of("'; DROP TABLE x; --", 19), true, true},
      {text_of("\xf0\x9f\x9a\x80", 4), true, true},
      {outbox_id_uuid(UUID), true, true},
      {binary_of(BSON_SUBTYPE_UUID, 15), false, false},
      {binary_of(BSON_SUBTYPE_UUID_DEPRECATED, 16), false, false},
      {binary_of(BSON_SUBTYPE_BINARY, 16), false, false},
      {oid, true, true},
      {int32, false, true},
      {outbox_id_int64(INT64_MIN), false, true},
      {real, false, false},
      {null, false, false},
  };
  bson_t payload = BSON_INITIALIZER;
  bson_value_t good = outbox_id_string("acc-1");
  outbox_error_t error;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    outbox_event_t event = good_event(&cases[i].value, &payload);
    assert_int_equal(outbox_event_validate(&event, &error), cases[i].as_aggregate_id);
    if (!cases[i].as_aggregate_id) {
      assert_int_equal(error.kind, OUTBOX_INVALID);
      assert_memory_equal(error.message, "aggregate_id: ", 14);
    }
    event = good_event(&good, &payload);
    event.id = &cases[i].value;
    assert_int_equal(outbox_event_validate(&event, &error), cases[i].as_event_id);
    if (!cases[i].as_event_id) {
      assert_memory_equal(error.message, "_id: ", 5);
    }
  }
}

static void test_other_fields(void **unused) {
  (void)unused;
  bson_t payload = BSON_INITIALIZER;
  bson_value_t id = outbox_id_string("acc-1");
  char type[130];
  memset(type, 'x', sizeof type);
  type[128] = '\0';
  outbox_event_t event = good_event(&id, &payload);
  outbox_error_t error;
  assert_true(outbox_event_validate(&event, NULL));
  event.aggregate_type = type;
  assert_true(outbox_event_validate(&event, NULL));
  type[128] = 'x';
  type[129] = '\0';
  assert_false(outbox_event_validate(&event, &error));
  assert_string_equal(error.message, "aggregate_type: expected 1 to 128 bytes, found 129");
  event = good_event(&id, &payload);
  event.event_type = "";
  assert_false(outbox_event_validate(&event, &error));
  assert_string_equal(error.message, "event_type: expected 1 to 128 bytes, found 0");
  event.event_type = NULL;
  assert_false(outbox_event_validate(&event, &error));
  event.event_type = "\xed\xa0\x80"; // a surrogate
  assert_false(outbox_event_validate(&event, &error));
  event = good_event(&id, NULL);
  assert_false(outbox_event_validate(&event, &error));
  assert_string_equal(error.message, "payload: expected a document, found nothing");
  event = good_event(NULL, &payload);
  assert_false(outbox_event_validate(&event, &error));
  event = good_event(&id, &payload);
  event.version = -1;
  assert_false(outbox_event_validate(&event, &error));
}

// An event that the projector would refuse must not get into the outbox, where it blocks its
// aggregate.
static void test_times_that_mysql_has(void **unused) {
  (void)unused;
  static const struct {
    int64_t ms;
    bool good;
  } cases[] = {
      {INT64_MIN, false},      {-30610224000001, false}, {-30610224000000, true}, {0, true},
      {253402300799999, true}, {253402300800000, false}, {INT64_MAX, false},
  };
  bson_t payload = BSON_INITIALIZER;
  bson_value_t id = outbox_id_string("acc-1");
  outbox_error_t error;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    outbox_event_t event = good_event(&id, &payload);
    event.occurred_at_ms = &cases[i].ms;
    assert_int_equal(outbox_event_validate(&event, &error), cases[i].good);
    if (!cases[i].good) {
      assert_int_equal(error.kind, OUTBOX_INVALID);
      assert_string_equal(error.message,
                          "occurred_at: expected a date from year 1000 to 9999, found one outside");
    }
  }
}

static void assert_document(const outbox_event_t *event, const bson_value_t *id, int64_t version,
                            const char *expected) {
  bson_t document;
  assert_true(outbox_event_document(event, id, version, 1700000000123, &document, NULL));
  char *json = bson_as_canonical_extended_json(&document, NULL);
  assert_string_equal(json, expected);
  bson_free(json);
  bson_destroy(&document);
}

static void test_document(void **unused) {
  (void)unused;
  bson_t *payload = BCON_NEW("", BCON_INT64(5));
  bson_t *metadata = BCON_NEW("tenant", "t");
  bson_value_t aggregate_id = outbox_id_int64(7);
  bson_value_t id = outbox_id_uuid(UUID);
  outbox_event_t event = good_event(&aggregate_id, payload);
  event.metadata = metadata;
  assert_document(
      &event, &id, 3,
      "{ \"_id\" : { \"$binary\" : { \"base64\" : \"AZCgAAAAcACAAAAAAAAAAQ==\", \"subType\" : "
      "\"04\" } }, \"aggregate_type\" : \"account\", \"aggregate_id\" : { \"$numberLong\" : \"7\" "
      "}, \"version\" : { \"$numberLong\" : \"3\" }, \"event_type\" : \"AccountOpened\", "
      "\"occurred_at\" : { \"$date\" : { \"$numberLong\" : \"1700000000123\" } }, \"payload\" : { "
      "\"\" : { \"$numberLong\" : \"5\" } }, \"metadata\" : { \"tenant\" : \"t\" }, \"status\" : "
      "\"pending\" }");
  bson_value_t text = outbox_id_string("e-1");
  event.metadata = NULL;
  assert_document(
      &event, &text, 0,
      "{ \"_id\" : \"e-1\", \"aggregate_type\" : \"account\", \"aggregate_id\" : { "
      "\"$numberLong\" : \"7\" }, \"event_type\" : \"AccountOpened\", \"occurred_at\" : "
      "{ \"$date\" : { \"$numberLong\" : \"1700000000123\" } }, \"payload\" : { \"\" : "
      "{ \"$numberLong\" : \"5\" } }, \"status\" : \"pending\" }");
  bson_destroy(payload);
  bson_destroy(metadata);
}

static void test_too_large(void **unused) {
  (void)unused;
  char *text = calloc(1, OUTBOX_EVENT_MAX_BYTES);
  assert_non_null(text);
  memset(text, 'x', OUTBOX_EVENT_MAX_BYTES - 1);
  bson_t payload = BSON_INITIALIZER;
  bson_t document = BSON_INITIALIZER;
  outbox_error_t error;
  assert_true(BSON_APPEND_UTF8(&payload, "text", text));
  bson_value_t id = outbox_id_string("acc-1");
  outbox_event_t event = good_event(&id, &payload);
  assert_false(outbox_event_document(&event, &id, 1, 0, &document, &error));
  assert_int_equal(error.kind, OUTBOX_INVALID);
  bson_destroy(&payload);
  bson_destroy(&document);
  free(text);
}

static void test_id_text(void **unused) {
  (void)unused;
  char text[OUTBOX_EVENT_ID_MAX_BYTES + 1];
  bson_value_t uuid = outbox_id_uuid(UUID);
  bson_value_t string = text_of(N1000, 64);
  bson_value_t oid = {.value_type = BSON_TYPE_OID};
  bson_oid_init_from_string(&oid.value.v_oid, "0190a00000007000800000aa");
  outbox_event_id_text(&uuid, text);
  assert_string_equal(text, "0190a000-0000-7000-8000-000000000001");
  outbox_event_id_text(&oid, text);
  assert_string_equal(text, "0190a00000007000800000aa");
  outbox_event_id_text(&string, text);
  assert_int_equal(strlen(text), 64);
}

static void test_update_operators(void **unused) {
  (void)unused;
  static const struct {
    const char *operators, *expected;
  } cases[] = {
      {NULL, "{ \"$inc\" : { \"version\" : 1 }, \"$max\" : { \"last_event_at\" : { \"$date\" : "
             "\"1970-01-01T00:00:00.005Z\" } } }"},
      {"{}", "{ \"$inc\" : { \"version\" : 1 }, \"$max\" : { \"last_event_at\" : { \"$date\" : "
             "\"1970-01-01T00:00:00.005Z\" } } }"},
      {"{\"$set\": {\"a\": 1}, \"$inc\": {\"b\": 2}}",
       "{ \"$set\" : { \"a\" : 1 }, \"$inc\" : { \"b\" : 2, \"version\" : 1 }, \"$max\" : { "
       "\"last_event_at\" : { \"$date\" : \"1970-01-01T00:00:00.005Z\" } } }"},
      {"{\"$max\": {\"a\": 1}}",
       "{ \"$max\" : { \"a\" : 1, \"last_event_at\" : { \"$date\" : \"1970-01-01T00:00:00.005Z\" } "
       "}, \"$inc\" : { \"version\" : 1 } }"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bson_t *operators = cases[i].operators
                            ? bson_new_from_json((const uint8_t *)cases[i].operators, -1, NULL)
                            : NULL;
    bson_t update;
    outbox_change_update(operators, 5, &update);
    char *json = bson_as_relaxed_extended_json(&update, NULL);
    assert_string_equal(json, cases[i].expected);
    bson_free(json);
    bson_destroy(&update);
    bson_destroy(operators);
  }
}

static void test_changes(void **unused) {
  (void)unused;
  static const struct {
    outbox_change_kind_t kind;
    const char *document, *message; // message NULL: good
  } cases[] = {
      {OUTBOX_UPDATE, NULL, NULL},
      {OUTBOX_UPDATE, "{}", NULL},
      {OUTBOX_UPDATE, "{\"$set\": {\"version_of_x\": 1, \"a.version\": 2}}", NULL},
      {OUTBOX_UPDATE, "{\"a\": 1}", "update.a: expected an update operator like $set"},
      {OUTBOX_UPDATE, "{\"$set\": 1}", "update.$set: expected a document"},
      {OUTBOX_UPDATE, "{\"$set\": {\"version\": 1}}",
       "update.$set.version: this field is set by liboutbox"},
      {OUTBOX_UPDATE, "{\"$unset\": {\"last_event_at\": \"\"}}",
       "update.$unset.last_event_at: this field is set by liboutbox"},
      {OUTBOX_UPDATE, "{\"$set\": {\"version.x\": 1}}",
       "update.$set.version.x: this field is set by liboutbox"},
      {OUTBOX_INSERT, "{\"a\": 1}", NULL},
      {OUTBOX_INSERT, NULL, "insert: expected a document, found nothing"},
      {OUTBOX_INSERT, "{\"_id\": 1}", "insert._id: this field is set by liboutbox"},
      {OUTBOX_REPLACE, "{}", NULL},
      {OUTBOX_REPLACE, "{\"version\": 1}", "replace.version: this field is set by liboutbox"},
      {OUTBOX_DELETE, NULL, NULL},
      {OUTBOX_DELETE, "{}", "delete: expected no document"},
      {(outbox_change_kind_t)9, NULL, "change: unknown kind 9"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bson_t *document =
        cases[i].document ? bson_new_from_json((const uint8_t *)cases[i].document, -1, NULL) : NULL;
    outbox_change_t change = {.collection = "c", .kind = cases[i].kind, .document = document};
    outbox_error_t error = {0};
    assert_int_equal(outbox_change_validate(&change, &error), cases[i].message == NULL);
    assert_string_equal(error.message, cases[i].message ? cases[i].message : "");
    bson_destroy(document);
  }
  assert_false(outbox_change_validate(&(outbox_change_t){.kind = OUTBOX_DELETE}, NULL));
  bson_t empty = BSON_INITIALIZER;
  assert_false(outbox_change_validate(
      &(outbox_change_t){
          .collection = "c", .kind = OUTBOX_INSERT, .document = &empty, .expected_version = 1},
      NULL));
}

// What lies there is read as events, tombstones and receipts.
static void test_no_entity_is_kept_where_the_library_keeps_its_own(void **unused) {
  (void)unused;
  static const char *const own[] = {"outbox",          "outbox_archive",   "outbox_deleted",
                                    "outbox_commands", "projector_claims", "projector_leases"};
  static const char *const others[] = {"accounts",       "outbox_search", "outbox2",
                                       "my_projector_x", "x_archive",     "projector_slides",
                                       "projector_"};
  bson_t document = BSON_INITIALIZER;
  bson_value_t id = outbox_id_string("acc-1");
  outbox_event_t event = good_event(&id, &document);
  outbox_change_t change = {.kind = OUTBOX_INSERT, .document = &document, .collection = "accounts"};
  outbox_t *outbox = outbox_new_from_client(NULL, &(outbox_options_t){.database = "bank"}, NULL);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    change.collection = others[i];
    assert_true(outbox_write_validate(outbox, &change, &event, NULL));
  }
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    outbox_error_t error;
    char expected[160];
    change.collection = own[i];
    assert_false(outbox_write_validate(outbox, &change, &event, &error));
    snprintf(
        expected, sizeof expected,
        "collection: expected one for entities, found %s, which belongs to the outbox or to the "
        "projector",
        own[i]);
    assert_string_equal(error.message, expected);
    assert_false(outbox_create_collection(outbox, own[i], &error));
    assert_string_equal(error.message, expected);
    assert_false(outbox_init_feed(outbox, own[i], &error));
    assert_int_equal(error.kind, OUTBOX_INVALID);
  }
  // Of the names that begin so the projector may take more one day: a feed, which is new, gets
  // none.
  outbox_error_t error;
  assert_false(outbox_init_feed(outbox, "projector_slides", &error));
  assert_string_equal(error.message,
                      "collection: expected one for a feed, found projector_slides; names that "
                      "begin with projector_ are kept for the projector's own collections");
  outbox_destroy(outbox);
}

// Also where the driver gives no label for it.
static void test_a_lost_connection_starts_the_transaction_again(void **unused) {
  (void)unused;
  static const struct {
    uint32_t domain;
    bool again;
  } cases[] = {
      {MONGOC_ERROR_STREAM, true},
      {MONGOC_ERROR_SERVER_SELECTION, true},
      {MONGOC_ERROR_SERVER, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bson_error_t cause = {.domain = cases[i].domain, .code = 13, .message = "no answer"};
    outbox_error_t error;
    outbox_fail_mongoc(&error, &cause, NULL, "update");
    assert_int_equal(error.transient, cases[i].again);
    bson_t *reply = outbox_error_reply(&error);
    assert_int_equal(mongoc_error_has_label(reply, "TransientTransactionError"), cases[i].again);
    bson_destroy(reply);
  }
}

static void test_what_a_server_cannot_do_now_is_no_refusal(void **unused) {
  (void)unused;
  static const struct {
    uint32_t code;
    outbox_error_kind_t kind;
  } cases[] = {
      {189, OUTBOX_UNAVAILABLE}, // PrimarySteppedDown
      {371, OUTBOX_UNAVAILABLE}, // UserWritesBlocked
      {121, OUTBOX_REFUSED},     // DocumentValidationFailure
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bson_error_t cause = {.domain = MONGOC_ERROR_SERVER, .code = cases[i].code, .message = "no"};
    outbox_error_t error;
    outbox_fail_mongoc(&error, &cause, NULL, "insert");
    assert_int_equal(error.kind, cases[i].kind);
  }
}

// The answer of long ago is not given again: the server, which is away here, is asked.
static void test_whether_receipts_are_kept_is_asked_again_after_ten_seconds(void **unused) {
  (void)unused;
  mongoc_init();
  mongoc_client_t *client = mongoc_client_new("mongodb://127.0.0.1:1/?connectTimeoutMS=100");
  outbox_t *outbox = outbox_new_from_client(client, &(outbox_options_t){.database = "bank"}, NULL);
  outbox_error_t error;
  bool kept = false;
  outbox->commands_asked = outbox_monotonic_ms() * 2 + 1;
  assert_true(outbox_commands_are_kept(outbox, client, &kept, &error));
  assert_true(kept);
  outbox->commands_asked = (outbox_monotonic_ms() - 10000) * 2 + 1;
  assert_false(outbox_commands_are_kept(outbox, client, &kept, &error));
  assert_int_equal(error.kind, OUTBOX_UNAVAILABLE);
  outbox_destroy(outbox);
  mongoc_client_destroy(client);
  mongoc_cleanup();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_occurred_at),
      cmocka_unit_test(test_occurred_at_rises_under_skew),
      cmocka_unit_test(test_types_of_ids),
      cmocka_unit_test(test_other_fields),
      cmocka_unit_test(test_times_that_mysql_has),
      cmocka_unit_test(test_document),
      cmocka_unit_test(test_too_large),
      cmocka_unit_test(test_id_text),
      cmocka_unit_test(test_update_operators),
      cmocka_unit_test(test_changes),
      cmocka_unit_test(test_no_entity_is_kept_where_the_library_keeps_its_own),
      cmocka_unit_test(test_a_lost_connection_starts_the_transaction_again),
      cmocka_unit_test(test_what_a_server_cannot_do_now_is_no_refusal),
      cmocka_unit_test(test_whether_receipts_are_kept_is_asked_again_after_ten_seconds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

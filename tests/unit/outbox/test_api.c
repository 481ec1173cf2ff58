// liboutbox on a real replica set: what only a program in C can ask of it.
// tests/system/test_outbox.py runs it as `test_outbox_api URI DATABASE`; the database is dropped by
// the caller.
#include "outbox/outbox.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *uri_text;
static outbox_options_t options;

static int64_t count(mongoc_client_t *client, const char *collection) {
  mongoc_collection_t *c = mongoc_client_get_collection(client, options.database, collection);
  bson_t all = BSON_INITIALIZER;
  bson_error_t cause;
  int64_t n = mongoc_collection_count_documents(c, &all, NULL, NULL, NULL, &cause);
  mongoc_collection_destroy(c);
  assert_true(n >= 0);
  return n;
}

static void drop(mongoc_client_t *client) {
  mongoc_database_t *database = mongoc_client_get_database(client, options.database);
  assert_true(mongoc_database_drop(database, NULL));
  mongoc_database_destroy(database);
}

// A client with the weakest write concern: the library's own must win.
static mongoc_client_t *new_client(void) {
  mongoc_uri_t *uri = mongoc_uri_new(uri_text);
  mongoc_write_concern_t *weakest = mongoc_write_concern_new();
  mongoc_write_concern_set_w(weakest, 1);
  mongoc_uri_set_write_concern(uri, weakest);
  mongoc_write_concern_destroy(weakest);
  mongoc_client_t *client = mongoc_client_new_from_uri(uri);
  mongoc_uri_destroy(uri);
  assert_non_null(client);
  return client;
}

static bool write_one(outbox_t *outbox, mongoc_client_session_t *session, outbox_change_kind_t kind,
                      const char *id, outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  bson_value_t aggregate_id = outbox_id_string(id);
  bson_t *document = kind == OUTBOX_INSERT   ? BCON_NEW("n", BCON_INT64(0))
                     : kind == OUTBOX_UPDATE ? BCON_NEW("$inc", "{", "n", BCON_INT64(1), "}")
                                             : NULL;
  bson_t payload = BSON_INITIALIZER;
  outbox_change_t change = {.collection = "things", .kind = kind, .document = document};
  outbox_event_t event = {.aggregate_type = "thing",
                          .aggregate_id = &aggregate_id,
                          .event_type = "ThingHappened",
                          .payload = &payload};
  bool good = session ? outbox_write_in(outbox, session, &change, &event, ret_receipt, error)
                      : outbox_write(outbox, &change, &event, ret_receipt, error);
  bson_destroy(document);
  return good;
}

static void test_several_entities_in_one_transaction(void **unused) {
  (void)unused;
  mongoc_client_t *client = new_client();
  outbox_t *outbox = outbox_new_from_client(client, &options, NULL);
  outbox_error_t error;
  outbox_receipt_t receipt;
  drop(client);
  assert_true(outbox_init(outbox, &error));
  assert_true(outbox_create_collection(outbox, "things", &error));
  for (int commits = 0; commits < 2; commits++) {
    mongoc_client_session_t *session = mongoc_client_start_session(client, NULL, NULL);
    assert_true(mongoc_client_session_start_transaction(session, NULL, NULL));
    assert_true(write_one(outbox, session, OUTBOX_INSERT, "one", &receipt, &error));
    assert_true(write_one(outbox, session, OUTBOX_INSERT, "two", NULL, NULL));
    assert_true(write_one(outbox, session, OUTBOX_UPDATE, "one", &receipt, &error));
    assert_int_equal(receipt.version, 2);
    bson_value_t id = outbox_id_int64(5);
    bson_t payload = BSON_INITIALIZER;
    outbox_event_t alone = {.aggregate_type = "job",
                            .aggregate_id = &id,
                            .event_type = "JobDone",
                            .payload = &payload,
                            .version = 9};
    assert_true(outbox_append(outbox, session, &alone, &receipt, &error));
    assert_int_equal(receipt.version, 9);
    bson_t reply;
    if (commits) {
      assert_true(mongoc_client_session_commit_transaction(session, &reply, NULL));
      bson_destroy(&reply);
    } else {
      assert_true(mongoc_client_session_abort_transaction(session, NULL));
    }
    mongoc_client_session_destroy(session);
    assert_int_equal(count(client, "outbox"), commits ? 4 : 0);
    assert_int_equal(count(client, "things"), commits ? 2 : 0);
  }
  outbox_destroy(outbox);
  mongoc_client_destroy(client);
}

// A command that is sent again succeeds inside a transaction of the caller's, which then has
// nothing else to store for it.
static void test_a_repeated_command_in_the_callers_transaction(void **unused) {
  (void)unused;
  mongoc_client_t *client = new_client();
  outbox_t *outbox = outbox_new_from_client(client, &options, NULL);
  bson_value_t id = outbox_id_string("command"), thing = outbox_id_string("one");
  bson_t payload = BSON_INITIALIZER;
  bson_t *raise = BCON_NEW("$inc", "{", "n", BCON_INT64(1), "}");
  outbox_change_t change = {.collection = "things", .kind = OUTBOX_UPDATE, .document = raise};
  outbox_event_t event = {.id = &id,
                          .aggregate_type = "thing",
                          .aggregate_id = &thing,
                          .event_type = "ThingHappened",
                          .payload = &payload};
  outbox_error_t error;
  outbox_receipt_t first, again;
  assert_true(outbox_write(outbox, &change, &event, &first, &error));
  assert_false(first.repeated);
  mongoc_client_session_t *session = mongoc_client_start_session(client, NULL, NULL);
  assert_true(mongoc_client_session_start_transaction(session, NULL, NULL));
  assert_true(outbox_write_in(outbox, session, &change, &event, &again, &error));
  assert_true(again.repeated);
  assert_int_equal(again.version, first.version);
  assert_int_equal(again.occurred_at_ms, first.occurred_at_ms);
  // The transaction is still good: a repeat is no error to the server.
  assert_true(write_one(outbox, session, OUTBOX_UPDATE, "two", NULL, &error));
  assert_true(mongoc_client_session_commit_transaction(session, NULL, NULL));
  mongoc_client_session_destroy(session);
  event.event_type = "OtherHappened";
  assert_false(outbox_write(outbox, &change, &event, NULL, &error));
  assert_int_equal(error.kind, OUTBOX_INVALID);
  bson_destroy(raise);
  outbox_destroy(outbox);
  mongoc_client_destroy(client);
}

// The id of an event that failed to be stored has not been used up, and a known one is answered as
// such.
static void test_errors_are_values(void **unused) {
  (void)unused;
  mongoc_client_t *client = new_client();
  outbox_t *outbox = outbox_new_from_client(client, &options, NULL);
  outbox_error_t error;
  outbox_receipt_t receipt;
  memset(&receipt, 0x5a, sizeof receipt);
  outbox_receipt_t untouched = receipt;
  assert_false(write_one(outbox, NULL, OUTBOX_UPDATE, "nobody", &receipt, &error));
  assert_int_equal(error.kind, OUTBOX_MISSING);
  assert_false(error.transient);
  assert_memory_equal(&receipt, &untouched, sizeof receipt);
  assert_false(write_one(outbox, NULL, OUTBOX_INSERT, "one", &receipt, &error));
  assert_int_equal(error.kind, OUTBOX_EXISTS);
  assert_false(write_one(outbox, NULL, OUTBOX_UPDATE, "nobody", NULL, NULL));
  outbox_destroy(outbox);
  mongoc_client_destroy(client);

  assert_null(outbox_new("mongodb://user:secret@", &options, &error));
  assert_int_equal(error.kind, OUTBOX_INVALID);
  assert_null(strstr(error.message, "secret"));
  assert_null(outbox_new(uri_text, &(outbox_options_t){0}, &error));
  assert_string_equal(error.message, "database: expected a name, found nothing");
  outbox_destroy(NULL);
}

enum { THREADS = 8, PER_THREAD = 50 };

static void *hammer(void *data) {
  outbox_t *outbox = data;
  for (int i = 0; i < PER_THREAD; i++) {
    outbox_error_t error;
    if (!write_one(outbox, NULL, OUTBOX_UPDATE, "hot", NULL, &error)) {
      fprintf(stderr, "%s\n", error.message);
      return data;
    }
  }
  return NULL;
}

static void test_threads_on_one_entity(void **unused) {
  (void)unused;
  outbox_error_t error;
  outbox_t *outbox = outbox_new(uri_text, &options, &error);
  assert_non_null(outbox);
  assert_true(write_one(outbox, NULL, OUTBOX_INSERT, "hot", NULL, &error));
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, hammer, outbox), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    assert_null(failed);
  }
  outbox_destroy(outbox);

  mongoc_client_t *client = new_client();
  mongoc_collection_t *events = mongoc_client_get_collection(client, options.database, "outbox");
  bson_t *query = BCON_NEW("aggregate_id", "hot");
  bson_t *by_time = BCON_NEW("sort", "{", "occurred_at", BCON_INT32(1), "}");
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(events, query, by_time, NULL);
  const bson_t *event;
  int64_t version = 0;
  int64_t last_ms = 0;
  while (mongoc_cursor_next(cursor, &event)) {
    bson_iter_t iter;
    assert_true(bson_iter_init_find(&iter, event, "version"));
    assert_int_equal(bson_iter_int64(&iter), ++version);
    assert_true(bson_iter_init_find(&iter, event, "occurred_at"));
    assert_true(bson_iter_date_time(&iter) > last_ms);
    last_ms = bson_iter_date_time(&iter);
  }
  assert_int_equal(version, 1 + THREADS * PER_THREAD);
  mongoc_cursor_destroy(cursor);
  mongoc_collection_destroy(events);
  bson_destroy(query);
  bson_destroy(by_time);
  mongoc_client_destroy(client);
}

static void set_fault(mongoc_client_t *client, const char *mode, const bson_t *fault) {
  bson_t data = BSON_INITIALIZER;
  assert_true(bson_concat(&data, fault));
  BCON_APPEND(&data, "failCommands", "[", "insert", "]", "appName", BCON_UTF8(options.database));
  bson_t *command = BCON_NEW("configureFailPoint", "failCommand", "mode", BCON_UTF8(mode), "data",
                             BCON_DOCUMENT(&data));
  assert_true(mongoc_client_command_simple(client, "admin", command, NULL, NULL, NULL));
  bson_destroy(command);
  bson_destroy(&data);
}

static outbox_error_kind_t append_with(mongoc_client_t *client, const char *fault_text) {
  bson_value_t aggregate_id = outbox_id_string("one");
  bson_t payload = BSON_INITIALIZER;
  outbox_event_t event = {.aggregate_type = "thing",
                          .aggregate_id = &aggregate_id,
                          .event_type = "ThingHappened",
                          .payload = &payload};
  outbox_options_t without_receipts = {.database = options.database, .outbox = "plain"};
  outbox_error_t error = {0};
  bson_t *fault = bson_new_from_json((const uint8_t *)fault_text, -1, NULL);
  mongoc_uri_t *uri = mongoc_uri_new(uri_text);
  assert_true(mongoc_uri_set_appname(uri, options.database));
  outbox_t *outbox = outbox_new_from_uri(uri, &without_receipts, NULL);
  set_fault(client, "alwaysOn", fault);
  outbox_append(outbox, NULL, &event, NULL, &error);
  set_fault(client, "off", fault);
  outbox_destroy(outbox);
  mongoc_uri_destroy(uri);
  bson_destroy(fault);
  return error.kind;
}

// Without receipts an event alone is inserted without a transaction. After any kind but
// OUTBOX_UNKNOWN its writer takes it for not stored.
static void test_an_insert_that_may_be_stored_is_unknown(void **unused) {
  (void)unused;
  mongoc_client_t *client = new_client();
  assert_int_equal(append_with(client, "{\"closeConnection\": true}"), OUTBOX_UNKNOWN);
  assert_int_equal(append_with(client, "{\"errorCode\": 10107}"), OUTBOX_UNKNOWN);
  assert_int_equal(append_with(client, "{\"errorCode\": 13}"), OUTBOX_REFUSED);
  assert_int_equal(count(client, "plain"), 0);
  assert_int_equal(
      append_with(client, "{\"writeConcernError\": {\"code\": 64, \"errmsg\": \"too slow\"}}"),
      OUTBOX_UNKNOWN);
  assert_int_equal(count(client, "plain"), 1);
  mongoc_client_destroy(client);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: test_outbox_api URI DATABASE\n");
    return 2;
  }
  uri_text = argv[1];
  options = (outbox_options_t){.database = argv[2]};
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_several_entities_in_one_transaction),
      cmocka_unit_test(test_a_repeated_command_in_the_callers_transaction),
      cmocka_unit_test(test_errors_are_values),
      cmocka_unit_test(test_threads_on_one_entity),
      cmocka_unit_test(test_an_insert_that_may_be_stored_is_unknown),
  };
  mongoc_init();
  mongoc_log_set_handler(NULL, NULL); // 1.23 warns of every transaction that it aborts
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  mongoc_cleanup();
  return failed;
}

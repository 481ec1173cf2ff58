/* fuzz_outbox.c - what `outbox put` reads from stdin.
 *
 * The command itself runs, but for the connection: its two calls that write end here. Promises: an
 * object is written whole or refused in words; the values of a payload are those of the JSON, by a
 * second parser; the event that liboutbox makes of it is one that the projector takes, with the
 * same id, aggregate, version and time. */
#include "tests/fuzz/fuzz.h"

#include "outbox/cli/cli.h"
#include "outbox/internal.h"
#include "projector/domain/event.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static GString *written; /* the ids that the command prints on stdout */
static unsigned count;

/* --- the command's surroundings --------------------------------------------------------------- */

outbox_t *__wrap_cli_open(cli_store_t *store, bool several_threads, int *ret_status);
bool __wrap_outbox_append(outbox_t *outbox, mongoc_client_session_t *session,
                          const outbox_event_t *event, outbox_receipt_t *ret_receipt,
                          outbox_error_t *error);
bool __wrap_outbox_write(outbox_t *outbox, const outbox_change_t *change,
                         const outbox_event_t *event, outbox_receipt_t *ret_receipt,
                         outbox_error_t *error);
bson_t *__real_bson_new_from_json(const uint8_t *data, ssize_t length, bson_error_t *error);
bson_t *__wrap_bson_new_from_json(const uint8_t *data, ssize_t length, bson_error_t *error);

outbox_t *__wrap_cli_open(cli_store_t *store, bool several_threads, int *ret_status) {
  (void)store, (void)several_threads;
  *ret_status = STATUS_GOOD;
  return outbox_new_from_client(NULL, &(outbox_options_t){.database = "fuzz"}, NULL);
}

/* --- the JSON, by another parser -------------------------------------------------------------- */

static json_t *object; /* the one being read; NULL: the other parser rejects it */

bson_t *__wrap_bson_new_from_json(const uint8_t *data, ssize_t length, bson_error_t *error) {
  json_decref(object);
  object = json_loads((const char *)data, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
  return __real_bson_new_from_json(data, length, error);
}

/* Objects like {"$numberLong": …} stand for BSON values that JSON cannot express. */
static bool is_extended(const json_t *value) {
  const char *key;
  json_t *member;
  json_object_foreach((json_t *)value, key, member) {
    if (*key == '$')
      return true;
  }
  return false;
}

static void check_same(const char *path, const json_t *json, const bson_iter_t *found);

static void check_members(const char *path, const json_t *json, const bson_iter_t *found) {
  bson_iter_t child;
  const char *key;
  json_t *member;
  PROMISE(bson_iter_recurse(found, &child), "%s: a document was expected", path);
  json_object_foreach((json_t *)json, key, member) {
    bson_iter_t at = child;
    PROMISE(bson_iter_find(&at, key), "%s.%s: it is missing", path, key);
    check_same(key, member, &at);
  }
}

static void check_elements(const char *path, const json_t *json, const bson_iter_t *found) {
  bson_iter_t child;
  size_t i;
  json_t *element;
  PROMISE(bson_iter_recurse(found, &child), "%s: an array was expected", path);
  json_array_foreach(json, i, element) {
    PROMISE(bson_iter_next(&child), "%s: element %zu is missing", path, i);
    check_same(path, element, &child);
  }
  PROMISE(!bson_iter_next(&child), "%s: there are more elements than in the JSON", path);
}

static void check_text(const char *path, const json_t *json, const bson_iter_t *found) {
  uint32_t length;
  const char *text = BSON_ITER_HOLDS_UTF8(found) ? bson_iter_utf8(found, &length) : NULL;
  PROMISE(text && length == json_string_length(json) &&
              !memcmp(text, json_string_value(json), length),
          "%s: another text", path);
}

static void check_same(const char *path, const json_t *json, const bson_iter_t *found) {
  switch (json_typeof(json)) {
  case JSON_OBJECT:
    if (!is_extended(json))
      check_members(path, json, found);
    return;
  case JSON_ARRAY: check_elements(path, json, found); return;
  case JSON_STRING: check_text(path, json, found); return;
  case JSON_INTEGER:
    PROMISE(BSON_ITER_HOLDS_INT(found) && bson_iter_as_int64(found) == json_integer_value(json),
            "%s: another integer", path);
    return;
  case JSON_REAL:
    PROMISE(BSON_ITER_HOLDS_DOUBLE(found) && bson_iter_double(found) == json_real_value(json),
            "%s: another double", path);
    return;
  case JSON_TRUE:
  case JSON_FALSE:
    PROMISE(BSON_ITER_HOLDS_BOOL(found) && bson_iter_bool(found) == json_is_true(json),
            "%s: another boolean", path);
    return;
  case JSON_NULL: PROMISE(BSON_ITER_HOLDS_NULL(found), "%s: no null", path); return;
  }
}

static void check_payload(const bson_t *document) {
  bson_iter_t iter;
  const json_t *payload = json_object_get(object, "payload");
  if (payload && bson_iter_init_find(&iter, document, "payload"))
    check_same("payload", payload, &iter);
}

/* --- the event -------------------------------------------------------------------------------- */

static bool check_event(const outbox_event_t *given, int64_t version, int64_t occurred_at_ms,
                        outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  bson_t document;
  bson_value_t id = *given->id;
  if (!outbox_event_document(given, &id, version, occurred_at_ms, &document, error))
    return false;
  g_autoptr(Event) event = event_decode(&document);
  char text[ID_TEXT_SIZE];
  PROMISE(!event->malformed, "the projector refuses it: %s", event->malformed->message);
  PROMISE(event->key.version == version && event->key.occurred_at == occurred_at_ms,
          "version or time have changed");
  *ret_receipt = (outbox_receipt_t){0};
  outbox_event_id_text(&id, ret_receipt->event_id);
  id_text(&event->key.event_id, text);
  PROMISE(!strcmp(text, ret_receipt->event_id), "id %s is told as %s", text, ret_receipt->event_id);
  PROMISE(event->aggregate.type_length == strlen(given->aggregate_type) &&
              !memcmp(event->aggregate.type, given->aggregate_type, event->aggregate.type_length),
          "another aggregate type");
  check_payload(&document);
  g_string_append_printf(written, "%s\n", ret_receipt->event_id);
  count++;
  bson_destroy(&document);
  return true;
}

bool __wrap_outbox_append(outbox_t *outbox, mongoc_client_session_t *session,
                          const outbox_event_t *event, outbox_receipt_t *ret_receipt,
                          outbox_error_t *error) {
  (void)outbox, (void)session;
  if (!outbox_event_validate(event, error))
    return false;
  return check_event(event, event->version, event->occurred_at_ms ? *event->occurred_at_ms : 1,
                     ret_receipt, error);
}

bool __wrap_outbox_write(outbox_t *outbox, const outbox_change_t *change,
                         const outbox_event_t *event, outbox_receipt_t *ret_receipt,
                         outbox_error_t *error) {
  if (!outbox_write_validate(outbox, change, event, error))
    return false;
  bson_t update;
  if (change->kind == OUTBOX_UPDATE) {
    outbox_change_update(change->document, 1, &update);
    PROMISE(bson_validate(&update, BSON_VALIDATE_NONE, NULL), "an update that is no BSON");
    bson_destroy(&update);
  }
  return check_event(event, 1, 1, ret_receipt, error);
}

/* Runs the command on the input; its output goes into memory. */
static int run(const uint8_t *data, size_t size, char **ret_printed, char **ret_said) {
  char name[] = "put", option[] = "--entities", value[] = "things";
  char *arguments[] = {name, option, value, NULL};
  bool names_entities = size % 2;
  FILE *in = stdin, *out = stdout, *err = stderr;
  size_t length;
  stdin = fmemopen((void *)data, size, "r");
  stdout = open_memstream(ret_printed, &length);
  stderr = open_memstream(ret_said, &length);
  int status = cli_put(names_entities ? 3 : 1, arguments);
  fclose(stdin);
  fclose(stdout);
  fclose(stderr);
  stdin = in;
  stdout = out;
  stderr = err;
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *printed = NULL, *said = NULL;
  if (size == 0)
    return 0; /* fmemopen takes no empty buffer */
  written = g_string_new(NULL);
  count = 0;
  int status = run(data, size, &printed, &said);
  PROMISE(!strcmp(printed, written->str), "the ids of other events were printed");
  PROMISE((status == STATUS_GOOD) == !*said, "status %d and: %s", status, said);
  PROMISE(status == STATUS_GOOD ? count > 0 : status == STATUS_WRONG, "status %d", status);
  PROMISE(g_utf8_validate(said, -1, NULL), "what it says is no UTF-8: %s", said);
  g_clear_pointer(&object, json_decref);
  g_string_free(written, TRUE);
  free(printed);
  free(said);
  return 0;
}

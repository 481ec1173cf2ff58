// `outbox put`: events as JSON from stdin.
#include "outbox/cli/cli.h"
#include "outbox/cli/json_stream.h"
#include "outbox/cli/put_line.h"
#include "outbox/text/clean.h"
#include "outbox/text/extended_json.h"

#include <stdio.h>
#include <string.h>

static const char DESCRIPTION[] =
    "Reads events from stdin, one JSON object (MongoDB Extended JSON) per line or over several\n"
    "lines, writes each as soon as it is read, and prints their ids, one per line. Stops at the "
    "first\n"
    "that cannot be written; those before it have been.\n"
    "\n"
    "  aggregate_type  string of at most 128 bytes\n"
    "  aggregate_id    string of at most 255 bytes, {\"$uuid\": ...}, {\"$oid\": ...} or an "
    "integer\n"
    "  event_type      string of at most 128 bytes\n"
    "  payload         document\n"
    "  _id             optional: string of at most 64 bytes, {\"$uuid\": ...} or {\"$oid\": ...};\n"
    "                  default: a new UUIDv7; an id that was written before changes nothing and\n  "
    "                succeeds: stderr reports \"repeated\" and the version of that time\n"
    "  occurred_at     optional: {\"$date\": ...} or \"2026-01-31T23:59:59.123Z\"; default: now\n"
    "  version         optional: integer from 1\n"
    "  metadata        optional: document\n"
    "  entity          optional: the change to store with the event in one transaction; then the\n"
    "                  version and the time follow from the entity and must not be given:\n"
    "    collection        where it is (default: --entities); its _id is the aggregate_id\n"
    "    insert: {...}     a new entity with these fields, or\n"
    "    update: {...}     update operators: {\"$set\": {...}, \"$inc\": {...}}, or\n"
    "    replace: {...}    the entity's new fields, all of them, or\n"
    "    delete: true\n"
    "    expected_version  optional: only if the entity is at this version\n"
    "\n"
    "Example:\n"
    "  echo '{\"aggregate_type\": \"account\", \"aggregate_id\": \"acc-1\",\n"
    "         \"event_type\": \"AccountRenamed\", \"payload\": {\"name\": \"Ada\"},\n"
    "         \"entity\": {\"update\": {\"$set\": {\"name\": \"Ada\"}}}}' |\n"
    "    outbox put --entities accounts\n"
    "\n"
    "Exit status: 1 when the entity is missing, exists already or has another version; 2 for bad\n"
    "input, an _id that was given to another event included; 3 when MongoDB was not reached. "
    "Without\n"
    "the collection of executed commands ('outbox init --no-commands'), an _id that is already in\n"
    "the outbox gives status 1.";

typedef struct {
  const char *entities; // NULL: each entity names its collection
  bool json;
} put_options_t;

static void print_receipt(const put_options_t *options, int line, const outbox_receipt_t *receipt) {
  if (options->json) {
    bson_t document = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&document, "event_id", receipt->event_id);
    if (receipt->version) {
      BSON_APPEND_INT64(&document, "version", receipt->version);
    }
    if (receipt->occurred_at_ms) {
      BSON_APPEND_DATE_TIME(&document, "occurred_at", receipt->occurred_at_ms);
    }
    BSON_APPEND_BOOL(&document, "repeated", receipt->repeated);
    char *text = bson_as_relaxed_extended_json(&document, NULL);
    g_autofree char *clean = json_text_clean(text);
    printf("%s\n", clean);
    bson_free(text);
    bson_destroy(&document);
    return;
  }
  g_autoptr(GString) id = g_string_new(NULL);
  text_append_clean(id, receipt->event_id, "");
  printf("%s\n", id->str);
  if (receipt->repeated && receipt->version) {
    cli_say("line %d: %s: repeated, written before with version %" G_GINT64_FORMAT, line,
            receipt->event_id, receipt->version);
  } else if (receipt->repeated) {
    cli_say("line %d: %s: repeated, written before", line, receipt->event_id);
  }
}

// False: sets *ret_status and prints a line on stderr.
static bool put_object(outbox_t *outbox, const char *text, const put_options_t *options, int line,
                       int *ret_status) {
  char message[EXTENDED_JSON_MESSAGE_SIZE];
  outbox_error_t error;
  outbox_receipt_t receipt;
  put_line_t put;
  *ret_status = STATUS_WRONG;
  if (!g_utf8_validate(text, -1, NULL)) {
    cli_say("line %d: expected UTF-8, found other bytes", line);
    return false;
  }
  g_autoptr(bson_t) object = extended_json_read(text, strlen(text), "", message);
  if (!object || !put_line_read(object, options->entities, &put, message, sizeof message)) {
    cli_say("line %d: %s", line, message);
    return false;
  }
  bool good = put.has_change ? outbox_write(outbox, &put.change, &put.event, &receipt, &error)
                             : outbox_append(outbox, NULL, &put.event, &receipt, &error);
  put_line_clear(&put);
  if (!good) {
    cli_say("line %d: %s", line, error.message);
    *ret_status = cli_status(&error);
    return false;
  }
  print_receipt(options, line, &receipt);
  *ret_status = STATUS_GOOD;
  return true;
}

static int put_stream(outbox_t *outbox, const put_options_t *options) {
  json_stream_t stream = {.file = stdin};
  char message[512];
  int line;
  int count = 0;
  int status = STATUS_GOOD;
  g_autoptr(GString) text = g_string_new(NULL);
  // An id is printed as soon as its event is stored, whatever happens next.
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (;;) {
    switch (json_stream_next(&stream, text, &line, message, sizeof message)) {
    case JSON_END:
      if (count == 0) {
        cli_say("expected an event on stdin, found nothing");
        return STATUS_WRONG;
      }
      return STATUS_GOOD;
    case JSON_BAD: cli_say("line %d: %s", line, message); return STATUS_WRONG;
    case JSON_OBJECT:
      if (!put_object(outbox, text->str, options, line, &status)) {
        return status;
      }
      count++;
    }
  }
}

int cli_put(int argc, char **argv) {
  g_autofree char *entities = NULL;
  gboolean json = FALSE;
  const GOptionEntry entries[] = {
      {"entities", 0, 0, G_OPTION_ARG_STRING, &entities,
       "collection of the entities, where an entity names none", "NAME"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &json,
       "print one line of JSON per event: event_id, version, occurred_at, repeated", NULL},
      {NULL},
  };
  const cli_usage_t usage = {.name = "put",
                             .summary = "write events, given as JSON on stdin",
                             .description = DESCRIPTION,
                             .entries = entries};
  g_auto(cli_store_t) store = {0};
  int status;
  if (!cli_parse(&usage, argc, argv, &store, &status)) {
    return status;
  }
  g_autoptr(outbox_t) outbox = cli_open(&store, false, &status);
  if (!outbox) {
    return status;
  }
  return put_stream(outbox, &(put_options_t){.entities = entities, .json = json});
}

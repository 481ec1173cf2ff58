// `outbox put`: events as JSON from stdin.
#include "outbox/cli/cli.h"
#include "outbox/cli/json_stream.h"
#include "outbox/cli/put_line.h"

#include <stdio.h>

static const char DESCRIPTION[] =
    "Reads events from stdin, one JSON object (MongoDB Extended JSON) a line or one over several\n"
    "lines, writes each when it has been read, and prints their ids, one a line. Stops at the "
    "first\n"
    "that cannot be written; those before it have been.\n"
    "\n"
    "  aggregate_type  string of at most 128 bytes\n"
    "  aggregate_id    string of at most 255 bytes, {\"$uuid\": ...}, {\"$oid\": ...} or an "
    "integer\n"
    "  event_type      string of at most 128 bytes\n"
    "  payload         document\n"
    "  _id             optional: string of at most 64 bytes, {\"$uuid\": ...} or {\"$oid\": ...};\n"
    "                  default: a new UUIDv7\n"
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
    "Exit status: 1 when the entity is missing, exists already or has another version, or the\n"
    "event is in the outbox already; 2 for bad input; 3 when MongoDB was not reached.";

// True, or *ret_status and a line on stderr.
static bool put_object(outbox_t *outbox, const char *text, const char *entities, int line,
                       int *ret_status) {
  char message[512];
  bson_error_t cause;
  outbox_error_t error;
  outbox_receipt_t receipt;
  put_line_t put;
  *ret_status = STATUS_WRONG;
  if (!g_utf8_validate(text, -1, NULL)) {
    cli_say("line %d: expected UTF-8, found other bytes", line);
    return false;
  }
  g_autoptr(bson_t) object = bson_new_from_json((const uint8_t *)text, -1, &cause);
  if (!object) {
    cli_say("line %d: not valid JSON: %s", line, cause.message);
    return false;
  }
  if (!json_check_values(text, message, sizeof message) ||
      !put_line_read(object, entities, &put, message, sizeof message)) {
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
  printf("%s\n", receipt.event_id);
  *ret_status = STATUS_GOOD;
  return true;
}

static int put_stream(outbox_t *outbox, const char *entities) {
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
      if (!put_object(outbox, text->str, entities, line, &status)) {
        return status;
      }
      count++;
    }
  }
}

int cli_put(int argc, char **argv) {
  g_autofree char *entities = NULL;
  const GOptionEntry entries[] = {
      {"entities", 0, 0, G_OPTION_ARG_STRING, &entities,
       "collection of the entities, where an entity names none", "NAME"},
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
  return outbox ? put_stream(outbox, entities) : status;
}

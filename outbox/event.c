// One event: checked against the contract, written as the outbox document.
#include "outbox/internal.h"

#include <stdio.h>
#include <string.h>

// The contract's range: MySQL's DATETIME has no other years.
static const int64_t TIME_FIRST_MS = -30610224000000; // 1000-01-01
static const int64_t TIME_LAST_MS = 253402300799999;  // 9999-12-31T23:59:59.999

bson_value_t outbox_id_string(const char *text) {
  bson_value_t value = {.value_type = BSON_TYPE_UTF8};
  value.value.v_utf8.str = (char *)text;
  value.value.v_utf8.len = (uint32_t)strlen(text);
  return value;
}

bson_value_t outbox_id_uuid(const uint8_t bytes[16]) {
  bson_value_t value = {.value_type = BSON_TYPE_BINARY};
  value.value.v_binary.data = (uint8_t *)bytes;
  value.value.v_binary.data_len = 16;
  value.value.v_binary.subtype = BSON_SUBTYPE_UUID;
  return value;
}

bson_value_t outbox_id_int64(int64_t number) {
  bson_value_t value = {.value_type = BSON_TYPE_INT64};
  value.value.v_int64 = number;
  return value;
}

int64_t outbox_occurred_at(int64_t now_ms, const int64_t *last_ms) {
  if (!last_ms || *last_ms < now_ms) {
    return now_ms;
  }
  return *last_ms < INT64_MAX ? *last_ms + 1 : INT64_MAX;
}

static bool is_uuid(const bson_value_t *id) {
  return id->value_type == BSON_TYPE_BINARY && id->value.v_binary.subtype == BSON_SUBTYPE_UUID &&
         id->value.v_binary.data_len == 16;
}

static bool validate_text(const char *field, const char *text, size_t max_bytes,
                          outbox_error_t *error) {
  if (!text) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected a string, found nothing", field);
  }
  size_t length = strlen(text);
  if (length < 1 || length > max_bytes) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected 1 to %zu bytes, found %zu", field,
                       max_bytes, length);
  }
  if (!bson_utf8_validate(text, length, false)) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected UTF-8, found other bytes", field);
  }
  return true;
}

static bool validate_string_id(const char *field, const bson_value_t *id, size_t max_bytes,
                               outbox_error_t *error) {
  const char *text = id->value.v_utf8.str;
  size_t length = id->value.v_utf8.len;
  if (length < 1 || length > max_bytes) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected 1 to %zu bytes, found %zu", field,
                       max_bytes, length);
  }
  // NUL is refused because an id must work as a command-line argument.
  if (!bson_utf8_validate(text, length, false)) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected UTF-8 without NUL, found other bytes",
                       field);
  }
  return true;
}

static bool validate_event_id(const bson_value_t *id, outbox_error_t *error) {
  if (id->value_type == BSON_TYPE_UTF8) {
    return validate_string_id("_id", id, OUTBOX_EVENT_ID_MAX_BYTES, error);
  }
  if (id->value_type != BSON_TYPE_OID && !is_uuid(id)) {
    return outbox_fail(error, OUTBOX_INVALID,
                       "_id: expected a UUID (binary subtype 4), an ObjectId or a string");
  }
  return true;
}

static bool validate_aggregate_id(const bson_value_t *id, outbox_error_t *error) {
  if (!id) {
    return outbox_fail(error, OUTBOX_INVALID, "aggregate_id: expected a value, found nothing");
  }
  switch (id->value_type) {
  case BSON_TYPE_UTF8:
    return validate_string_id("aggregate_id", id, OUTBOX_AGGREGATE_ID_MAX_BYTES, error);
  case BSON_TYPE_OID:
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64: return true;
  default: break;
  }
  if (!is_uuid(id)) {
    return outbox_fail(error, OUTBOX_INVALID,
                       "aggregate_id: expected a string, a UUID (binary subtype 4), an ObjectId, "
                       "an int32 or an int64");
  }
  return true;
}

static bool validate_document(const char *field, const bson_t *document, outbox_error_t *error) {
  size_t offset;
  if (!bson_validate(document, BSON_VALIDATE_UTF8 | BSON_VALIDATE_UTF8_ALLOW_NULL, &offset)) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: not valid BSON at byte %zu", field, offset);
  }
  return true;
}

bool outbox_event_validate(const outbox_event_t *event, outbox_error_t *error) {
  if (event->id && !validate_event_id(event->id, error)) {
    return false;
  }
  if (!validate_text("aggregate_type", event->aggregate_type, OUTBOX_TYPE_MAX_BYTES, error) ||
      !validate_aggregate_id(event->aggregate_id, error) ||
      !validate_text("event_type", event->event_type, OUTBOX_TYPE_MAX_BYTES, error)) {
    return false;
  }
  if (event->version < 0) {
    return outbox_fail(error, OUTBOX_INVALID, "version: expected 1 or more, found %lld",
                       (long long)event->version);
  }
  if (event->occurred_at_ms &&
      (*event->occurred_at_ms < TIME_FIRST_MS || *event->occurred_at_ms > TIME_LAST_MS)) {
    return outbox_fail(error, OUTBOX_INVALID,
                       "occurred_at: expected a date from year 1000 to 9999, found one outside");
  }
  if (!event->payload) {
    return outbox_fail(error, OUTBOX_INVALID, "payload: expected a document, found nothing");
  }
  return validate_document("payload", event->payload, error) &&
         (!event->metadata || validate_document("metadata", event->metadata, error));
}

void outbox_event_id_text(const bson_value_t *id, char ret_text[OUTBOX_EVENT_ID_MAX_BYTES + 1]) {
  if (id->value_type == BSON_TYPE_UTF8) {
    memcpy(ret_text, id->value.v_utf8.str, id->value.v_utf8.len);
    ret_text[id->value.v_utf8.len] = '\0';
  } else if (id->value_type == BSON_TYPE_OID) {
    bson_oid_to_string(&id->value.v_oid, ret_text);
  } else {
    const uint8_t *b = id->value.v_binary.data;
    snprintf(ret_text, OUTBOX_EVENT_ID_MAX_BYTES + 1,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
  }
}

char *outbox_id_text(const bson_value_t *id) {
  char text[OUTBOX_EVENT_ID_MAX_BYTES + 1];
  switch (id->value_type) {
  case BSON_TYPE_UTF8: return bson_strdup(id->value.v_utf8.str);
  case BSON_TYPE_INT32: return bson_strdup_printf("%d", id->value.v_int32);
  case BSON_TYPE_INT64: return bson_strdup_printf("%lld", (long long)id->value.v_int64);
  default: break;
  }
  if (id->value_type != BSON_TYPE_OID && !is_uuid(id)) {
    return bson_strdup("(no id)");
  }
  outbox_event_id_text(id, text);
  return bson_strdup(text);
}

bool outbox_event_document(const outbox_event_t *event, const bson_value_t *id, int64_t version,
                           int64_t occurred_at_ms, bson_t *ret_document, outbox_error_t *error) {
  bson_t document = BSON_INITIALIZER;
  bool built = BSON_APPEND_VALUE(&document, "_id", id) &&
               BSON_APPEND_UTF8(&document, "aggregate_type", event->aggregate_type) &&
               BSON_APPEND_VALUE(&document, "aggregate_id", event->aggregate_id) &&
               (version == 0 || BSON_APPEND_INT64(&document, "version", version)) &&
               BSON_APPEND_UTF8(&document, "event_type", event->event_type) &&
               BSON_APPEND_DATE_TIME(&document, "occurred_at", occurred_at_ms) &&
               BSON_APPEND_DOCUMENT(&document, "payload", event->payload) &&
               (!event->metadata || BSON_APPEND_DOCUMENT(&document, "metadata", event->metadata)) &&
               BSON_APPEND_UTF8(&document, "status", "pending");
  if (!built || document.len > OUTBOX_EVENT_MAX_BYTES) {
    uint32_t length = document.len;
    bson_destroy(&document);
    return outbox_fail(error, OUTBOX_INVALID,
                       "payload: expected an event of at most %d bytes, found %u or more",
                       OUTBOX_EVENT_MAX_BYTES, length);
  }
  bson_steal(ret_document, &document);
  return true;
}

bool outbox_insert_options(mongoc_client_session_t *session, bson_t *ret_options,
                           outbox_error_t *error) {
  bson_error_t cause;
  if (session && !mongoc_client_session_append(session, ret_options, &cause)) {
    return outbox_fail_mongoc(error, &cause, NULL, "session");
  }
  if (!session) {
    BCON_APPEND(ret_options, "writeConcern", "{", "w", "majority", "}");
  }
  // By default the driver refuses empty keys, which a payload may have.
  BSON_APPEND_INT32(ret_options, "validate", BSON_VALIDATE_UTF8 | BSON_VALIDATE_UTF8_ALLOW_NULL);
  return true;
}

bool outbox_event_insert(const outbox_command_t *command, int64_t version, int64_t occurred_at_ms,
                         outbox_receipt_t *ret_receipt, outbox_error_t *error) {
  const bson_value_t *id = command->id;
  OUTBOX_SCOPED_BSON document = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  OUTBOX_SCOPED_COLLECTION collection = mongoc_client_get_collection(
      command->client, command->outbox->database, command->outbox->events);
  bson_error_t cause;
  if (!outbox_event_document(command->event, id, version, occurred_at_ms, &document, error)) {
    return false;
  }
  if (!outbox_insert_options(command->session, &options, error)) {
    return false;
  }
  if (!mongoc_collection_insert_one(collection, &document, &options, &reply, &cause)) {
    char text[OUTBOX_EVENT_ID_MAX_BYTES + 1];
    char what[OUTBOX_EVENT_ID_MAX_BYTES + 16];
    outbox_event_id_text(id, text);
    bson_snprintf(what, sizeof what, "event %s", text);
    outbox_fail_mongoc(error, &cause, &reply, what);
    if (error->kind == OUTBOX_DUPLICATE) {
      return outbox_fail(error, OUTBOX_DUPLICATE,
                         "_id: an event with the id %s is in the outbox already", text);
    }
    // Without a transaction, a broken connection leaves open whether the insert was executed. So
    // does a server that is not available: the answer may be the second one, or be that of an event
    // that is stored, but not on a majority.
    if (!command->session && error->kind == OUTBOX_UNAVAILABLE &&
        cause.domain != MONGOC_ERROR_SERVER_SELECTION) {
      error->kind = OUTBOX_UNKNOWN;
    }
    return false;
  }
  if (ret_receipt) {
    outbox_event_id_text(id, ret_receipt->event_id);
    ret_receipt->repeated = false;
    ret_receipt->version = version;
    ret_receipt->occurred_at_ms = occurred_at_ms;
  }
  return true;
}

/* event_fields.c - translates the documents of other outboxes. */
#include "projector/domain/event_fields.h"

#include "projector/domain/datetime.h"
#include "projector/domain/json.h"
#include "projector/domain/json_document.h"

#include <string.h>

const EventFields event_fields_contract = {.names = {"aggregate_type", "aggregate_id", "version",
                                                     "event_type", "occurred_at", "payload",
                                                     "metadata"}};

/* Debezium's outbox event router; the names are those of its documentation. */
static const EventFields debezium = {.foreign = true,
                                     .names = {"aggregatetype", "aggregateid", "version", "type",
                                               "timestamp", "payload", "metadata"}};

/* --- the projector's own -------------------------------------------------------------------- */

static const struct {
  const char *name;
  OwnFields kind;
} own_fields[] = {
    {"status", OWN_STATE},          {"claimed_by", OWN_STATE},    {"claimed_at", OWN_STATE},
    {"next_attempt_at", OWN_STATE}, {"fed_at", OWN_FED},          {"fed_to", OWN_FED},
    {"attempts", OWN_ATTEMPTS},     {"last_error", OWN_ATTEMPTS}, {"applied_at", OWN_KEPT},
    {"skipped_at", OWN_KEPT},       {"seq", OWN_NUMBER},
};

bool event_field_is_own(const char *name, OwnFields kinds) {
  for (size_t i = 0; i < G_N_ELEMENTS(own_fields); i++)
    if ((own_fields[i].kind & kinds) && !strcmp(own_fields[i].name, name))
      return true;
  return false;
}

void event_append_without(const bson_t *document, OwnFields kinds, bson_t *to) {
  bson_iter_t iter;
  bson_iter_init(&iter, document);
  while (bson_iter_next(&iter))
    if (!event_field_is_own(bson_iter_key(&iter), kinds) &&
        strcmp(bson_iter_key(&iter), EVENT_IS_FOREIGN) != 0)
      bson_append_iter(to, NULL, 0, &iter);
}

void event_own_names(OwnFields kinds, bson_t *array) {
  char index[16];
  unsigned count = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(own_fields); i++)
    if (own_fields[i].kind & kinds) {
      g_snprintf(index, sizeof index, "%u", count++);
      BSON_APPEND_UTF8(array, index, own_fields[i].name);
    }
}

/* --- reading -------------------------------------------------------------------------------- */

static bool is_field_path(const char *text) {
  size_t length = strlen(text);
  if (length == 0 || text[0] == '.' || text[length - 1] == '.' || strstr(text, "..") ||
      strchr(text, '$'))
    return false;
  g_auto(GStrv) steps = g_strsplit(text, ".", 2);
  return !event_field_is_own(steps[0], OWN_ALL);
}

bool event_fields_parse(const json_t *mongodb, EventFields *ret_fields, Failure *ret_failure) {
  static const char *const layouts[] = {"outbox", "debezium", NULL};
  const char *known[EVENT_FIELDS + 1] = {NULL};
  const json_t *names = json_object_get(mongodb, "fields");
  int layout = 0;
  if (!json_take_choice(mongodb, "mongodb", "layout", layouts, &layout, ret_failure))
    return false;
  EventFields fields = layout == 1 ? debezium : event_fields_contract;
  memcpy(known, event_fields_contract.names, sizeof event_fields_contract.names);
  if (names && !json_check_object(names, "mongodb.fields", known, ret_failure))
    return false;
  for (int i = 0; names && i < EVENT_FIELDS; i++) {
    if (!json_take_text(names, "mongodb.fields", known[i], false, &fields.names[i], ret_failure))
      return false;
    if (!is_field_path(fields.names[i])) {
      g_autofree char *path = json_path("mongodb.fields", known[i]);
      return json_complain(
          path, "a field of the outbox's documents, which the projector does not write itself",
          json_object_get(names, known[i]), ret_failure);
    }
    fields.foreign |= strcmp(fields.names[i], known[i]) != 0;
  }
  *ret_fields = fields;
  return true;
}

/* --- translating ---------------------------------------------------------------------------- */

static bool find(const bson_t *document, const char *path, bson_iter_t *ret_value) {
  bson_iter_t iter;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, ret_value) &&
         !BSON_ITER_HOLDS_NULL(ret_value);
}

/* To milliseconds since 1970. */
static bool read_time(const bson_iter_t *value, int64_t *ret_ms) {
  uint32_t length;
  int64_t us;
  if (BSON_ITER_HOLDS_DATE_TIME(value))
    *ret_ms = bson_iter_date_time(value);
  else if (BSON_ITER_HOLDS_INT(value))
    *ret_ms = bson_iter_as_int64(value);
  else if (BSON_ITER_HOLDS_DOUBLE(value) && bson_iter_double(value) > -9e15 &&
           bson_iter_double(value) < 9e15)
    *ret_ms = (int64_t)bson_iter_double(value);
  else if (BSON_ITER_HOLDS_OID(value))
    *ret_ms = (int64_t)bson_oid_get_time_t(bson_iter_oid(value)) * 1000;
  else if (BSON_ITER_HOLDS_UTF8(value)) {
    const char *text = bson_iter_utf8(value, &length);
    if (!datetime_parse(text, length, true, &us))
      return false;
    *ret_ms = us / 1000;
  } else {
    return false;
  }
  return true;
}

static void append_time(const EventFields *fields, const bson_t *document, bson_t *to) {
  const char *name = event_fields_contract.names[FIELD_OCCURRED_AT];
  bson_iter_t value;
  int64_t ms;
  bool there = find(document, fields->names[FIELD_OCCURRED_AT], &value);
  if (!there && (!find(document, "_id", &value) || !BSON_ITER_HOLDS_OID(&value)))
    return;
  if (read_time(&value, &ms))
    BSON_APPEND_DATE_TIME(to, name, ms);
  else
    bson_append_iter(to, name, -1, &value);
}

static void append_document(const bson_iter_t *value, const char *name, bson_t *to) {
  uint32_t length;
  bson_t *parsed = NULL;
  Failure ignored; /* event_decode says why it is none */
  if (BSON_ITER_HOLDS_UTF8(value)) {
    const char *text = bson_iter_utf8(value, &length);
    if (json_document_begins(text, length))
      parsed = json_document_read_exactly(text, length, name, &ignored);
  }
  if (!parsed) {
    bson_append_iter(to, name, -1, value);
    return;
  }
  bson_append_document(to, name, -1, parsed);
  bson_destroy(parsed);
}

static void append_field(const EventFields *fields, EventField field, const bson_t *document,
                         bson_t *to) {
  const char *name = event_fields_contract.names[field];
  bson_iter_t value;
  if (field == FIELD_OCCURRED_AT)
    append_time(fields, document, to);
  else if (!find(document, fields->names[field], &value))
    return;
  else if (field == FIELD_PAYLOAD || field == FIELD_METADATA)
    append_document(&value, name, to);
  else
    bson_append_iter(to, name, -1, &value);
}

/* Other fields keep their names, except those with a name of the contract: there they mean
 * something else. */
static bool is_contracts(const char *key) {
  for (int i = 0; i < EVENT_FIELDS; i++)
    if (!strcmp(key, event_fields_contract.names[i]))
      return true;
  return false;
}

bson_t *event_fields_translate(const EventFields *fields, const bson_t *document) {
  bson_t *to = bson_sized_new(document->len + 64);
  bson_iter_t iter;
  BSON_APPEND_BOOL(to, EVENT_IS_FOREIGN, true);
  bson_iter_init(&iter, document);
  while (bson_iter_next(&iter))
    if (!is_contracts(bson_iter_key(&iter)))
      bson_append_iter(to, NULL, 0, &iter);
  for (int i = 0; i < EVENT_FIELDS; i++)
    append_field(fields, (EventField)i, document, to);
  return to;
}

/* An empty one for any document, and null for what is none. */
static void append_emptied(const bson_iter_t *value, bson_t *to) {
  bson_t empty = BSON_INITIALIZER;
  if (BSON_ITER_HOLDS_DOCUMENT(value))
    bson_append_document(to, bson_iter_key(value), -1, &empty);
  else
    bson_append_null(to, bson_iter_key(value), -1);
}

bson_t *event_fields_translate_briefly(const EventFields *fields, const bson_t *document) {
  bson_t *whole = event_fields_translate(fields, document), *to = bson_new();
  bson_iter_t iter;
  bson_iter_init(&iter, whole);
  while (bson_iter_next(&iter)) {
    const char *key = bson_iter_key(&iter);
    if (!strcmp(key, event_fields_contract.names[FIELD_PAYLOAD]))
      append_emptied(&iter, to);
    else if ((is_contracts(key) && strcmp(key, event_fields_contract.names[FIELD_METADATA]) != 0) ||
             event_field_is_own(key, OWN_ALL) || !strcmp(key, "_id") ||
             !strcmp(key, EVENT_IS_FOREIGN))
      bson_append_iter(to, NULL, 0, &iter);
  }
  bson_destroy(whole);
  return to;
}

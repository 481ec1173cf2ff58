// One object of `outbox put`: takes its members one by one, refuses unknown and repeated ones.
#include "outbox/cli/put_line.h"

#include "outbox/text/iso8601.h"

#include <glib.h>
#include <string.h>

// Where errors are reported.
typedef struct {
  char *message;
  size_t size;
} complaint_t;

typedef bool (*take_t)(bson_iter_t *iter, put_line_t *line, complaint_t *complaint);

typedef struct {
  const char *name;
  take_t take;
} member_t;

static bool complain(complaint_t *complaint, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool complain(complaint_t *complaint, const char *format, ...) {
  va_list args;
  va_start(args, format);
  g_vsnprintf(complaint->message, complaint->size, format, args);
  va_end(args);
  return false;
}

static const char *type_name(const bson_iter_t *iter) {
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_DOUBLE: return "a double";
  case BSON_TYPE_UTF8: return "a string";
  case BSON_TYPE_DOCUMENT: return "a document";
  case BSON_TYPE_ARRAY: return "an array";
  case BSON_TYPE_BINARY: return "binary data";
  case BSON_TYPE_OID: return "an ObjectId";
  case BSON_TYPE_BOOL: return "a boolean";
  case BSON_TYPE_DATE_TIME: return "a date";
  case BSON_TYPE_NULL: return "null";
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64: return "an integer";
  case BSON_TYPE_DECIMAL128: return "a decimal";
  default: return "another type";
  }
}

static bool take_text(bson_iter_t *iter, const char *path, const char **ret_text,
                      complaint_t *complaint) {
  uint32_t length;
  if (!BSON_ITER_HOLDS_UTF8(iter)) {
    return complain(complaint, "%s: expected a string, found %s", path, type_name(iter));
  }
  const char *text = bson_iter_utf8(iter, &length);
  if (strlen(text) != length) {
    return complain(complaint, "%s: expected a string without NUL, found one", path);
  }
  *ret_text = text;
  return true;
}

static bool take_document(bson_iter_t *iter, const char *path, bson_t *ret_document,
                          complaint_t *complaint) {
  const uint8_t *data;
  uint32_t length;
  if (!BSON_ITER_HOLDS_DOCUMENT(iter)) {
    return complain(complaint, "%s: expected a document, found %s", path, type_name(iter));
  }
  bson_iter_document(iter, &length, &data);
  return bson_init_static(ret_document, data, length) ||
         complain(complaint, "%s: expected a document, found broken BSON", path);
}

static bool take_version(bson_iter_t *iter, const char *path, int64_t *ret_version,
                         complaint_t *complaint) {
  if (!BSON_ITER_HOLDS_INT32(iter) && !BSON_ITER_HOLDS_INT64(iter)) {
    return complain(complaint, "%s: expected an integer, found %s", path, type_name(iter));
  }
  int64_t version = bson_iter_as_int64(iter);
  if (version < 1) {
    return complain(complaint, "%s: expected 1 or more, found %" G_GINT64_FORMAT, path, version);
  }
  *ret_version = version;
  return true;
}

// ---- The members of the event ----

// liboutbox decides which values can be an id, with the same kind of message.
static bool take_id(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  (void)complaint;
  bson_value_copy(bson_iter_value(iter), &line->id);
  line->event.id = &line->id;
  return true;
}

static bool take_aggregate_id(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  (void)complaint;
  bson_value_copy(bson_iter_value(iter), &line->aggregate_id);
  line->event.aggregate_id = &line->aggregate_id;
  return true;
}

static bool take_aggregate_type(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_text(iter, "aggregate_type", &line->event.aggregate_type, complaint);
}

static bool take_event_type(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_text(iter, "event_type", &line->event.event_type, complaint);
}

static bool take_event_version(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_version(iter, "version", &line->event.version, complaint);
}

static bool take_occurred_at(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  const char *text = "";
  if (BSON_ITER_HOLDS_DATE_TIME(iter)) {
    line->occurred_at_ms = bson_iter_date_time(iter);
  } else if (!BSON_ITER_HOLDS_UTF8(iter)) {
    return complain(complaint, "occurred_at: expected a date or an ISO 8601 time, found %s",
                    type_name(iter));
  } else if (!take_text(iter, "occurred_at", &text, complaint)) {
    return false;
  } else if (!iso8601_parse(text, &line->occurred_at_ms)) {
    return complain(complaint,
                    "occurred_at: expected a time like 2026-01-31T23:59:59.123Z, found \"%.60s\"",
                    text);
  }
  line->event.occurred_at_ms = &line->occurred_at_ms;
  return true;
}

static bool take_payload(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  line->event.payload = &line->payload;
  return take_document(iter, "payload", &line->payload, complaint);
}

static bool take_metadata(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  line->event.metadata = &line->metadata;
  return take_document(iter, "metadata", &line->metadata, complaint);
}

// ---- The members of `entity` ----

static bool choose_change(put_line_t *line, outbox_change_kind_t kind, complaint_t *complaint) {
  if (line->has_change) {
    return complain(complaint,
                    "entity: expected one of insert, update, replace, delete, found two");
  }
  line->has_change = true;
  line->change.kind = kind;
  return true;
}

static bool take_collection(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_text(iter, "entity.collection", &line->change.collection, complaint);
}

static bool take_change(bson_iter_t *iter, outbox_change_kind_t kind, const char *path,
                        put_line_t *line, complaint_t *complaint) {
  if (!choose_change(line, kind, complaint)) {
    return false;
  }
  line->change.document = &line->document;
  return take_document(iter, path, &line->document, complaint);
}

static bool take_insert(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_change(iter, OUTBOX_INSERT, "entity.insert", line, complaint);
}

static bool take_update(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_change(iter, OUTBOX_UPDATE, "entity.update", line, complaint);
}

static bool take_replace(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_change(iter, OUTBOX_REPLACE, "entity.replace", line, complaint);
}

static bool take_delete(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  if (!BSON_ITER_HOLDS_BOOL(iter) || !bson_iter_bool(iter)) {
    return complain(complaint, "entity.delete: expected true, found %s",
                    BSON_ITER_HOLDS_BOOL(iter) ? "false" : type_name(iter));
  }
  return choose_change(line, OUTBOX_DELETE, complaint);
}

static bool take_expected_version(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  return take_version(iter, "entity.expected_version", &line->change.expected_version, complaint);
}

static const member_t ENTITY_MEMBERS[] = {
    {"collection", take_collection}, {"insert", take_insert},
    {"update", take_update},         {"replace", take_replace},
    {"delete", take_delete},         {"expected_version", take_expected_version},
};

// ---- Both ----

static bool take_members(const bson_t *object, const char *prefix, const member_t *members,
                         size_t count, put_line_t *line, complaint_t *complaint) {
  uint32_t seen = 0;
  bson_iter_t iter;
  bson_iter_init(&iter, object);
  while (bson_iter_next(&iter)) {
    const char *key = bson_iter_key(&iter);
    size_t i = 0;
    while (i < count && strcmp(members[i].name, key) != 0) {
      i++;
    }
    if (i == count) {
      return complain(complaint, "%s%.100s: this member is not known", prefix, key);
    }
    if (seen & 1U << i) {
      return complain(complaint, "%s%s: expected once, found again", prefix, key);
    }
    seen |= 1U << i;
    if (!members[i].take(&iter, line, complaint)) {
      return false;
    }
  }
  return true;
}

static bool take_entity(bson_iter_t *iter, put_line_t *line, complaint_t *complaint) {
  bson_t entity;
  if (!take_document(iter, "entity", &entity, complaint) ||
      !take_members(&entity, "entity.", ENTITY_MEMBERS, G_N_ELEMENTS(ENTITY_MEMBERS), line,
                    complaint)) {
    return false;
  }
  return line->has_change ||
         complain(complaint, "entity: expected one of insert, update, replace, delete, found none");
}

static const member_t MEMBERS[] = {
    {"_id", take_id},
    {"aggregate_type", take_aggregate_type},
    {"aggregate_id", take_aggregate_id},
    {"version", take_event_version},
    {"event_type", take_event_type},
    {"occurred_at", take_occurred_at},
    {"payload", take_payload},
    {"metadata", take_metadata},
    {"entity", take_entity},
};

static bool check_required(const put_line_t *line, const char *entities, complaint_t *complaint) {
  const outbox_event_t *event = &line->event;
  const char *missing = !event->aggregate_type ? "aggregate_type"
                        : !event->aggregate_id ? "aggregate_id"
                        : !event->event_type   ? "event_type"
                        : !event->payload      ? "payload"
                                               : NULL;
  if (missing) {
    return complain(complaint, "%s: expected a value, found nothing", missing);
  }
  if (!line->has_change) {
    return true;
  }
  if (event->version || event->occurred_at_ms) {
    return complain(complaint, "%s: expected none beside an entity, which determines it",
                    event->version ? "version" : "occurred_at");
  }
  return line->change.collection || entities ||
         complain(complaint, "entity.collection: expected a name (or --entities), found nothing");
}

bool put_line_read(const bson_t *object, const char *entities, put_line_t *ret_line, char *message,
                   size_t size) {
  complaint_t complaint = {.message = message, .size = size};
  *ret_line = (put_line_t){0};
  if (!take_members(object, "", MEMBERS, G_N_ELEMENTS(MEMBERS), ret_line, &complaint) ||
      !check_required(ret_line, entities, &complaint)) {
    put_line_clear(ret_line);
    return false;
  }
  if (!ret_line->change.collection) {
    ret_line->change.collection = entities;
  }
  if (!ret_line->event.id) {
    outbox_uuid7(ret_line->new_id);
    bson_value_t id = outbox_id_uuid(ret_line->new_id);
    bson_value_copy(&id, &ret_line->id);
    ret_line->event.id = &ret_line->id;
  }
  return true;
}

void put_line_clear(put_line_t *line) {
  if (line->event.id) {
    bson_value_destroy(&line->id);
  }
  if (line->event.aggregate_id) {
    bson_value_destroy(&line->aggregate_id);
  }
  *line = (put_line_t){0};
}

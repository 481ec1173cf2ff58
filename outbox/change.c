// The body of the transaction: changes the entity, advances its version and time, stores the
// event.
#include "outbox/internal.h"

#include <string.h>

// The entity (or its tombstone) before the change.
typedef struct {
  bool found;
  int64_t version; // 0: no event yet
  bool has_last;
  int64_t last_ms;
} before_t;

static bool is_owned_field(const char *name) {
  static const char *const owned[] = {"_id", "version", "last_event_at"};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
    size_t length = strlen(owned[i]);
    if (strncmp(name, owned[i], length) == 0 && (name[length] == '\0' || name[length] == '.')) {
      return true;
    }
  }
  return false;
}

static bool validate_fields(const char *path, const bson_t *document, outbox_error_t *error) {
  bson_iter_t iter;
  bson_iter_init(&iter, document);
  while (bson_iter_next(&iter)) {
    if (is_owned_field(bson_iter_key(&iter))) {
      return outbox_fail(error, OUTBOX_INVALID, "%s.%.100s: this field is set by liboutbox", path,
                         bson_iter_key(&iter));
    }
  }
  return true;
}

static bool validate_operators(const bson_t *operators, outbox_error_t *error) {
  bson_iter_t iter;
  bson_iter_init(&iter, operators);
  while (bson_iter_next(&iter)) {
    char path[128];
    bson_snprintf(path, sizeof path, "update.%.100s", bson_iter_key(&iter));
    if (bson_iter_key(&iter)[0] != '$') {
      return outbox_fail(error, OUTBOX_INVALID, "%s: expected an update operator like $set", path);
    }
    if (!BSON_ITER_HOLDS_DOCUMENT(&iter)) {
      return outbox_fail(error, OUTBOX_INVALID, "%s: expected a document", path);
    }
    const uint8_t *data;
    uint32_t length;
    bson_t fields;
    bson_iter_document(&iter, &length, &data);
    if (!bson_init_static(&fields, data, length) || !validate_fields(path, &fields, error)) {
      return false;
    }
  }
  return true;
}

static bool validate_whole(const char *path, const bson_t *document, outbox_error_t *error) {
  if (!document) {
    return outbox_fail(error, OUTBOX_INVALID, "%s: expected a document, found nothing", path);
  }
  return validate_fields(path, document, error);
}

bool outbox_change_validate(const outbox_change_t *change, outbox_error_t *error) {
  if (!change->collection || !*change->collection) {
    return outbox_fail(error, OUTBOX_INVALID, "collection: expected a name, found nothing");
  }
  if (change->expected_version < 0) {
    return outbox_fail(error, OUTBOX_INVALID, "expected_version: expected 1 or more");
  }
  if (change->expected_version && change->kind == OUTBOX_INSERT) {
    return outbox_fail(error, OUTBOX_INVALID, "expected_version: an insert has none");
  }
  if (change->document &&
      !bson_validate(change->document, BSON_VALIDATE_UTF8 | BSON_VALIDATE_UTF8_ALLOW_NULL, NULL)) {
    return outbox_fail(error, OUTBOX_INVALID, "change: not valid BSON");
  }
  switch (change->kind) {
  case OUTBOX_INSERT: return validate_whole("insert", change->document, error);
  case OUTBOX_REPLACE: return validate_whole("replace", change->document, error);
  case OUTBOX_UPDATE: return !change->document || validate_operators(change->document, error);
  case OUTBOX_DELETE:
    return !change->document || outbox_fail(error, OUTBOX_INVALID, "delete: expected no document");
  }
  return outbox_fail(error, OUTBOX_INVALID, "change: unknown kind %d", (int)change->kind);
}

void outbox_change_update(const bson_t *operators, int64_t now_ms, bson_t *ret_update) {
  bool has_inc = false;
  bool has_max = false;
  bson_iter_t iter;
  bson_t fields;
  bson_init(ret_update);
  if (operators && bson_iter_init(&iter, operators)) {
    while (bson_iter_next(&iter)) {
      const char *name = bson_iter_key(&iter);
      const uint8_t *data;
      uint32_t length;
      bson_t given;
      bson_iter_document(&iter, &length, &data);
      if (!bson_init_static(&given, data, length)) {
        continue;
      }
      BSON_APPEND_DOCUMENT_BEGIN(ret_update, name, &fields);
      bson_concat(&fields, &given);
      if (!has_inc && strcmp(name, "$inc") == 0) {
        has_inc = BSON_APPEND_INT64(&fields, "version", 1);
      } else if (!has_max && strcmp(name, "$max") == 0) {
        has_max = BSON_APPEND_DATE_TIME(&fields, "last_event_at", now_ms);
      }
      bson_append_document_end(ret_update, &fields);
    }
  }
  if (!has_inc) {
    BSON_APPEND_DOCUMENT_BEGIN(ret_update, "$inc", &fields);
    BSON_APPEND_INT64(&fields, "version", 1);
    bson_append_document_end(ret_update, &fields);
  }
  if (!has_max) {
    BSON_APPEND_DOCUMENT_BEGIN(ret_update, "$max", &fields);
    BSON_APPEND_DATE_TIME(&fields, "last_event_at", now_ms);
    bson_append_document_end(ret_update, &fields);
  }
}

// A replacement as a pipeline, so that the server raises the version of the replaced document in
// the same step.
static bson_t *replace_pipeline(const bson_t *fields, int64_t now_ms) {
  return BCON_NEW("0", "{", "$replaceWith", "{", "$mergeObjects", "[", "{", "_id",
                  BCON_UTF8("$_id"), "version", "{", "$add", "[", "{", "$ifNull", "[",
                  BCON_UTF8("$version"), BCON_INT64(0), "]", "}", BCON_INT64(1), "]", "}", "}", "{",
                  "$literal", BCON_DOCUMENT(fields), "}", "{", "last_event_at", "{", "$max", "[",
                  BCON_UTF8("$last_event_at"), BCON_DATE_TIME(now_ms), "]", "}", "}", "]", "}",
                  "}");
}

// Reads version and time from an entity or a tombstone.
static bool read_before(const bson_t *document, const char *time_field, before_t *ret_before,
                        outbox_error_t *error) {
  before_t before = {.found = true};
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, document, "version")) {
    if (!BSON_ITER_HOLDS_INT32(&iter) && !BSON_ITER_HOLDS_INT64(&iter)) {
      return outbox_fail(error, OUTBOX_REFUSED, "entity: its version is not an integer");
    }
    before.version = bson_iter_as_int64(&iter);
    if (before.version < 0 || before.version == INT64_MAX) {
      return outbox_fail(error, OUTBOX_REFUSED, "entity: its version is out of range");
    }
  }
  if (bson_iter_init_find(&iter, document, time_field)) {
    if (!BSON_ITER_HOLDS_DATE_TIME(&iter)) {
      return outbox_fail(error, OUTBOX_REFUSED, "entity: its %s is not a date", time_field);
    }
    before.has_last = true;
    before.last_ms = bson_iter_date_time(&iter);
  }
  *ret_before = before;
  return true;
}

static bool insert_entity(mongoc_collection_t *entities, const outbox_change_t *change,
                          const bson_value_t *id, int64_t now_ms, mongoc_client_session_t *session,
                          outbox_error_t *error) {
  OUTBOX_SCOPED_BSON entity = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_error_t cause;
  BSON_APPEND_VALUE(&entity, "_id", id);
  BSON_APPEND_INT64(&entity, "version", 1);
  bson_concat(&entity, change->document);
  BSON_APPEND_DATE_TIME(&entity, "last_event_at", now_ms);
  if (!outbox_insert_options(session, &options, error)) {
    return false;
  }
  if (!mongoc_collection_insert_one(entities, &entity, &options, &reply, &cause)) {
    if (outbox_is_duplicate_key(&cause)) {
      return outbox_fail(error, OUTBOX_EXISTS, "entity: exists already in %s (%s)",
                         change->collection, cause.message);
    }
    return outbox_fail_mongoc(error, &cause, &reply, "entity");
  }
  return true;
}

// Update, replace or delete by findAndModify, which returns the entity as it was.
static bool modify_entity(mongoc_collection_t *entities, const outbox_change_t *change,
                          const bson_value_t *id, int64_t now_ms, const bson_t *options,
                          before_t *ret_before, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON query = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON update = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON fields = BSON_INITIALIZER;
  BSON_APPEND_VALUE(&query, "_id", id);
  BSON_APPEND_INT32(&fields, "version", 1);
  BSON_APPEND_INT32(&fields, "last_event_at", 1);
  mongoc_find_and_modify_opts_t *how = mongoc_find_and_modify_opts_new();
  mongoc_find_and_modify_opts_set_fields(how, &fields);
  mongoc_find_and_modify_opts_append(how, options);
  if (change->kind == OUTBOX_DELETE) {
    mongoc_find_and_modify_opts_set_flags(how, MONGOC_FIND_AND_MODIFY_REMOVE);
  } else if (change->kind == OUTBOX_UPDATE) {
    outbox_change_update(change->document, now_ms, &update);
    mongoc_find_and_modify_opts_set_update(how, &update);
  } else {
    bson_t *pipeline = replace_pipeline(change->document, now_ms);
    mongoc_find_and_modify_opts_set_update(how, pipeline);
    bson_destroy(pipeline);
  }
  bson_error_t cause;
  bool done = mongoc_collection_find_and_modify_with_opts(entities, &query, how, &reply, &cause);
  mongoc_find_and_modify_opts_destroy(how);
  if (!done && outbox_is_duplicate_key(&cause)) {
    return outbox_fail(error, OUTBOX_EXISTS, "entity: %s", cause.message);
  }
  if (!done) {
    return outbox_fail_mongoc(error, &cause, &reply, "entity");
  }
  bson_iter_t iter;
  const uint8_t *data;
  uint32_t length;
  bson_t entity;
  if (!bson_iter_init_find(&iter, &reply, "value") || !BSON_ITER_HOLDS_DOCUMENT(&iter)) {
    return outbox_fail(error, OUTBOX_MISSING, "entity: missing in %s", change->collection);
  }
  bson_iter_document(&iter, &length, &data);
  if (!bson_init_static(&entity, data, length)) {
    return outbox_fail(error, OUTBOX_REFUSED, "entity: the server's answer cannot be read");
  }
  return read_before(&entity, "last_event_at", ret_before, error);
}

static void tombstone_query(const outbox_event_t *event, bson_t *ret_query) {
  bson_t id;
  bson_init(ret_query);
  BSON_APPEND_DOCUMENT_BEGIN(ret_query, "_id", &id);
  BSON_APPEND_UTF8(&id, "aggregate_type", event->aggregate_type);
  BSON_APPEND_VALUE(&id, "aggregate_id", event->aggregate_id);
  bson_append_document_end(ret_query, &id);
}

// Runs after the insert: on a sharded cluster a read that began earlier could miss a deletion that
// the insert already saw.
static bool find_tombstone(mongoc_collection_t *tombstones, const outbox_event_t *event,
                           const bson_t *options, before_t *ret_before, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON query = BSON_INITIALIZER;
  tombstone_query(event, &query);
  mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(tombstones, &query, options, NULL);
  const bson_t *document;
  const bson_t *reply = NULL;
  bson_error_t cause;
  bool good = true;
  *ret_before = (before_t){0};
  if (mongoc_cursor_next(cursor, &document)) {
    good = read_before(document, "deleted_at", ret_before, error);
  } else if (mongoc_cursor_error_document(cursor, &cause, &reply)) {
    good = outbox_fail_mongoc(error, &cause, reply, "tombstone");
  }
  mongoc_cursor_destroy(cursor);
  return good;
}

typedef struct {
  bool deleted; // on the tombstone, which is created if it is missing; otherwise on the entity
  int64_t version;
  int64_t at_ms;
} stamp_t;

static bool put_stamp(mongoc_collection_t *collection, const bson_t *query, stamp_t stamp,
                      const bson_t *session_options, outbox_error_t *error) {
  OUTBOX_SCOPED_BSON update = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON reply = BSON_INITIALIZER;
  bson_t fields;
  bson_error_t cause;
  BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &fields);
  BSON_APPEND_INT64(&fields, "version", stamp.version);
  BSON_APPEND_DATE_TIME(&fields, stamp.deleted ? "deleted_at" : "last_event_at", stamp.at_ms);
  bson_append_document_end(&update, &fields);
  bson_concat(&options, session_options);
  if (stamp.deleted) {
    BSON_APPEND_BOOL(&options, "upsert", true);
  }
  return mongoc_collection_update_one(collection, query, &update, &options, &reply, &cause) ||
         outbox_fail_mongoc(error, &cause, &reply, stamp.deleted ? "tombstone" : "entity");
}

bool outbox_change_run(const outbox_command_t *command, outbox_receipt_t *ret_receipt,
                       outbox_error_t *error) {
  const outbox_t *outbox = command->outbox;
  mongoc_client_t *client = command->client;
  mongoc_client_session_t *session = command->session;
  const outbox_change_t *change = command->change;
  const outbox_event_t *event = command->event;
  OUTBOX_SCOPED_COLLECTION entities =
      mongoc_client_get_collection(client, outbox->database, change->collection);
  OUTBOX_SCOPED_COLLECTION tombstones =
      mongoc_client_get_collection(client, outbox->database, outbox->tombstones);
  OUTBOX_SCOPED_BSON options = BSON_INITIALIZER;
  OUTBOX_SCOPED_BSON query = BSON_INITIALIZER;
  bson_error_t cause;
  if (!mongoc_client_session_append(session, &options, &cause)) {
    return outbox_fail_mongoc(error, &cause, NULL, "session");
  }
  int64_t now_ms = outbox_now_ms();
  const bson_value_t *entity_id = event->aggregate_id;
  before_t before = {0};

  // 1. The change; the server raises the version, and the time is right unless clocks differ.
  if (change->kind == OUTBOX_INSERT) {
    if (!insert_entity(entities, change, entity_id, now_ms, session, error) ||
        !find_tombstone(tombstones, event, &options, &before, error)) {
      return false;
    }
  } else if (!modify_entity(entities, change, entity_id, now_ms, &options, &before, error)) {
    return false;
  }
  if (change->expected_version && change->expected_version != before.version) {
    return outbox_fail(error, OUTBOX_CONFLICT, "entity: expected version %lld, found %lld",
                       (long long)change->expected_version, (long long)before.version);
  }

  // 2. Version and time of the event.
  int64_t version = before.version + 1;
  int64_t occurred_at_ms = outbox_occurred_at(now_ms, before.has_last ? &before.last_ms : NULL);

  // 3. The entity gets the same; for a deleted one, its tombstone.
  stamp_t stamp = {change->kind == OUTBOX_DELETE, version, occurred_at_ms};
  if (change->kind == OUTBOX_DELETE) {
    tombstone_query(event, &query);
    if (!put_stamp(tombstones, &query, stamp, &options, error)) {
      return false;
    }
  } else if (occurred_at_ms != now_ms || (change->kind == OUTBOX_INSERT && version != 1)) {
    BSON_APPEND_VALUE(&query, "_id", entity_id);
    if (!put_stamp(entities, &query, stamp, &options, error)) {
      return false;
    }
  }

  // 4. The event.
  return outbox_event_insert(command, version, occurred_at_ms, ret_receipt, error);
}

/* event.c - decodes outbox documents and orders events. */
#include "projector/domain/event.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/domain/describe.h"
#include "projector/domain/id_text.h"
#include "projector/domain/json_document.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* --- ids ---------------------------------------------------------------------------------- */

static int compare_int64(int64_t a, int64_t b) {
  return (a > b) - (a < b);
}

static int compare_bytes(const void *a, uint32_t a_length, const void *b, uint32_t b_length) {
  uint32_t common = MIN(a_length, b_length);
  int order = common ? memcmp(a, b, common) : 0;
  return order ? order : compare_int64(a_length, b_length);
}

int id_compare(const Id *a, const Id *b) {
  if (a->kind != b->kind)
    return a->kind < b->kind ? -1 : 1;
  if (a->kind == ID_INT)
    return compare_int64(a->number, b->number);
  return compare_bytes(a->bytes, a->length, b->bytes, b->length);
}

bool id_equal(const Id *a, const Id *b) {
  return a->kind == b->kind && a->length == b->length && a->number == b->number &&
         (a->length == 0 || memcmp(a->bytes, b->bytes, a->length) == 0);
}

const char *id_kind_name(IdKind kind) {
  static const char *const names[] = {"int", "string", "uuid", "objectid", "other"};
  return names[kind];
}

bool id_kind_from_name(const char *name, IdKind *ret_kind) {
  for (IdKind kind = 0; kind < ID_KINDS; kind++)
    if (!strcmp(name, id_kind_name(kind))) {
      *ret_kind = kind;
      return true;
    }
  return false;
}

static size_t hex_text(const uint8_t *bytes, size_t length, char *text) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < length; i++) {
    *text++ = digits[bytes[i] >> 4];
    *text++ = digits[bytes[i] & 15];
  }
  *text = '\0';
  return 2 * length;
}

size_t id_text(const Id *id, char text[static ID_TEXT_SIZE]) {
  switch (id->kind) {
  case ID_INT: return (size_t)snprintf(text, ID_TEXT_SIZE, "%lld", (long long)id->number);
  case ID_UUID: {
    static const uint8_t groups[] = {4, 2, 2, 2, 6};
    char *at = text;
    const uint8_t *bytes = id->bytes;
    for (size_t i = 0; i < sizeof groups; i++) {
      if (i)
        *at++ = '-';
      at += hex_text(bytes, groups[i], at);
      bytes += groups[i];
    }
    return (size_t)(at - text);
  }
  case ID_OBJECTID: return hex_text(id->bytes, id->length, text);
  case ID_STRING: {
    size_t length = id->length < ID_TEXT_SIZE ? id->length : ID_TEXT_SIZE - 1;
    if (length)
      memcpy(text, id->bytes, length);
    text[length] = '\0';
    return length;
  }
  case ID_OTHER: break;
  }
  return id_other_text(id, text);
}

bool id_from_text(IdKind kind, const char *text, size_t length, uint8_t bytes[static 16],
                  Id *ret_id) {
  Id id = {.kind = kind, .bytes = bytes};
  switch (kind) {
  case ID_INT:
    if (!id_read_int(text, length, &id.number))
      return false;
    id.bytes = NULL;
    break;
  case ID_STRING:
    id.bytes = (const uint8_t *)text;
    id.length = (uint32_t)length;
    break;
  case ID_UUID:
    if (!id_read_uuid(text, length, bytes))
      return false;
    id.length = 16;
    break;
  case ID_OBJECTID:
    if (!id_read_objectid(text, length, bytes))
      return false;
    id.length = 12;
    break;
  case ID_OTHER: return false;
  }
  *ret_id = id;
  return true;
}

/* No text is both a UUID and an ObjectId, so one buffer is enough. */
unsigned ids_from_text(const char *text, size_t length, uint8_t bytes[static 16],
                       Id ret_ids[static IDS_OF_TEXT]) {
  static const IdKind kinds[IDS_OF_TEXT] = {ID_STRING, ID_UUID, ID_OBJECTID, ID_INT};
  unsigned count = 0;
  for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++)
    count += id_from_text(kinds[k], text, length, bytes, &ret_ids[count]);
  return count;
}

bool ids_keep_kind(Id ids[static IDS_OF_TEXT], unsigned *count, const char *kind) {
  for (unsigned i = 0; i < *count; i++)
    if (!strcmp(id_kind_name(ids[i].kind), kind)) {
      ids[0] = ids[i];
      *count = 1;
      return true;
    }
  return false;
}

static bool set_bytes(Id *id, IdKind kind, const void *bytes, uint32_t length) {
  *id = (Id){.kind = kind, .length = length, .bytes = bytes};
  return true;
}

bool id_from_iter(const bson_iter_t *iter, Id *ret_id) {
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_INT32:
    *ret_id = (Id){.kind = ID_INT, .number = bson_iter_int32(iter)};
    return true;
  case BSON_TYPE_INT64:
    *ret_id = (Id){.kind = ID_INT, .number = bson_iter_int64(iter)};
    return true;
  case BSON_TYPE_UTF8: {
    uint32_t length;
    const char *text = bson_iter_utf8(iter, &length);
    return set_bytes(ret_id, ID_STRING, text, length);
  }
  case BSON_TYPE_OID: return set_bytes(ret_id, ID_OBJECTID, bson_iter_oid(iter)->bytes, 12);
  case BSON_TYPE_BINARY: {
    bson_subtype_t subtype;
    uint32_t length;
    const uint8_t *bytes;
    bson_iter_binary(iter, &subtype, &length, &bytes);
    if (subtype == BSON_SUBTYPE_UUID && length == 16)
      return set_bytes(ret_id, ID_UUID, bytes, length);
    return false;
  }
  default: return false;
  }
}

void id_append_bson(const Id *id, bson_t *document, const char *key) {
  switch (id->kind) {
  case ID_INT: BSON_APPEND_INT64(document, key, id->number); return;
  case ID_STRING:
    bson_append_utf8(document, key, -1, (const char *)id->bytes, (int)id->length);
    return;
  case ID_UUID:
    bson_append_binary(document, key, -1, BSON_SUBTYPE_UUID, id->bytes, id->length);
    return;
  case ID_OBJECTID: {
    bson_oid_t oid;
    bson_oid_init_from_data(&oid, id->bytes);
    BSON_APPEND_OID(document, key, &oid);
    return;
  }
  case ID_OTHER: return;
  }
}

static uint64_t id_hash(const Id *id) {
  uint64_t seed = (uint64_t)id->kind ^ (uint64_t)id->number;
  return XXH3_64bits_withSeed(id->length ? id->bytes : (const uint8_t *)"", id->length, seed);
}

guint id_hash_key(gconstpointer id) {
  return (guint)id_hash(id);
}

gboolean id_equal_key(gconstpointer a, gconstpointer b) {
  return id_equal(a, b);
}

/* --- order and aggregates ----------------------------------------------------------------- */

int order_key_compare(const OrderKey *a, const OrderKey *b) {
  int order = compare_int64(a->occurred_at, b->occurred_at);
  if (!order)
    order = compare_int64(a->version, b->version);
  return order ? order : id_compare(&a->event_id, &b->event_id);
}

void order_key_copy(const OrderKey *from, OrderKey *key, uint8_t id_bytes[static EVENT_ID_MAX]) {
  *key = *from;
  key->event_id.length = MIN(from->event_id.length, (uint32_t)EVENT_ID_MAX);
  if (key->event_id.length)
    memcpy(id_bytes, from->event_id.bytes, key->event_id.length);
  key->event_id.bytes = id_bytes;
}

uint64_t aggregate_hash(const Aggregate *aggregate) {
  return XXH3_64bits_withSeed(aggregate->type_length ? aggregate->type : "", aggregate->type_length,
                              id_hash(&aggregate->id));
}

bool aggregate_equal(const Aggregate *a, const Aggregate *b) {
  return a->type_length == b->type_length && id_equal(&a->id, &b->id) &&
         (a->type_length == 0 || memcmp(a->type, b->type, a->type_length) == 0);
}

int aggregate_compare(const Aggregate *a, const Aggregate *b) {
  int order = compare_bytes(a->type, a->type_length, b->type, b->type_length);
  return order ? order : id_compare(&a->id, &b->id);
}

guint aggregate_hash_key(gconstpointer aggregate) {
  return (guint)aggregate_hash(aggregate);
}

gboolean aggregate_equal_key(gconstpointer a, gconstpointer b) {
  return aggregate_equal(a, b);
}

Aggregate *aggregate_copy(const Aggregate *aggregate) {
  uint32_t id_length = aggregate->id.length;
  Aggregate *copy = g_malloc(sizeof *copy + aggregate->type_length + id_length);
  *copy = *aggregate;
  char *bytes = (char *)(copy + 1);
  if (aggregate->type_length)
    memcpy(bytes, aggregate->type, aggregate->type_length);
  copy->type = bytes;
  if (id_length) {
    memcpy(bytes + aggregate->type_length, aggregate->id.bytes, id_length);
    copy->id.bytes = (const uint8_t *)bytes + aggregate->type_length;
  }
  return copy;
}

const char *aggregate_text(const Aggregate *aggregate, char *text, size_t size) {
  char id[ID_TEXT_SIZE];
  id_text(&aggregate->id, id);
  snprintf(text, size, "%.*s %s", (int)aggregate->type_length, aggregate->type, id);
  return text;
}

/* --- decoding ----------------------------------------------------------------------------- */

static const char AN_EVENT_ID[] =
    "a UUID (binary subtype 4), an ObjectId or a string of 1 to 64 bytes";
static const char AN_AGGREGATE_ID[] =
    "a string of 1 to 255 bytes, a UUID (binary subtype 4), an ObjectId, an int32 or int64";
static const char A_TEXT[] = "a string of 1 to 128 bytes";

static void malformed(Event *event, const char *path, const char *expected, const char *found) {
  if (event->malformed)
    return; /* the first fault is the one to repair */
  event->malformed = g_new0(Failure, 1);
  failure_set(event->malformed, FAILURE_DATA, SOURCE_EVENT, 0, "%s: expected %s, found %s", path,
              expected, found);
}

/* The field does not match the contract: records what it is. */
static void misfit(Event *event, const bson_iter_t *iter, const char *expected) {
  char found[DESCRIPTION_SIZE];
  bson_describe(iter, found, sizeof found);
  malformed(event, bson_iter_key(iter), expected, found);
}

static bool is_text(const char *text, uint32_t length, uint32_t max) {
  return length >= 1 && length <= max && utf8_is_valid(text, length);
}

static bool is_id(const Id *id, uint32_t max) {
  return id->kind != ID_STRING || is_text((const char *)id->bytes, id->length, max);
}

/* BSON begins with its own length. */
static uint32_t bson_length(const uint8_t *bytes) {
  uint32_t length;
  memcpy(&length, bytes, sizeof length);
  return BSON_UINT32_FROM_LE(length);
}

static const bson_t *view_of(const uint8_t *bytes, bson_t *view) {
  static const uint8_t empty[] = {5, 0, 0, 0, 0};
  const uint8_t *there = bytes ? bytes : empty;
  bson_init_static(view, there, bson_length(there));
  return view;
}

const bson_t *event_document(const Event *event, bson_t *view) {
  return view_of(event->document, view);
}

const bson_t *event_payload(const Event *event, bson_t *view) {
  return view_of(event->payload, view);
}

const bson_t *event_metadata(const Event *event, bson_t *view) {
  return view_of(event->metadata, view);
}

static bool is_foreign(const Event *event) {
  bson_iter_t iter;
  bson_t view;
  return bson_iter_init(&iter, event_document(event, &view)) && bson_iter_next(&iter) &&
         !strcmp(bson_iter_key(&iter), EVENT_IS_FOREIGN);
}

static void take_event_id(Event *event, const bson_iter_t *iter) {
  Id *id = &event->key.event_id;
  if (event->other_id || id->kind != ID_OTHER)
    return; /* a second _id: the first one counts, as on the server */
  if (id_from_iter(iter, id) && (id->kind != ID_INT || is_foreign(event)) &&
      is_id(id, EVENT_ID_MAX))
    return;
  misfit(event, iter, AN_EVENT_ID);
  event->other_id = bson_new();
  bson_append_iter(event->other_id, "", 0, iter);
  set_bytes(id, ID_OTHER, bson_get_data(event->other_id), event->other_id->len);
}

static const char *take_text(Event *event, const bson_iter_t *iter, uint32_t max,
                             uint32_t *ret_length) {
  uint32_t length = 0;
  const char *text = BSON_ITER_HOLDS_UTF8(iter) ? bson_iter_utf8(iter, &length) : NULL;
  if (!text || !is_text(text, length, max)) {
    misfit(event, iter, A_TEXT);
    return NULL;
  }
  *ret_length = length;
  return text;
}

bool aggregate_id_from_iter(const bson_iter_t *iter, Id *ret_id) {
  return id_from_iter(iter, ret_id) && is_id(ret_id, AGGREGATE_ID_MAX);
}

static void take_aggregate_id(Event *event, const bson_iter_t *iter) {
  Id *id = &event->aggregate.id;
  if (aggregate_id_from_iter(iter, id))
    return;
  misfit(event, iter, AN_AGGREGATE_ID);
  id->kind = ID_OTHER;
}

static void take_version(Event *event, const bson_iter_t *iter) {
  if (BSON_ITER_HOLDS_NULL(iter))
    return;
  int64_t version = 0;
  if (BSON_ITER_HOLDS_INT(iter))
    version = bson_iter_as_int64(iter);
  else if (BSON_ITER_HOLDS_DOUBLE(iter) && bson_iter_double(iter) >= 1 &&
           bson_iter_double(iter) <= 9007199254740992.0 /* 2^53: every integer below is exact */)
    version = (int64_t)bson_iter_double(iter);
  if (version < 1 || (BSON_ITER_HOLDS_DOUBLE(iter) && (double)version != bson_iter_double(iter))) {
    misfit(event, iter, "an int64 from 1");
    return;
  }
  event->key.version = version;
}

static int64_t take_number(const bson_iter_t *iter, int64_t least, int64_t most) {
  int64_t number = bson_iter_as_int64(iter);
  return CLAMP(number, least, most);
}

/* The whole part. */
static int attempts_of_decimal(const bson_iter_t *iter) {
  bson_decimal128_t number;
  char text[BSON_DECIMAL128_STRING];
  Decimal decimal;
  int whole = 0;
  bson_iter_decimal128(iter, &number);
  bson_decimal128_to_string(&number, text);
  bool known = decimal_parse(text, strlen(text), &decimal);
  if (text[0] == '-' || text[0] == 'N' || (!known && strstr(text, "E-")))
    return 0;
  for (unsigned i = 0; known && i + decimal.scale < decimal.count && whole < ATTEMPTS_MAX; i++)
    whole = whole * 10 + decimal.digits[i];
  return known ? MIN(whole, ATTEMPTS_MAX) : ATTEMPTS_MAX;
}

/* Any kind of number, because a person at a shell writes doubles; anything else is none. The
 * filters of infra/mongo/outbox.c and outbox_append_counted see it in the same way. */
static int take_attempts(const bson_iter_t *iter) {
  if (BSON_ITER_HOLDS_INT(iter))
    return (int)take_number(iter, 0, ATTEMPTS_MAX);
  if (BSON_ITER_HOLDS_DECIMAL128(iter))
    return attempts_of_decimal(iter);
  double number = BSON_ITER_HOLDS_DOUBLE(iter) ? bson_iter_double(iter) : 0;
  return number >= 1 ? (int)MIN(number, ATTEMPTS_MAX) : 0; /* not a number: none */
}

/* Records why a text was not read as the document that it should be (event_fields.h). */
static bool misread(Event *event, const bson_iter_t *iter) {
  uint32_t length = 0;
  const char *text = BSON_ITER_HOLDS_UTF8(iter) ? bson_iter_utf8(iter, &length) : NULL;
  Failure why;
  if (!text || !json_document_begins(text, length))
    return false;
  bson_t *document = json_document_read_exactly(text, length, bson_iter_key(iter), &why);
  if (document)
    bson_destroy(document);
  else if (!event->malformed)
    event->malformed = g_memdup2(&why, sizeof why);
  if (event->malformed) {
    event->malformed->class = FAILURE_DATA;
    event->malformed->source = SOURCE_EVENT;
  }
  return event->malformed != NULL;
}

static void take_document(Event *event, const bson_iter_t *iter, const uint8_t **ret_bytes) {
  uint32_t length;
  if (!BSON_ITER_HOLDS_DOCUMENT(iter)) {
    if (!is_foreign(event) || !misread(event, iter))
      misfit(event, iter, "a document");
    return;
  }
  bson_iter_document(iter, &length, ret_bytes);
}

static void take_occurred_at(Event *event, const bson_iter_t *iter) {
  if (!BSON_ITER_HOLDS_DATE_TIME(iter)) {
    misfit(event, iter, "a date");
    return;
  }
  int64_t time = bson_iter_date_time(iter);
  if (!datetime_in_range(time)) {
    malformed(event, "occurred_at", "a date from year 1000 to 9999", "one outside");
    return;
  }
  event->key.occurred_at = time;
}

static void take_status(Event *event, const bson_iter_t *iter) {
  static const char *const names[] = {
      [STATUS_IN_PROGRESS] = "in_progress", [STATUS_FAILED] = "failed", [STATUS_DEAD] = "dead"};
  if (BSON_ITER_HOLDS_UTF8(iter))
    for (size_t i = STATUS_IN_PROGRESS; i < G_N_ELEMENTS(names); i++)
      if (!strcmp(bson_iter_utf8(iter, NULL), names[i]))
        event->status = (EventStatus)i;
}

static void take_field(Event *event, const bson_iter_t *iter) {
  const char *key = bson_iter_key(iter);
  switch (key[0]) {
  case '_':
    if (!strcmp(key, "_id"))
      take_event_id(event, iter);
    break;
  case 'a':
    if (!strcmp(key, "aggregate_type"))
      event->aggregate.type =
          take_text(event, iter, AGGREGATE_TYPE_MAX, &event->aggregate.type_length);
    else if (!strcmp(key, "aggregate_id"))
      take_aggregate_id(event, iter);
    else if (!strcmp(key, "attempts"))
      event->attempts = take_attempts(iter);
    break;
  case 'd':
    if (!strcmp(key, "due_in_ms") && BSON_ITER_HOLDS_INT(iter))
      event->due_in_ms = take_number(iter, -DUE_MAX_MS, DUE_MAX_MS);
    break;
  case 'e':
    if (!strcmp(key, "event_type"))
      event->event_type = take_text(event, iter, EVENT_TYPE_MAX, &event->event_type_length);
    break;
  case 'm':
    if (!strcmp(key, "metadata") && !BSON_ITER_HOLDS_NULL(iter))
      take_document(event, iter, &event->metadata);
    break;
  case 'n':
    if (!strcmp(key, "next_attempt_at"))
      event->retried = BSON_ITER_HOLDS_DATE_TIME(iter);
    break;
  case 'o':
    if (!strcmp(key, "occurred_at"))
      take_occurred_at(event, iter);
    break;
  case 'p':
    if (!strcmp(key, "payload"))
      take_document(event, iter, &event->payload);
    break;
  case 's':
    if (!strcmp(key, "status"))
      take_status(event, iter);
    break;
  case 'v':
    if (!strcmp(key, "version"))
      take_version(event, iter);
    break;
  default: break;
  }
}

Event *event_decode(const bson_t *document) {
  Event *event = g_malloc(sizeof *event + document->len);
  memset(event, 0, sizeof *event);
  event->key.occurred_at = INT64_MIN;
  event->key.event_id.kind = event->aggregate.id.kind = ID_OTHER;
  uint8_t *bytes = (uint8_t *)(event + 1);
  memcpy(bytes, bson_get_data(document), document->len);
  event->document = bytes;

  bson_iter_t iter;
  bson_iter_init_from_data(&iter, bytes, document->len);
  while (bson_iter_next(&iter))
    take_field(event, &iter);

  if (event->key.event_id.kind == ID_OTHER)
    malformed(event, "_id", AN_EVENT_ID, "nothing");
  if (!event->aggregate.type)
    malformed(event, "aggregate_type", A_TEXT, "nothing");
  if (event->aggregate.id.kind == ID_OTHER)
    malformed(event, "aggregate_id", AN_AGGREGATE_ID, "nothing");
  if (!event->event_type)
    malformed(event, "event_type", A_TEXT, "nothing");
  if (event->key.occurred_at == INT64_MIN)
    malformed(event, "occurred_at", "a date", "nothing");
  if (!event->payload)
    malformed(event, "payload", "a document", "nothing");
  event->aggregate_hash = event_has_aggregate(event) ? aggregate_hash(&event->aggregate)
                                                     : id_hash(&event->key.event_id);
  return event;
}

bool event_has_aggregate(const Event *event) {
  return event->aggregate.type && event->aggregate.id.kind != ID_OTHER &&
         event->key.event_id.kind != ID_OTHER;
}

void event_free(Event *event) {
  if (!event)
    return;
  g_free(event->malformed);
  if (event->other_id)
    bson_destroy(event->other_id);
  g_free(event);
}

size_t event_memory(const Event *event) {
  return sizeof *event + bson_length(event->document);
}

void event_append_id(const Event *event, bson_t *document, const char *key) {
  bson_iter_t iter;
  bson_t view;
  if (bson_iter_init_find(&iter, event_document(event, &view), "_id"))
    bson_append_iter(document, key, -1, &iter);
}

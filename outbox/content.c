// A digest of a command's event: a repeated command has the same one, another command with the
// same id does not.
#include "outbox/internal.h"

#include <stdlib.h>
#include <string.h>

// Documents may be nested about 180 deep in MongoDB; deeper levels are hashed unsorted.
enum { DEPTH_MAX = 256 };

// Not an iterator, which needs stricter alignment than the heap guarantees.
typedef struct {
  const char *key;
  uint32_t offset;
} member_t;

static int compare_members(const void *left, const void *right) {
  const member_t *a = left, *b = right;
  int order = strcmp(a->key, b->key);
  return order ? order : (a->offset > b->offset) - (a->offset < b->offset);
}

static void append_sorted(bson_t *to, const bson_t *document, bool is_array, int depth);

static void append_member(bson_t *to, const bson_iter_t *iter, int depth) {
  const char *key = bson_iter_key(iter);
  const uint8_t *data;
  uint32_t length;
  bson_t child = BSON_INITIALIZER, inner;
  bool is_array = BSON_ITER_HOLDS_ARRAY(iter);
  if (depth >= DEPTH_MAX || (!is_array && !BSON_ITER_HOLDS_DOCUMENT(iter))) {
    bson_append_iter(to, key, -1, iter);
    return;
  }
  if (is_array) {
    bson_iter_array(iter, &length, &data);
  } else {
    bson_iter_document(iter, &length, &data);
  }
  if (bson_init_static(&inner, data, length)) {
    append_sorted(&child, &inner, is_array, depth + 1);
  }
  if (is_array) {
    BSON_APPEND_ARRAY(to, key, &child);
  } else {
    BSON_APPEND_DOCUMENT(to, key, &child);
  }
  bson_destroy(&child);
}

// Two programs, or one program twice, may write the fields of a document in a different order.
static void append_sorted(bson_t *to, const bson_t *document, bool is_array, int depth) {
  uint32_t count = bson_count_keys(document);
  member_t *members = bson_malloc0((count + 1) * sizeof *members);
  bson_iter_t iter;
  uint32_t found = 0;
  bson_iter_init(&iter, document);
  while (found < count && bson_iter_next(&iter)) {
    members[found++] = (member_t){bson_iter_key(&iter), bson_iter_offset(&iter)};
  }
  if (!is_array) {
    qsort(members, found, sizeof *members, compare_members);
  }
  for (uint32_t i = 0; i < found; i++) {
    if (bson_iter_init_from_data_at_offset(&iter, bson_get_data(document), document->len,
                                           members[i].offset, (uint32_t)strlen(members[i].key))) {
      append_member(to, &iter, depth);
    }
  }
  bson_free(members);
}

void outbox_content(const char *event_type, const bson_t *payload,
                    uint8_t ret_digest[OUTBOX_SHA256_BYTES]) {
  OUTBOX_SCOPED_BSON content = BSON_INITIALIZER;
  bson_t child;
  BSON_APPEND_UTF8(&content, "event_type", event_type);
  BSON_APPEND_DOCUMENT_BEGIN(&content, "payload", &child);
  append_sorted(&child, payload, false, 0);
  bson_append_document_end(&content, &child);
  outbox_sha256(bson_get_data(&content), content.len, ret_digest);
}

static bool is_integer(const bson_value_t *id) {
  return id->value_type == BSON_TYPE_INT32 || id->value_type == BSON_TYPE_INT64;
}

static int64_t integer(const bson_value_t *id) {
  return id->value_type == BSON_TYPE_INT32 ? id->value.v_int32 : id->value.v_int64;
}

bool outbox_id_equal(const bson_value_t *a, const bson_value_t *b) {
  if (is_integer(a) && is_integer(b)) {
    return integer(a) == integer(b);
  }
  if (a->value_type != b->value_type) {
    return false;
  }
  switch (a->value_type) {
  case BSON_TYPE_UTF8:
    return a->value.v_utf8.len == b->value.v_utf8.len &&
           memcmp(a->value.v_utf8.str, b->value.v_utf8.str, a->value.v_utf8.len) == 0;
  case BSON_TYPE_OID: return bson_oid_equal(&a->value.v_oid, &b->value.v_oid);
  case BSON_TYPE_BINARY:
    return a->value.v_binary.subtype == b->value.v_binary.subtype &&
           a->value.v_binary.data_len == b->value.v_binary.data_len &&
           memcmp(a->value.v_binary.data, b->value.v_binary.data, a->value.v_binary.data_len) == 0;
  default: return false;
  }
}

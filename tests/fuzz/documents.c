/* documents.c - inputs that hold BSON documents, as text or as bytes. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

enum { AS_BYTES_ONE_IN = 8 };

static size_t line_length(const uint8_t *at, const uint8_t *end) {
  const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
  return (size_t)((newline ? newline : end) - at);
}

static bson_t *next_text(const uint8_t **at, const uint8_t *end) {
  size_t length = line_length(*at, end);
  bson_t *document = length ? bson_new_from_json(*at, (ssize_t)length, NULL) : NULL;
  *at += length + (*at + length < end);
  return document;
}

/* A server refuses a document with more than one _id. */
static bool has_several_ids(const bson_t *document) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, document, "_id") && bson_iter_find(&iter, "_id");
}

/* No server stores a document in which a nested one ends too early; libbson checks only the outer
 * one. */
static bool is_whole(const bson_t *document, int depth) {
  enum { DEPTH_MAX = 100 };
  bson_iter_t iter;
  bool whole = depth < DEPTH_MAX && bson_iter_init(&iter, document);
  while (whole && bson_iter_next(&iter)) {
    const uint8_t *data = NULL;
    uint32_t length = 0;
    bson_t child;
    if (BSON_ITER_HOLDS_DOCUMENT(&iter))
      bson_iter_document(&iter, &length, &data);
    else if (BSON_ITER_HOLDS_ARRAY(&iter))
      bson_iter_array(&iter, &length, &data);
    whole = !data || (bson_init_static(&child, data, length) && is_whole(&child, depth + 1));
  }
  return whole && iter.err_off == 0;
}

static bson_t *next_bytes(const uint8_t **at, const uint8_t *end) {
  uint32_t length;
  if ((size_t)(end - *at) < sizeof length)
    return NULL;
  memcpy(&length, *at, sizeof length);
  length = GUINT32_FROM_LE(length);
  if (length > (size_t)(end - *at))
    return NULL;
  bson_t *document = bson_new_from_data(*at, length);
  /* A server never sends a document with a broken structure, because it would not have stored
   * it. */
  if (document && (!bson_validate(document, BSON_VALIDATE_NONE, NULL) || !is_whole(document, 0) ||
                   has_several_ids(document)))
    g_clear_pointer(&document, bson_destroy);
  *at += length;
  return document;
}

bson_t *fuzz_next_document(const uint8_t **at, const uint8_t *end) {
  if (*at >= end)
    return NULL;
  return **at == '{' ? next_text(at, end) : next_bytes(at, end);
}

/* Seeds are text; now and then the same documents are mutated as bytes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  if (size > 0 && *data == '{' && seed % AS_BYTES_ONE_IN == 0) {
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    const uint8_t *at = data, *end = data + size;
    for (bson_t *document; (document = fuzz_next_document(&at, end)); bson_destroy(document))
      g_byte_array_append(bytes, bson_get_data(document), document->len);
    if (bytes->len > 0 && bytes->len <= max_size) {
      memcpy(data, bytes->data, bytes->len);
      size = bytes->len;
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

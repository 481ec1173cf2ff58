/* readable.c - repairs the texts of a document. */
#include "projector/domain/readable.h"

#include <glib.h>
#include <string.h>

/* A copy, repaired if need be. Zero bytes are valid. */
static char *repaired(const char *text, uint32_t *length) {
  if (bson_utf8_validate(text, *length, true))
    return g_memdup2(text, *length + 1);
  char *valid = g_utf8_make_valid(text, *length);
  *length = (uint32_t)strlen(valid);
  return valid;
}

static char *repaired_word(const char *text) {
  uint32_t length = (uint32_t)strlen(text);
  return repaired(text, &length);
}

/* Appends the document, or array, in the iterator. */
static bool append_nested(const bson_iter_t *iter, const char *key, bson_t *to) {
  const uint8_t *bytes;
  uint32_t length;
  bson_t nested, copy = BSON_INITIALIZER;
  bool array = BSON_ITER_HOLDS_ARRAY(iter);
  if (array)
    bson_iter_array(iter, &length, &bytes);
  else
    bson_iter_document(iter, &length, &bytes);
  if (!bson_init_static(&nested, bytes, length))
    return false;
  bool whole = readable_append(&nested, &copy);
  if (array)
    BSON_APPEND_ARRAY(to, key, &copy);
  else
    BSON_APPEND_DOCUMENT(to, key, &copy);
  bson_destroy(&copy);
  return whole;
}

static bool append_scoped(const bson_iter_t *iter, const char *key, bson_t *to) {
  const uint8_t *bytes;
  uint32_t length, scope_length;
  bson_t scope, copy = BSON_INITIALIZER;
  g_autofree char *code = repaired_word(bson_iter_codewscope(iter, &length, &scope_length, &bytes));
  bool whole = bson_init_static(&scope, bytes, scope_length) && readable_append(&scope, &copy);
  BSON_APPEND_CODE_WITH_SCOPE(to, key, code, &copy);
  bson_destroy(&copy);
  return whole;
}

static void append_regex(const bson_iter_t *iter, const char *key, bson_t *to) {
  const char *options = "";
  g_autofree char *regex = repaired_word(bson_iter_regex(iter, &options));
  g_autofree char *letters = repaired_word(options);
  BSON_APPEND_REGEX(to, key, regex, letters);
}

static void append_pointer(const bson_iter_t *iter, const char *key, bson_t *to) {
  const char *collection;
  const bson_oid_t *oid;
  uint32_t length;
  bson_iter_dbpointer(iter, &length, &collection, &oid);
  g_autofree char *name = repaired_word(collection);
  BSON_APPEND_DBPOINTER(to, key, name, oid);
}

static bool append_value(const bson_iter_t *iter, const char *key, bson_t *to) {
  g_autofree char *text = NULL;
  uint32_t length = 0;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_UTF8: {
    const char *found = bson_iter_utf8(iter, &length);
    text = repaired(found, &length);
    bson_append_utf8(to, key, -1, text, (int)length);
    return true;
  }
  case BSON_TYPE_SYMBOL:
    text = repaired_word(bson_iter_symbol(iter, &length));
    return BSON_APPEND_SYMBOL(to, key, text);
  case BSON_TYPE_CODE:
    text = repaired_word(bson_iter_code(iter, &length));
    return BSON_APPEND_CODE(to, key, text);
  case BSON_TYPE_CODEWSCOPE: return append_scoped(iter, key, to);
  case BSON_TYPE_REGEX: append_regex(iter, key, to); return true;
  case BSON_TYPE_DBPOINTER: append_pointer(iter, key, to); return true;
  case BSON_TYPE_DOCUMENT:
  case BSON_TYPE_ARRAY: return append_nested(iter, key, to);
  default: return bson_append_iter(to, key, -1, iter);
  }
}

bool readable_append(const bson_t *document, bson_t *to) {
  bson_iter_t iter;
  bool whole = bson_iter_init(&iter, document);
  while (bson_iter_next(&iter)) {
    g_autofree char *key = repaired_word(bson_iter_key(&iter));
    whole &= append_value(&iter, key, to);
  }
  return whole && iter.err_off == 0;
}

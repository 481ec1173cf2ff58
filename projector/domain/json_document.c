/* json_document.c - reads documents in (Extended) JSON. */
#include "projector/domain/json_document.h"

#include "outbox/text/extended_json.h"
#include "projector/domain/json_number.h"

#include <string.h>

bson_t *json_document_read(const char *text, size_t length, const char *path,
                           Failure *ret_failure) {
  char message[EXTENDED_JSON_MESSAGE_SIZE];
  bson_t *document = extended_json_read(text, length, path, message);
  if (!document)
    failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s", message);
  return document;
}

/* Readers differ in which of two members with one name they see. False: a failure at the second
 * one's path. */
static bool check_names(bson_iter_t iter, bool is_array, const char *path, Failure *ret_failure) {
  g_autoptr(GHashTable) names = is_array ? NULL : g_hash_table_new(g_str_hash, g_str_equal);
  while (bson_iter_next(&iter)) {
    bson_iter_t inner;
    bool again = names && !g_hash_table_add(names, (gpointer)bson_iter_key(&iter));
    bool array = BSON_ITER_HOLDS_ARRAY(&iter);
    if (!again && !array && !BSON_ITER_HOLDS_DOCUMENT(&iter))
      continue;
    g_autofree char *full = g_strconcat(path, ".", bson_iter_key(&iter), NULL);
    if (again)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "%s: expected each name once, found it twice", full);
    if (bson_iter_recurse(&iter, &inner) && !check_names(inner, array, full, ret_failure))
      return false;
  }
  return true;
}

bson_t *json_document_read_exactly(const char *text, size_t length, const char *path,
                                   Failure *ret_failure) {
  bson_iter_t iter;
  g_autoptr(GString) exact = json_wide_as_decimals(text, length);
  if (exact) {
    bson_t *document = json_document_read(exact->str, exact->len, path, ret_failure);
    if (!document ||
        (bson_iter_init(&iter, document) && check_names(iter, false, path, ret_failure)))
      return document;
    bson_destroy(document);
    return NULL;
  }
  failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
              "%s: expected JSON whose numbers have at most 34 digits, found more", path);
  return NULL;
}

bool json_document_begins(const char *text, size_t length) {
  size_t space = strspn(text, " \t\r\n");
  return space < length && text[space] == '{';
}

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

bson_t *json_document_read_exactly(const char *text, size_t length, const char *path,
                                   Failure *ret_failure) {
  g_autoptr(GString) exact = json_wide_as_decimals(text, length);
  if (exact)
    return json_document_read(exact->str, exact->len, path, ret_failure);
  failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
              "%s: expected JSON whose numbers have at most 34 digits, found more", path);
  return NULL;
}

bool json_document_begins(const char *text, size_t length) {
  size_t space = strspn(text, " \t\r\n");
  return space < length && text[space] == '{';
}

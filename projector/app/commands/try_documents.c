/* try_documents.c - reads the documents that `projector try` is given. */
#include "projector/app/commands/try.h"

#include "projector/domain/json.h"
#include "projector/domain/json_document.h"

#include <string.h>

static bool add_document(json_t *documents, json_t *value, const char *name, Failure *ret_failure) {
  size_t i;
  json_t *member;
  if (json_is_object(value))
    return json_array_append(documents, value) == 0;
  if (!json_is_array(value))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected an event document, or a list of them", name);
  json_array_foreach(value, i, member) {
    if (!add_document(documents, member, name, ret_failure))
      return false;
  }
  return true;
}

json_t *try_documents(const char *text, size_t length, const char *name, Failure *ret_failure) {
  json_t *documents = json_array();
  size_t at = g_str_has_prefix(text, "\xEF\xBB\xBF") ? 3 : 0;
  bool good = true;
  while (good && (at += strspn(text + at, " \t\r\n")) < length) {
    json_error_t error;
    json_t *value = json_loadb(
        text + at, length - at,
        JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    good = value ? add_document(documents, value, name, ret_failure)
                 : failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                               "%s:%d:%d: not valid JSON: %s", name, error.line, error.column,
                               error.text);
    at += good ? (size_t)error.position : 0;
    json_decref(value);
  }
  if (good)
    return documents;
  json_decref(documents);
  return NULL;
}

bson_t *try_bson(const json_t *json, const char *path, Failure *ret_failure) {
  char *text = json_dumps(json, JSON_COMPACT);
  bson_t *document = text ? json_document_read(text, strlen(text), path, ret_failure)
                          : (json_complain(path, "a document", json, ret_failure), (bson_t *)NULL);
  free(text);
  return document;
}

Event *try_event(const Config *config, const json_t *json, const char *path, Failure *ret_failure) {
  bson_t *document = try_bson(json, path, ret_failure);
  if (document && config->mongodb.fields.foreign) {
    bson_t *translated = event_fields_translate(&config->mongodb.fields, document);
    bson_destroy(document);
    document = translated;
  }
  Event *event = document ? event_decode(document) : NULL;
  if (document)
    bson_destroy(document);
  return event;
}

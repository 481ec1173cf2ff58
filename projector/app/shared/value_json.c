/* value_json.c - values and ids as JSON. */
#include "projector/app/shared/value_json.h"

#include <string.h>

json_t *text_json(const char *text, size_t length) {
  g_autofree char *valid = g_utf8_make_valid(text, (gssize)length);
  return json_string(valid);
}

json_t *value_json(const Value *value) {
  g_autoptr(GString) text = g_string_new(NULL);
  if (value->kind == VALUE_NULL)
    return json_null();
  value_append_text(text, value);
  return text_json(text->str, text->len);
}

json_t *column_json(const Column *column, const Value *value) {
  g_autoptr(GString) text = g_string_new(NULL);
  if (value->kind != VALUE_DECIMAL || column->type.kind != TYPE_DECIMAL)
    return value_json(value);
  value_append_text(text, value);
  const char *point = strchr(text->str, '.');
  size_t digits = point ? strlen(point + 1) : 0;
  if (!point && column->type.scale > 0)
    g_string_append_c(text, '.');
  for (; digits < column->type.scale; digits++)
    g_string_append_c(text, '0');
  return text_json(text->str, text->len);
}

json_t *id_json(const Id *id) {
  char text[ID_TEXT_SIZE];
  return text_json(text, id_text(id, text));
}

/* id_text.c - reads and writes the text forms of ids. */
#include "projector/domain/id_text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static bool read_hex(const char *text, size_t digits, uint8_t *bytes) {
  for (size_t i = 0; i < digits; i++) {
    int value = g_ascii_xdigit_value(text[i]);
    if (value < 0)
      return false;
    bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | value : value << 4);
  }
  return true;
}

bool id_read_uuid(const char *text, size_t length, uint8_t bytes[static 16]) {
  return length == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' &&
         read_hex(text, 8, bytes) && read_hex(text + 9, 4, bytes + 4) &&
         read_hex(text + 14, 4, bytes + 6) && read_hex(text + 19, 4, bytes + 8) &&
         read_hex(text + 24, 12, bytes + 10);
}

bool id_read_objectid(const char *text, size_t length, uint8_t bytes[static 12]) {
  return length == 24 && read_hex(text, 24, bytes);
}

bool id_read_int(const char *text, size_t length, int64_t *ret_number) {
  char digits[24], form[24];
  gint64 number;
  g_strlcpy(digits, text, MIN(length + 1, sizeof digits));
  if (length >= sizeof digits ||
      !g_ascii_string_to_signed(digits, 10, G_MININT64, G_MAXINT64, &number, NULL))
    return false;
  snprintf(form, sizeof form, "%lld", (long long)number);
  if (strcmp(form, digits) != 0)
    return false;
  *ret_number = number;
  return true;
}

/* --- ids that break the contract ------------------------------------------------------------ */

/* Its bytes may have been cut (order_key_copy): then they are no BSON. */
char *id_other_json(const Id *id) {
  bson_t document;
  if (id->kind != ID_OTHER || !id->bytes || !bson_init_static(&document, id->bytes, id->length))
    return NULL;
  char *json = bson_as_relaxed_extended_json(&document, NULL); /* { "" : 42 } */
  char *value = json ? strchr(json, ':') : NULL;
  char *end = json ? strrchr(json, '}') : NULL;
  char *text = value && end ? g_strndup(value + 1, (gsize)(end - value - 1)) : NULL;
  bson_free(json);
  return text ? g_strstrip(text) : NULL;
}

size_t id_other_text(const Id *id, char text[static ID_TEXT_SIZE]) {
  static const char more[] = "…";
  g_autofree char *json = id_other_json(id);
  if (!json)
    return g_strlcpy(text, "(not a valid id)", ID_TEXT_SIZE);
  size_t length = g_strlcpy(text, json, ID_TEXT_SIZE);
  if (length < ID_TEXT_SIZE)
    return length;
  const char *end;
  text[ID_TEXT_SIZE - sizeof more] = '\0';
  g_utf8_validate(text, -1, &end); /* no half a character */
  text[end - text] = '\0';
  g_strlcat(text, more, ID_TEXT_SIZE);
  return strlen(text);
}

/* An `_id` is none of these types, and a filter takes them, and fields with "$", for operators. */
static bool can_be_id(const bson_iter_t *iter) {
  bson_iter_t member;
  if (BSON_ITER_HOLDS_ARRAY(iter) || BSON_ITER_HOLDS_REGEX(iter) || BSON_ITER_HOLDS_UNDEFINED(iter))
    return false;
  if (BSON_ITER_HOLDS_DOCUMENT(iter) && bson_iter_recurse(iter, &member))
    while (bson_iter_next(&member))
      if (bson_iter_key(&member)[0] == '$')
        return false;
  return true;
}

/* What ids_from_text finds already. */
static bool is_contracts(const bson_iter_t *iter) {
  uint32_t length = 0;
  bson_subtype_t subtype = BSON_SUBTYPE_BINARY;
  const uint8_t *bytes;
  if (BSON_ITER_HOLDS_UTF8(iter))
    bson_iter_utf8(iter, &length);
  if (BSON_ITER_HOLDS_BINARY(iter))
    bson_iter_binary(iter, &subtype, &length, &bytes);
  return BSON_ITER_HOLDS_INT(iter) || BSON_ITER_HOLDS_OID(iter) ||
         (BSON_ITER_HOLDS_UTF8(iter) && length >= 1 && length <= EVENT_ID_MAX) ||
         (subtype == BSON_SUBTYPE_UUID && length == 16);
}

bson_t *id_other_from_text(const char *text) {
  /* one value, and nothing behind it */
  json_t *one = json_loadb(text, strlen(text), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  if (!one)
    return NULL;
  json_decref(one);
  g_autofree char *json = g_strdup_printf("{\"\": %s}", text);
  bson_t *document = bson_new_from_json((const uint8_t *)json, -1, NULL);
  bson_iter_t iter;
  if (document && bson_iter_init_find(&iter, document, "") && can_be_id(&iter) &&
      !is_contracts(&iter))
    return document;
  if (document)
    bson_destroy(document);
  return NULL;
}

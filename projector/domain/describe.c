/* describe.c - a value and its type in a few words. */
#include "projector/domain/describe.h"

#include "outbox/text/clean.h"
#include "projector/domain/datetime.h"

#include <stdio.h>
#include <string.h>

enum { JSON_BYTES = DESCRIBED_CHARACTERS * 6 };

bool utf8_is_valid(const char *text, size_t length) {
  /* Where NULs are allowed, libbson takes C0 80 for one; no other text contains a byte C0. */
  return bson_utf8_validate(text, length, true) && (!length || !memchr(text, 0xC0, length));
}

static const char *type_text(bson_type_t type) {
  switch (type) {
  case BSON_TYPE_DOUBLE: return "double";
  case BSON_TYPE_UTF8: return "string";
  case BSON_TYPE_DOCUMENT: return "document";
  case BSON_TYPE_ARRAY: return "array";
  case BSON_TYPE_BINARY: return "binary";
  case BSON_TYPE_UNDEFINED: return "undefined";
  case BSON_TYPE_OID: return "ObjectId";
  case BSON_TYPE_BOOL: return "bool";
  case BSON_TYPE_DATE_TIME: return "date";
  case BSON_TYPE_NULL: return "null";
  case BSON_TYPE_REGEX: return "regular expression";
  case BSON_TYPE_DBPOINTER: return "DBPointer";
  case BSON_TYPE_CODE: return "JavaScript";
  case BSON_TYPE_SYMBOL: return "symbol";
  case BSON_TYPE_CODEWSCOPE: return "JavaScript with scope";
  case BSON_TYPE_INT32: return "int32";
  case BSON_TYPE_TIMESTAMP: return "timestamp";
  case BSON_TYPE_INT64: return "int64";
  case BSON_TYPE_DECIMAL128: return "Decimal128";
  case BSON_TYPE_MAXKEY: return "MaxKey";
  case BSON_TYPE_MINKEY: return "MinKey";
  case BSON_TYPE_EOD: break;
  }
  return "nothing";
}

/* The position at which the text stops being UTF-8. */
static size_t first_wrong_byte(const char *text, size_t length) {
  size_t at = 0;
  while (at < length) {
    size_t width = 1;
    while (width < 4 && at + width <= length && !utf8_is_valid(text + at, width))
      width++;
    if (at + width > length || !utf8_is_valid(text + at, width))
      return at;
    at += width;
  }
  return at;
}

/* In double quotes; hidden characters, which end a C string or a line, are escaped. */
static void append_shortened(GString *to, const char *utf8, size_t length) {
  const char *at = utf8, *end = utf8 + length;
  g_string_append_c(to, '"');
  for (int i = 0; at < end && i < DESCRIBED_CHARACTERS; i++) {
    gunichar c = *at ? g_utf8_get_char(at) : 0;
    if (is_hidden_character(c))
      g_string_append_printf(to, "\\u%04x", (unsigned)c);
    else
      g_string_append_unichar(to, c);
    at = *at ? g_utf8_next_char(at) : at + 1;
  }
  g_string_append(to, at < end ? "\"…" : "\"");
}

static void append_string(GString *to, const char *text, uint32_t length) {
  if (utf8_is_valid(text, length)) {
    g_string_append_printf(to, " of %u bytes ", length);
    append_shortened(to, text, length);
    return;
  }
  size_t wrong = first_wrong_byte(text, length);
  g_string_append_printf(to, " that is not UTF-8 (%u bytes, the first wrong one is 0x%02x at %zu)",
                         length, (unsigned char)text[wrong], wrong);
}

/* The JSON of a bare value is that of {"v": value}, unwrapped. It is quoted like a text, so that a
 * log can find its end. */
static void append_document(GString *to, const bson_iter_t *iter) {
  bson_t wrapped = BSON_INITIALIZER;
  bson_json_opts_t *options = bson_json_opts_new(BSON_JSON_MODE_RELAXED, JSON_BYTES);
  char *json = bson_append_iter(&wrapped, "v", 1, iter)
                   ? bson_as_json_with_opts(&wrapped, NULL, options)
                   : NULL;
  bson_json_opts_destroy(options);
  bson_destroy(&wrapped);
  g_autofree char *valid = json ? g_utf8_make_valid(json, -1) : NULL;
  bson_free(json);
  const char *start = valid ? strchr(valid, ':') : NULL;
  if (!start) {
    g_string_append(to, " with a text that is not UTF-8");
    return;
  }
  start += strspn(start, ": ");
  size_t length = strlen(start);
  if (length > 2 && length < JSON_BYTES - 16) /* complete, including the end of the wrapping */
    length -= strlen(" }");
  g_string_append_c(to, ' ');
  append_shortened(to, start, length);
}

static void append_date(GString *to, int64_t ms) {
  char date[DATETIME_TEXT_SIZE] = "out of range";
  if (datetime_in_range(ms))
    datetime_format(ms * 1000, 3, date);
  g_string_append_printf(to, " %s", date);
}

static void append_binary(GString *to, const bson_iter_t *iter) {
  bson_subtype_t subtype;
  const uint8_t *bytes;
  uint32_t length;
  bson_iter_binary(iter, &subtype, &length, &bytes);
  g_string_append_printf(to, " of %u bytes, subtype %d", length, (int)subtype);
}

static void append_value(GString *to, const bson_iter_t *iter) {
  uint32_t length;
  const char *text;
  char number[BSON_DECIMAL128_STRING];
  bson_decimal128_t decimal;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64:
    g_string_append_printf(to, " %lld", (long long)bson_iter_as_int64(iter));
    return;
  case BSON_TYPE_DOUBLE: g_string_append_printf(to, " %.17g", bson_iter_double(iter)); return;
  case BSON_TYPE_DECIMAL128:
    bson_iter_decimal128(iter, &decimal);
    bson_decimal128_to_string(&decimal, number);
    g_string_append_printf(to, " %s", number);
    return;
  case BSON_TYPE_UTF8:
    text = bson_iter_utf8(iter, &length);
    append_string(to, text, length);
    return;
  case BSON_TYPE_OID:
    bson_oid_to_string(bson_iter_oid(iter), number);
    g_string_append_printf(to, " %s", number);
    return;
  case BSON_TYPE_BOOL: g_string_append(to, bson_iter_bool(iter) ? " true" : " false"); return;
  case BSON_TYPE_BINARY: append_binary(to, iter); return;
  case BSON_TYPE_DATE_TIME: append_date(to, bson_iter_date_time(iter)); return;
  case BSON_TYPE_DOCUMENT:
  case BSON_TYPE_ARRAY: append_document(to, iter); return;
  default: return;
  }
}

void bson_describe(const bson_iter_t *iter, char *text, size_t size) {
  g_autoptr(GString) found = g_string_new(type_text(bson_iter_type(iter)));
  append_value(found, iter);
  g_strlcpy(text, found->str, size);
}

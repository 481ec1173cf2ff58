/* value_special.c - the less common types, and BSON as plain JSON. */
#include "projector/domain/value_special.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/domain/describe.h"
#include "projector/domain/json_number.h"
#include "projector/domain/real.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool type_is_special(const ColumnType *type) {
  return type->kind >= TYPE_ENUM || (type->kind == TYPE_JSON && type->plain);
}

static bool text_value(const char *text, size_t length, Arena *arena, Value *ret_value) {
  *ret_value = (Value){.kind = VALUE_TEXT, .length = (uint32_t)length};
  ret_value->text = arena_copy(arena, text, length);
  return true;
}

/* --- enum, year, bit, float ----------------------------------------------------------------- */

/* Labels contain no quotes (types.c), so a label is found with its quotes. */
static bool has_label(const ColumnType *type, const char *text, size_t length) {
  for (const char *at = strchr(type->text, '\''); at;) {
    const char *end = strchr(at + 1, '\'');
    if (!end)
      return false;
    if ((size_t)(end - at - 1) == length && !memcmp(at + 1, text, length))
      return true;
    at = strchr(end + 1, '\'');
  }
  return false;
}

static bool to_enum(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                    Value *ret_value) {
  uint32_t length;
  if (!BSON_ITER_HOLDS_UTF8(iter))
    return false;
  const char *text = bson_iter_utf8(iter, &length);
  return has_label(type, text, length) && text_value(text, length, arena, ret_value);
}

static bool whole_number(const bson_iter_t *iter, int64_t *ret_number) {
  if (BSON_ITER_HOLDS_INT(iter))
    *ret_number = bson_iter_as_int64(iter);
  else if (BSON_ITER_HOLDS_DOUBLE(iter) && fabs(bson_iter_double(iter)) < 1e9 &&
           bson_iter_double(iter) == (double)(int64_t)bson_iter_double(iter))
    *ret_number = (int64_t)bson_iter_double(iter);
  else
    return false;
  return true;
}

static bool to_year(const bson_iter_t *iter, Value *ret_value) {
  int64_t year;
  if (!whole_number(iter, &year) || year < 1901 || year > 2155)
    return false;
  *ret_value = (Value){.kind = VALUE_INT, .integer = year};
  return true;
}

static bool to_bit(const bson_iter_t *iter, Value *ret_value) {
  int64_t bit = BSON_ITER_HOLDS_BOOL(iter) ? bson_iter_bool(iter) : -1;
  if (!BSON_ITER_HOLDS_BOOL(iter) && !whole_number(iter, &bit))
    return false;
  *ret_value = (Value){.kind = VALUE_INT, .integer = bit};
  return bit == 0 || bit == 1;
}

static bool to_float(const bson_iter_t *iter, Value *ret_value) {
  double real;
  if (BSON_ITER_HOLDS_DOUBLE(iter))
    real = bson_iter_double(iter);
  else if (BSON_ITER_HOLDS_INT(iter) && bson_iter_as_int64(iter) >= -16777216 &&
           bson_iter_as_int64(iter) <= 16777216)
    real = (double)bson_iter_as_int64(iter);
  else
    return false;
  if (!isfinite(real) || real > 3.4028234663852886e38 || real < -3.4028234663852886e38 ||
      real_distance((double)(float)real, real) != 0)
    return false;
  *ret_value = (Value){.kind = VALUE_DOUBLE, .real = real};
  return true;
}

/* --- time ----------------------------------------------------------------------------------- */

static bool two_digits(const char **at, const char *end, unsigned below, unsigned *ret_number) {
  if (end - *at < 2 || !g_ascii_isdigit((*at)[0]) || !g_ascii_isdigit((*at)[1]))
    return false;
  *ret_number = (unsigned)((*at)[0] - '0') * 10 + (unsigned)((*at)[1] - '0');
  *at += 2;
  return *ret_number < below;
}

static bool colon(const char **at, const char *end) {
  return *at < end && *(*at)++ == ':';
}

/* Converts "[-]HH:MM:SS[.ffffff]", up to 838 hours, into the form in which a server returns it:
 * with as many fraction digits as the column has. */
static bool time_from_text(const char *text, size_t length, unsigned fraction, Arena *arena,
                           Value *ret_value) {
  const char *at = text, *end = text + length;
  bool negative = at < end && *at == '-';
  unsigned hours = 0, minutes, seconds, digits = 0, micros = 0;
  char form[32];
  for (at += negative; at < end && g_ascii_isdigit(*at) && digits < 3; at++, digits++)
    hours = hours * 10 + (unsigned)(*at - '0');
  if (digits < 2 || hours > 838 || !colon(&at, end) || !two_digits(&at, end, 60, &minutes) ||
      !colon(&at, end) || !two_digits(&at, end, 60, &seconds))
    return false;
  if (at < end && *at == '.') {
    unsigned scale = 100000;
    if (++at == end)
      return false;
    for (; at < end && g_ascii_isdigit(*at); at++, scale /= 10) {
      if (scale == 0 && *at != '0')
        return false;
      micros += (unsigned)(*at - '0') * scale;
    }
  }
  static const unsigned units[] = {1000000, 100000, 10000, 1000, 100, 10, 1};
  if (at != end || micros % units[fraction] != 0 ||
      (hours == 838 && minutes == 59 && seconds == 59 && micros > 0))
    return false;
  bool zero = hours + minutes + seconds + micros == 0; /* there is no -00:00:00 */
  int size = g_snprintf(form, sizeof form, "%s%02u:%02u:%02u.%06u", negative && !zero ? "-" : "",
                        hours, minutes, seconds, micros);
  return text_value(form, (size_t)size - (fraction ? 6 - fraction : 7), arena, ret_value);
}

static bool to_time(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                    Value *ret_value) {
  uint32_t length;
  if (!BSON_ITER_HOLDS_UTF8(iter))
    return false;
  const char *text = bson_iter_utf8(iter, &length);
  return time_from_text(text, length, type->length, arena, ret_value);
}

/* --- plain JSON ----------------------------------------------------------------------------- */

typedef struct PlainJson {
  GString *text;
  bool wide;      /* Value.wide */
  bool misfit;    /* something has no plain form: */
  bson_iter_t at; /* the innermost such value */
  GString *path;  /* ".a.0", where it is; NULL: nobody asks */
} PlainJson;

static bool append_plain(PlainJson *json, const bson_iter_t *iter);

static bool append_text(GString *json, const char *text, size_t length) {
  if (!utf8_is_valid(text, length))
    return false;
  g_string_append_c(json, '"');
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\')
      g_string_append_c(json, '\\');
    if (c < 0x20)
      g_string_append_printf(json, "\\u%04x", c);
    else
      g_string_append_c(json, (char)c);
  }
  g_string_append_c(json, '"');
  return true;
}

static bool append_real(GString *json, double real) {
  char text[REAL_TEXT_SIZE];
  if (!isfinite(real))
    return false;
  real_format(real, text);
  g_string_append(json, text);
  if (!strpbrk(text, ".e"))
    g_string_append(json, ".0");
  return true;
}

static bool append_decimal(PlainJson *json, const bson_iter_t *iter) {
  char text[MAX(BSON_DECIMAL128_STRING, DECIMAL_TEXT_SIZE)];
  bson_decimal128_t number;
  Decimal decimal;
  bson_iter_decimal128(iter, &number);
  bson_decimal128_to_string(&number, text);
  if (!decimal_parse(text, strlen(text), &decimal))
    return false;
  JsonWidth width = json_width(&decimal);
  if (width == JSON_NEVER)
    return false;
  json->wide |= width == JSON_WIDE;
  if (strpbrk(text, "Ee") || width == JSON_WIDE)
    decimal_format(&decimal, text);
  g_string_append(json->text, text);
  return true;
}

static bool append_time(GString *json, int64_t ms) {
  char text[DATETIME_TEXT_SIZE];
  if (!datetime_fits_column(ms))
    return false;
  datetime_format(ms * 1000, ms % 1000 ? 3 : 0, text);
  *strchr(text, ' ') = 'T';
  g_string_append_printf(json, "\"%sZ\"", text);
  return true;
}

/* On the way out of the documents around it. Returns false. */
static bool note_misfit(PlainJson *json, const bson_iter_t *member) {
  if (!json->misfit)
    json->at = *member;
  json->misfit = true;
  if (json->path) {
    g_string_prepend(json->path, bson_iter_key(member));
    g_string_prepend_c(json->path, '.');
  }
  return false;
}

static bool append_members(PlainJson *json, const bson_iter_t *iter, bool array) {
  bson_iter_t member;
  bool first = true;
  GString *text = json->text;
  if (!bson_iter_recurse(iter, &member))
    return false;
  g_string_append_c(text, array ? '[' : '{');
  for (; bson_iter_next(&member); first = false) {
    g_string_append(text, first ? "" : ", ");
    if (!array) {
      if (!append_text(text, bson_iter_key(&member), strlen(bson_iter_key(&member))))
        return false;
      g_string_append(text, ": ");
    }
    if (!append_plain(json, &member))
      return note_misfit(json, &member);
  }
  g_string_append_c(text, array ? ']' : '}');
  return true;
}

/* Values without a plain form stay extended JSON. */
static bool append_extended(GString *json, const bson_iter_t *iter) {
  bson_t wrapped = BSON_INITIALIZER;
  size_t length = 0;
  char *text = bson_append_iter(&wrapped, "v", 1, iter)
                   ? bson_as_relaxed_extended_json(&wrapped, &length)
                   : NULL;
  bson_destroy(&wrapped);
  if (!text)
    return false;
  const char *start = strchr(text, ':') + 1;
  g_string_append_len(json, start, text + length - 1 - start);
  bson_free(text);
  return true;
}

static bool append_id(GString *json, const bson_iter_t *iter) {
  char text[ID_TEXT_SIZE];
  Id id;
  return id_from_iter(iter, &id) ? append_text(json, text, id_text(&id, text))
                                 : append_extended(json, iter);
}

static bool append_plain(PlainJson *json, const bson_iter_t *iter) {
  uint32_t length;
  const char *utf8;
  GString *text = json->text;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64:
    g_string_append_printf(text, "%" G_GINT64_FORMAT, bson_iter_as_int64(iter));
    return true;
  case BSON_TYPE_DOUBLE: return append_real(text, bson_iter_double(iter));
  case BSON_TYPE_DECIMAL128: return append_decimal(json, iter);
  case BSON_TYPE_BOOL: g_string_append(text, bson_iter_bool(iter) ? "true" : "false"); return true;
  case BSON_TYPE_NULL:
  case BSON_TYPE_UNDEFINED: g_string_append(text, "null"); return true;
  case BSON_TYPE_UTF8: utf8 = bson_iter_utf8(iter, &length); return append_text(text, utf8, length);
  case BSON_TYPE_DATE_TIME: return append_time(text, bson_iter_date_time(iter));
  case BSON_TYPE_OID:
  case BSON_TYPE_BINARY: return append_id(text, iter);
  case BSON_TYPE_DOCUMENT: return append_members(json, iter, false);
  case BSON_TYPE_ARRAY: return append_members(json, iter, true);
  default: return append_extended(text, iter);
  }
}

static bool to_plain_json(const bson_iter_t *iter, Arena *arena, Value *ret_value) {
  g_autoptr(GString) text = g_string_new(NULL);
  PlainJson json = {.text = text};
  if (!append_plain(&json, iter) || !text_value(text->str, text->len, arena, ret_value))
    return false;
  ret_value->wide = json.wide;
  return true;
}

enum { PATH_SHOWN = 60 }; /* characters */

char *plain_json_misfit(const bson_iter_t *iter, bson_iter_t *ret_value) {
  g_autoptr(GString) text = g_string_new(NULL), path = g_string_new(NULL);
  PlainJson json = {.text = text, .path = path};
  append_plain(&json, iter);
  *ret_value = json.misfit ? json.at : *iter;
  g_autofree char *valid = g_utf8_make_valid(path->str, (gssize)path->len);
  glong length = g_utf8_strlen(valid, -1);
  return g_utf8_substring(valid, *valid == '.', MIN(length, PATH_SHOWN));
}

/* --- all of them ---------------------------------------------------------------------------- */

bool special_convert(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                     Value *ret_value) {
  switch (type->kind) {
  case TYPE_ENUM: return to_enum(iter, type, arena, ret_value);
  case TYPE_YEAR: return to_year(iter, ret_value);
  case TYPE_TIME: return to_time(iter, type, arena, ret_value);
  case TYPE_BIT: return to_bit(iter, ret_value);
  case TYPE_FLOAT: return to_float(iter, ret_value);
  default: return to_plain_json(iter, arena, ret_value);
  }
}

bool special_from_sql(const char *text, size_t length, const ColumnType *type, Arena *arena,
                      Value *ret_value) {
  char digits[8];
  switch (type->kind) {
  case TYPE_YEAR:
    g_strlcpy(digits, text, MIN(length + 1, sizeof digits));
    *ret_value = (Value){.kind = VALUE_INT, .integer = (int64_t)g_ascii_strtoull(digits, NULL, 10)};
    return true;
  case TYPE_BIT: /* a byte; for a boolean column a digit */
    if (length != 1)
      return false;
    *ret_value = (Value){.kind = VALUE_INT, .integer = text[0] & 1};
    return true;
  case TYPE_FLOAT:
    *ret_value = (Value){.kind = VALUE_DOUBLE, .real = g_ascii_strtod(text, NULL)};
    return true;
  case TYPE_TIME: /* the column may have more fraction digits than the mapping says */
    return time_from_text(text, length, type->length, arena, ret_value) ||
           text_value(text, length, arena, ret_value);
  default: return text_value(text, length, arena, ret_value);
  }
}

// A strict reader of Extended JSON before libbson's: refuses what that one would misread silently.
//
// libbson takes an object for a value when its first key is one of those in FORMS, and it is not
// the outermost. From then on only what the form says may follow.
#include "outbox/text/extended_json.h"

#include "outbox/text/iso8601.h"

#include <glib.h>
#include <math.h>
#include <string.h>

// libbson itself takes fewer levels, with a message of its own.
enum { DEPTH_MAX = 200, INSIDE_MAX = 2 };

typedef struct {
  const char *at, *end;
  int depth;
  GString *path;
  GString *string; // the last string that was read, unescaped
  char *message;
} reader_t;

// Reads the value of a member of a form.
typedef bool (*read_t)(reader_t *reader);

typedef struct {
  const char *key;
  read_t read;
} member_t;

typedef struct {
  member_t members[INSIDE_MAX];
  int required; // how many of them, from the first
} form_t;

static const char A_VALUE[] = "a value of JSON";

static bool read_value(reader_t *reader);

// ---- complaints ----

static bool complain(reader_t *reader, const char *expected, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
static bool complain(reader_t *reader, const char *expected, const char *format, ...) {
  va_list args;
  va_start(args, format);
  g_autofree char *found = g_strdup_vprintf(format, args);
  va_end(args);
  g_snprintf(reader->message, EXTENDED_JSON_MESSAGE_SIZE, "%.200s%sexpected %s, found %s",
             reader->path->str, reader->path->len > 0 ? ": " : "", expected, found);
  return false;
}

// What stands at the place where the reader is, as it is written.
static bool complain_here(reader_t *reader, const char *expected) {
  int length = 0;
  const char *at = reader->at;
  while (at + length < reader->end && length < 40 && !strchr(" \t\r\n,:}]", at[length])) {
    length++;
  }
  if (at == reader->end) {
    return complain(reader, expected, "the end of the text");
  }
  return complain(reader, expected, "%.*s", MAX(length, 1), at);
}

static bool complain_string(reader_t *reader, const char *expected) {
  return complain(reader, expected, "\"%.60s\"", reader->string->str);
}

// ---- tokens ----

static void skip_space(reader_t *reader) {
  while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) && *reader->at) {
    reader->at++;
  }
}

static bool next_is(reader_t *reader, char c) {
  skip_space(reader);
  return reader->at < reader->end && *reader->at == c;
}

static bool take(reader_t *reader, char c) {
  bool found = next_is(reader, c);
  reader->at += found;
  return found;
}

static bool take_word(reader_t *reader, const char *word, const char *expected) {
  size_t length = strlen(word);
  if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0) {
    return complain_here(reader, expected);
  }
  reader->at += length;
  return true;
}

static bool read_hex4(reader_t *reader, gunichar *ret_code) {
  *ret_code = 0;
  for (int i = 0; i < 4; i++, reader->at++) {
    if (reader->at == reader->end || !g_ascii_isxdigit(*reader->at)) {
      return complain_here(reader, "four hexadecimal digits after \\u");
    }
    *ret_code = *ret_code * 16 + (gunichar)g_ascii_xdigit_value(*reader->at);
  }
  return true;
}

// The rest of \uXXXX, of which a character outside of the basic plane has two.
static bool read_unicode(reader_t *reader) {
  gunichar code, low;
  if (!read_hex4(reader, &code)) {
    return false;
  }
  if (code >= 0xD800 && code <= 0xDBFF && reader->end - reader->at > 2 && reader->at[0] == '\\' &&
      reader->at[1] == 'u') {
    reader->at += 2;
    if (!read_hex4(reader, &low)) {
      return false;
    }
    code =
        low >= 0xDC00 && low <= 0xDFFF ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : code;
  }
  if (code >= 0xD800 && code <= 0xDFFF) {
    return complain(reader, "a character after \\u", "half of a surrogate pair");
  }
  g_string_append_unichar(reader->string, code);
  return true;
}

static bool read_escape(reader_t *reader) {
  static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  const char *found = reader->at < reader->end && *reader->at ? strchr(escapes, *reader->at) : NULL;
  if (found) {
    g_string_append_c(reader->string, meant[found - escapes]);
    reader->at++;
    return true;
  }
  if (reader->at == reader->end || *reader->at != 'u') {
    return complain_here(reader, "an escape sequence of JSON after \\");
  }
  reader->at++;
  return read_unicode(reader);
}

static bool read_string(reader_t *reader) {
  if (!take(reader, '"')) {
    return complain_here(reader, "a string");
  }
  g_string_truncate(reader->string, 0);
  while (reader->at < reader->end && *reader->at != '"') {
    char c = *reader->at++;
    if ((unsigned char)c < ' ') {
      return complain(reader, "the end of a string", "a control character");
    }
    if (c != '\\') {
      g_string_append_c(reader->string, c);
    } else if (!read_escape(reader)) {
      return false;
    }
  }
  return take(reader, '"') || complain_here(reader, "the end of a string");
}

// BSON holds these as C strings, which end at a NUL.
static bool read_c_string(reader_t *reader) {
  return read_string(reader) && (strlen(reader->string->str) == reader->string->len ||
                                 complain(reader, "a string without NUL", "one"));
}

static const char *skip_digits(const char *text) {
  return text + strspn(text, "0123456789");
}

// The end of a number as JSON writes it; NULL: there is none.
static const char *number_end(const char *text, bool *ret_integer) {
  const char *digits = text + (*text == '-');
  const char *end = skip_digits(digits);
  if (end == digits || (*digits == '0' && end - digits > 1)) {
    return NULL;
  }
  *ret_integer = *end != '.' && *end != 'e' && *end != 'E';
  if (*end == '.') {
    digits = end + 1;
    end = skip_digits(digits);
  }
  if (end > digits && (*end == 'e' || *end == 'E')) {
    digits = end + 1 + (end[1] == '-' || end[1] == '+');
    end = skip_digits(digits);
  }
  return end > digits ? end : NULL;
}

// Neither too large for a double nor so small that it would be 0.
static bool is_double(const char *number) {
  double real = g_ascii_strtod(number, NULL);
  size_t zeros = strspn(number, "-0.");
  return isfinite(real) && (real != 0.0 || !g_ascii_isdigit(number[zeros]));
}

// A copy of the characters here that may belong to a number.
static char *number_here(const reader_t *reader) {
  size_t length = 0;
  while (reader->at + length < reader->end && reader->at[length] &&
         strchr("0123456789+-.eE", reader->at[length])) {
    length++;
  }
  return g_strndup(reader->at, length);
}

static bool read_number_between(reader_t *reader, gint64 low, gint64 high, const char *expected) {
  gint64 ignored;
  bool integer;
  skip_space(reader);
  g_autofree char *number = number_here(reader);
  const char *end = number_end(number, &integer);
  if (!end || *end || !integer ||
      !g_ascii_string_to_signed(number, 10, low, high, &ignored, NULL)) {
    return complain_here(reader, expected);
  }
  reader->at += end - number;
  return true;
}

// What libbson reads without quotes, too, and Python's json.dumps writes so.
static bool read_special(reader_t *reader) {
  static const char *const special[] = {"NaN", "Infinity", "-Infinity"};
  for (size_t i = 0; i < G_N_ELEMENTS(special); i++) {
    size_t length = strlen(special[i]);
    if ((size_t)(reader->end - reader->at) >= length &&
        memcmp(reader->at, special[i], length) == 0) {
      reader->at += length;
      return true;
    }
  }
  return false;
}

static bool read_number(reader_t *reader) {
  bool integer;
  g_autofree char *number = number_here(reader);
  const char *end = number_end(number, &integer);
  if (!end || *end) {
    return complain_here(reader, A_VALUE);
  }
  if (integer) {
    return read_number_between(reader, G_MININT64, G_MAXINT64, "an integer of at most 64 bits");
  }
  if (!is_double(number)) {
    return complain_here(reader, "a number that a double can hold");
  }
  reader->at += end - number;
  return true;
}

// ---- values that JSON does not have ----

static bool read_whole_number(reader_t *reader, gint64 low, gint64 high, const char *expected) {
  gint64 ignored;
  return read_c_string(reader) &&
         (g_ascii_string_to_signed(reader->string->str, 10, low, high, &ignored, NULL) ||
          complain_string(reader, expected));
}

static bool read_int32(reader_t *reader) {
  return read_whole_number(reader, G_MININT32, G_MAXINT32, "a string with an integer of 32 bits");
}

static bool read_int64(reader_t *reader) {
  return read_whole_number(reader, G_MININT64, G_MAXINT64, "a string with an integer of 64 bits");
}

static bool read_double(reader_t *reader) {
  static const char *const special[] = {"NaN", "Infinity", "-Infinity", NULL};
  bool integer;
  if (!read_c_string(reader)) {
    return false;
  }
  const char *text = reader->string->str;
  const char *end = number_end(text, &integer);
  return g_strv_contains(special, text) || (end && !*end && is_double(text)) ||
         complain_string(reader, "a string with a number that a double can hold");
}

static bool read_decimal(reader_t *reader) {
  bson_decimal128_t decimal;
  return read_c_string(reader) && (bson_decimal128_from_string(reader->string->str, &decimal) ||
                                   complain_string(reader, "a number of at most 34 digits"));
}

// Whether the string that was read looks like the pattern, in which x is a hexadecimal digit.
static bool looks_like(const GString *string, const char *pattern) {
  const char *text = string->str;
  for (; *pattern; pattern++, text++) {
    if (*pattern == 'x' ? !g_ascii_isxdigit(*text) : *text != *pattern) {
      return false;
    }
  }
  return text == string->str + string->len;
}

static bool read_oid(reader_t *reader) {
  return read_string(reader) && (looks_like(reader->string, "xxxxxxxxxxxxxxxxxxxxxxxx") ||
                                 complain_string(reader, "24 hexadecimal digits"));
}

static bool read_uuid(reader_t *reader) {
  return read_string(reader) &&
         (looks_like(reader->string, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") ||
          complain_string(reader, "a UUID"));
}

static bool read_base64(reader_t *reader) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (!read_string(reader)) {
    return false;
  }
  size_t count = strspn(reader->string->str, digits);
  size_t padding = reader->string->len - count;
  return (reader->string->len % 4 == 0 && padding <= 2 &&
          strspn(reader->string->str + count, "=") == padding) ||
         complain_string(reader, "base64");
}

static bool read_subtype(reader_t *reader) {
  return read_string(reader) &&
         (looks_like(reader->string, "xx") || looks_like(reader->string, "x") ||
          complain_string(reader, "two hexadecimal digits"));
}

static bool read_true(reader_t *reader) {
  skip_space(reader);
  return take_word(reader, "true", "true");
}

static bool read_one(reader_t *reader) {
  return read_number_between(reader, 1, 1, "1");
}

static bool read_uint32(reader_t *reader) {
  return read_number_between(reader, 0, G_MAXUINT32, "an integer from 0 to 4294967295");
}

static bool read_document(reader_t *reader) {
  return next_is(reader, '{') ? read_value(reader) : complain_here(reader, "a document");
}

static bool read_form(reader_t *reader, const form_t *form);

static bool read_inside(reader_t *reader, const form_t *form) {
  return take(reader, '{') ? read_form(reader, form) : complain_here(reader, "an object");
}

static bool read_binary(reader_t *reader) {
  static const form_t inside = {{{"base64", read_base64}, {"subType", read_subtype}}, 2};
  return read_inside(reader, &inside);
}

static bool read_timestamp(reader_t *reader) {
  static const form_t inside = {{{"t", read_uint32}, {"i", read_uint32}}, 2};
  return read_inside(reader, &inside);
}

static bool read_regex(reader_t *reader) {
  static const form_t inside = {{{"pattern", read_c_string}, {"options", read_c_string}}, 2};
  return read_inside(reader, &inside);
}

static bool read_oid_object(reader_t *reader) {
  static const form_t inside = {{{"$oid", read_oid}}, 1};
  return read_inside(reader, &inside);
}

static bool read_pointer(reader_t *reader) {
  static const form_t inside = {{{"$ref", read_c_string}, {"$id", read_oid_object}}, 2};
  return read_inside(reader, &inside);
}

static bool read_date(reader_t *reader) {
  static const form_t inside = {{{"$numberLong", read_int64}}, 1};
  int64_t ms;
  if (next_is(reader, '{')) {
    return read_inside(reader, &inside);
  }
  if (!next_is(reader, '"')) {
    return read_number_between(reader, G_MININT64, G_MAXINT64,
                               "a time like 2026-01-31T23:59:59.123Z");
  }
  return read_c_string(reader) && (iso8601_parse(reader->string->str, &ms) ||
                                   complain_string(reader, "a time like 2026-01-31T23:59:59.123Z"));
}

static const form_t FORMS[] = {
    {{{"$oid", read_oid}}, 1},
    {{{"$uuid", read_uuid}}, 1},
    {{{"$date", read_date}}, 1},
    {{{"$numberInt", read_int32}}, 1},
    {{{"$numberLong", read_int64}}, 1},
    {{{"$numberDouble", read_double}}, 1},
    {{{"$numberDecimal", read_decimal}}, 1},
    {{{"$binary", read_binary}}, 1},
    {{{"$timestamp", read_timestamp}}, 1},
    {{{"$regularExpression", read_regex}}, 1},
    {{{"$regex", read_c_string}, {"$options", read_c_string}}, 2},
    {{{"$code", read_c_string}, {"$scope", read_document}}, 1},
    {{{"$symbol", read_string}}, 1},
    {{{"$dbPointer", read_pointer}}, 1},
    {{{"$undefined", read_true}}, 1},
    {{{"$minKey", read_one}}, 1},
    {{{"$maxKey", read_one}}, 1},
};

// The first version's: {"$binary": "AA==", "$type": "00"}.
static const form_t OLD_BINARY = {{{"$binary", read_base64}, {"$type", read_subtype}}, 2};

static int member_of(const form_t *form, const char *key) {
  int i = 0;
  while (i < INSIDE_MAX && (!form->members[i].key || strcmp(form->members[i].key, key) != 0)) {
    i++;
  }
  return i;
}

// Whether $binary or $type is that of the first version. A $type may also be an operator of
// queries: libbson takes a text that does not begin like a hexadecimal number for one.
static bool is_old_binary(const reader_t *reader) {
  reader_t ahead = *reader;
  if (!take(&ahead, ':') || !take(&ahead, '"')) {
    return false;
  }
  return strcmp(reader->string->str, "$binary") == 0 || ahead.at == ahead.end ||
         g_ascii_isxdigit(*ahead.at) || !g_ascii_isalpha(*ahead.at);
}

// The form of the object that begins with the key that was just read; NULL: it is a document.
static const form_t *form_of(const reader_t *reader) {
  const char *key = reader->string->str;
  if (member_of(&OLD_BINARY, key) < INSIDE_MAX && is_old_binary(reader)) {
    return &OLD_BINARY;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(FORMS); i++) {
    if (member_of(&FORMS[i], key) < INSIDE_MAX) {
      return &FORMS[i];
    }
  }
  return NULL;
}

// ---- objects and arrays ----

static bool read_key(reader_t *reader) {
  if (!read_c_string(reader)) {
    return false;
  }
  if (reader->path->len > 0) {
    g_string_append_c(reader->path, '.');
  }
  g_string_append(reader->path, reader->string->str);
  return true;
}

static bool read_colon(reader_t *reader) {
  return take(reader, ':') || complain_here(reader, "a colon after the key");
}

static const char *last_key(const reader_t *reader, gsize outer) {
  return reader->path->str + outer + (outer > 0);
}

// The members of a form, after its brace, or after its first key if the path has that already.
static bool read_form_from(reader_t *reader, const form_t *form, gsize outer) {
  unsigned seen = 0;
  bool has_key = reader->path->len > outer;
  do {
    if (!has_key && !read_key(reader)) {
      return false;
    }
    has_key = false;
    int i = member_of(form, last_key(reader, outer));
    if (i == INSIDE_MAX || seen & 1U << i) {
      return complain(reader, form->members[0].key, i == INSIDE_MAX ? "another key" : "it again");
    }
    seen |= 1U << i;
    if (!read_colon(reader) || !form->members[i].read(reader)) {
      return false;
    }
    g_string_truncate(reader->path, outer);
  } while (take(reader, ','));
  if (!next_is(reader, '}')) {
    return complain_here(reader, "the end of the object");
  }
  for (int i = 0; i < form->required; i++) {
    if (!(seen & 1U << i)) {
      return complain(reader, form->members[i].key, "nothing");
    }
  }
  return take(reader, '}');
}

static bool read_form(reader_t *reader, const form_t *form) {
  return read_form_from(reader, form, reader->path->len);
}

// A key that stands twice is refused: which of the values counts, every reader would decide anew.
static bool read_members(reader_t *reader, gsize outer) {
  g_autoptr(GHashTable) keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  bool first = true;
  do {
    if (!read_key(reader)) {
      return false;
    }
    if (!g_hash_table_add(keys, g_strdup(last_key(reader, outer)))) {
      return complain(reader, "once", "again");
    }
    const form_t *form = first && reader->depth > 1 ? form_of(reader) : NULL;
    if (form) {
      return read_form_from(reader, form, outer);
    }
    if (!read_colon(reader) || !read_value(reader)) {
      return false;
    }
    g_string_truncate(reader->path, outer);
    first = false;
  } while (take(reader, ','));
  return take(reader, '}') || complain_here(reader, "the end of the object");
}

static bool read_object(reader_t *reader) {
  return take(reader, '{') && (take(reader, '}') || read_members(reader, reader->path->len));
}

static bool read_array(reader_t *reader) {
  gsize outer = reader->path->len;
  unsigned i = 0;
  if (!take(reader, '[') || take(reader, ']')) {
    return true;
  }
  do {
    g_string_append_printf(reader->path, "[%u]", i++);
    if (!read_value(reader)) {
      return false;
    }
    g_string_truncate(reader->path, outer);
  } while (take(reader, ','));
  return take(reader, ']') || complain_here(reader, "the end of the array");
}

static bool read_nested(reader_t *reader, bool (*read)(reader_t *reader)) {
  if (++reader->depth > DEPTH_MAX) {
    return complain(reader, "at most 200 levels", "more");
  }
  bool good = read(reader);
  reader->depth--;
  return good;
}

static bool read_value(reader_t *reader) {
  skip_space(reader);
  switch (reader->at < reader->end ? *reader->at : '\0') {
  case '{': return read_nested(reader, read_object);
  case '[': return read_nested(reader, read_array);
  case '"': return read_string(reader);
  case 't': return take_word(reader, "true", A_VALUE);
  case 'f': return take_word(reader, "false", A_VALUE);
  case 'n': return take_word(reader, "null", A_VALUE);
  default: return read_special(reader) || read_number(reader);
  }
}

static bool read_all(reader_t *reader) {
  if (!next_is(reader, '{')) {
    return complain_here(reader, "an object");
  }
  if (!read_value(reader)) {
    return false;
  }
  skip_space(reader);
  return reader->at == reader->end || complain_here(reader, "the end of the text");
}

bson_t *extended_json_read(const char *text, size_t length, const char *path,
                           char message[static EXTENDED_JSON_MESSAGE_SIZE]) {
  bson_error_t cause = {0};
  g_autoptr(GString) places = g_string_new(path);
  g_autoptr(GString) string = g_string_new(NULL);
  reader_t reader = {
      .at = text, .end = text + length, .path = places, .string = string, .message = message};
  if (!read_all(&reader)) {
    return NULL;
  }
  bson_t *document = bson_new_from_json((const uint8_t *)text, (ssize_t)length, &cause);
  if (!document) {
    g_snprintf(message, EXTENDED_JSON_MESSAGE_SIZE, "%.200s%snot valid Extended JSON: %s", path,
               *path ? ": " : "", cause.message);
  }
  return document;
}

// Splits a stream into JSON objects by their braces; libbson decides whether each is valid.
#include "outbox/cli/json_stream.h"

#include "outbox/cli/iso8601.h"

#include <bson/bson.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_next_t bad(char *message, size_t size, const char *text) {
  g_strlcpy(message, text, size);
  return JSON_BAD;
}

// The next byte that is not white space, or EOF.
static int skip_space(json_stream_t *stream) {
  int c;
  while ((c = getc(stream->file)) == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '\n') {
      stream->line++;
    }
  }
  return c;
}

// Whatever follows an object must be on the next line, so that a bad line is refused as a whole.
static bool ends_line(json_stream_t *stream) {
  int c;
  while ((c = getc(stream->file)) == ' ' || c == '\t' || c == '\r') {
  }
  if (c == '\n') {
    stream->line++;
  }
  return c == '\n' || c == EOF;
}

static json_next_t read_object(json_stream_t *stream, GString *text, char *message, size_t size) {
  int depth = 0;
  bool in_string = false;
  bool escaped = false;
  int c = '{';
  do {
    if (c == EOF) {
      return bad(message, size, "expected the end of the object, found the end of the input");
    }
    if (c == '\0') {
      return bad(message, size, "expected JSON, found a NUL byte");
    }
    if (c == '\n') {
      stream->line++;
      if (in_string) {
        return bad(message, size, "expected the end of a string, found the end of the line");
      }
    }
    if (text->len >= JSON_OBJECT_MAX_BYTES) {
      return bad(message, size, "expected an object of at most 64 MiB, found a longer one");
    }
    g_string_append_c(text, (char)c);
    if (in_string) {
      in_string = escaped || c != '"';
      escaped = !escaped && c == '\\';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      depth--;
    }
  } while (depth > 0 && ((c = getc(stream->file)), true));
  return JSON_OBJECT;
}

json_next_t json_stream_next(json_stream_t *stream, GString *text, int *ret_line, char *message,
                             size_t size) {
  g_string_truncate(text, 0);
  int c = skip_space(stream);
  *ret_line = stream->line + 1;
  if (c == EOF) {
    if (ferror(stream->file)) {
      g_snprintf(message, size, "stdin cannot be read: %s", g_strerror(errno));
      return JSON_BAD;
    }
    return JSON_END;
  }
  if (c != '{') {
    return bad(message, size, "expected an object, found something that does not begin with '{'");
  }
  json_next_t result = read_object(stream, text, message, size);
  if (result == JSON_OBJECT && !ends_line(stream)) {
    *ret_line = stream->line + 1;
    return bad(message, size, "expected the end of the line after the object, found more");
  }
  return result;
}

// The end of the string whose quote is at `text`: its closing quote, or the end of the text.
static const char *string_end(const char *text) {
  for (text++; *text && *text != '"'; text++) {
    if (*text == '\\' && text[1]) {
      text++;
    }
  }
  return text;
}

static bool check_string(const char *key, const char *value, char *message, size_t size) {
  bson_decimal128_t decimal;
  int64_t ms;
  if (strcmp(key, "$numberDecimal") == 0 && !bson_decimal128_from_string(value, &decimal)) {
    g_snprintf(message, size,
               "$numberDecimal: expected a number of at most 34 digits, found \"%.60s\"", value);
    return false;
  }
  if (strcmp(key, "$date") == 0 && !iso8601_parse(value, &ms)) {
    g_snprintf(message, size,
               "$date: expected a time like 2026-01-31T23:59:59.123Z, found \"%.60s\"", value);
    return false;
  }
  return true;
}

static bool check_number(const char *text, size_t length, char *message, size_t size) {
  if (strcspn(text, ".eE") < length) {
    return true; // explicitly a double
  }
  g_autofree char *number = g_strndup(text, length);
  errno = 0;
  (void)g_ascii_strtoll(number, NULL, 10);
  if (errno == ERANGE) {
    g_snprintf(message, size, "expected an integer of at most 64 bits, found %.60s", number);
    return false;
  }
  return true;
}

bool json_check_values(const char *text, char *message, size_t size) {
  g_autofree char *last = NULL; // the string before this value
  bool last_is_key = false;
  while (*text) {
    if (*text == '"') {
      const char *end = string_end(text);
      g_autofree char *string = g_strndup(text + 1, (gsize)(end - text - 1));
      if (last_is_key && !check_string(last, string, message, size)) {
        return false;
      }
      g_free(last);
      last = g_steal_pointer(&string);
      last_is_key = false;
      text = *end ? end + 1 : end;
    } else if (*text == '-' || g_ascii_isdigit(*text)) {
      size_t length = 1 + strspn(text + 1, "0123456789.eE+-");
      if (!check_number(text, length, message, size)) {
        return false;
      }
      last_is_key = false;
      text += length;
    } else {
      last_is_key = *text == ':' ? last != NULL : last_is_key && g_ascii_isspace(*text);
      text++;
    }
  }
  return true;
}

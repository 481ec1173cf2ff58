// Splits a stream into JSON objects by their braces; extended_json.c decides whether each is valid.
#include "outbox/cli/json_stream.h"

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

/* json_literal.c - turns JSON text, as domain/value_special.c writes it, into calls of JSON
 * functions. */
#include "projector/infra/mysql/json_literal.h"

#include "projector/domain/json_number.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

/* Returns the end of the value that begins at `at`; sets `wide` if it contains a wide number. */
static const char *skip(const char *at, const char *end, bool *wide) {
  unsigned depth = 0;
  do {
    Decimal number;
    const char *next = at + 1;
    if (*at == '"')
      next = json_skip_string(at, end);
    else if (json_number_at(at, end, &number, &next))
      *wide |= json_width(&number) == JSON_WIDE;
    else if (g_ascii_isalpha(*at))
      while (next < end && g_ascii_isalpha(*next))
        next++;
    else if (strchr("[{", *at))
      depth++;
    else if (strchr("]}", *at))
      depth--;
    at = next;
  } while (depth > 0 && at < end);
  return at;
}

static const char *skip_blanks(const char *at, const char *end) {
  while (at < end && strchr(" ,:", *at))
    at++;
  return at;
}

static void append_cast(GString *sql, const char *text, const char *end) {
  g_string_append(sql, "CAST(");
  literal_append_text(sql, text, (size_t)(end - text));
  g_string_append(sql, " AS JSON)");
}

static void append_number(GString *sql, const char *text, const char *end) {
  const char *point = memchr(text, '.', (size_t)(end - text));
  int scale = point ? (int)(end - point - 1) : 0;
  int digits = (int)(end - text) - (point != NULL) - (*text == '-');
  g_string_append(sql, "CAST('");
  g_string_append_len(sql, text, end - text);
  g_string_append_printf(sql, "' AS DECIMAL(%d,%d))", digits, scale);
}

static const char *append(GString *sql, const char *at, const char *end);

static const char *append_members(GString *sql, const char *at, const char *end) {
  bool object = *at == '{';
  const char *close = object ? "}" : "]", *before = "";
  g_string_append(sql, object ? "JSON_OBJECT(" : "JSON_ARRAY(");
  for (at = skip_blanks(at + 1, end); at < end && *at != *close; at = skip_blanks(at, end)) {
    g_string_append(sql, before);
    before = ",";
    if (object) {
      const char *name = at;
      at = json_skip_string(at, end);
      g_string_append(sql, "JSON_UNQUOTE(");
      append_cast(sql, name, at);
      g_string_append(sql, "),");
      at = skip_blanks(at, end);
    }
    at = append(sql, at, end);
  }
  g_string_append_c(sql, ')');
  return at + 1;
}

/* Returns the end of the value. */
static const char *append(GString *sql, const char *at, const char *end) {
  bool wide = false;
  const char *after = skip(at, end, &wide);
  if (!wide)
    append_cast(sql, at, after);
  else if (*at == '{' || *at == '[')
    append_members(sql, at, end);
  else
    append_number(sql, at, after);
  return after;
}

void json_literal_append(GString *sql, const Value *value) {
  append(sql, value->text, value->text + value->length);
}

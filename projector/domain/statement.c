/* statement.c - a small scanner that knows SQL's quotes and comments and nothing else of SQL. */
#include "projector/domain/statement.h"

#include <string.h>

static const struct {
  const char *name, *field;
} event_fields[] = {
    {"$event_id", "_id"},          {"$aggregate_id", "aggregate_id"},
    {"$version", "version"},       {"$occurred_at", "occurred_at"},
    {"$event_type", "event_type"},
};

static bool is_path(const char *text, size_t length) {
  if (length == 0 || text[0] == '.' || text[length - 1] == '.')
    return false;
  for (size_t i = 0; i < length; i++)
    if (text[i] == '$' || (text[i] == '.' && text[i + 1] == '.'))
      return false;
  return true;
}

bool source_parse(const char *text, size_t length, GStringChunk *chunk, Source *ret_source) {
  static const char metadata[] = "$metadata.";
  Source source = {.text = g_string_chunk_insert_len(chunk, text, (gssize)length)};
  if (strlen(source.text) != length)
    return false;
  if (length > 0 && text[0] == '$') {
    if (g_str_has_prefix(source.text, metadata) &&
        is_path(text + strlen(metadata), length - strlen(metadata)))
      source.path = source.text + 1;
    for (size_t i = 0; i < G_N_ELEMENTS(event_fields); i++)
      if (!strcmp(source.text, event_fields[i].name))
        source.path = event_fields[i].field;
  } else if (is_path(text, length)) {
    source.in_payload = true;
    source.path = source.text;
  }
  if (!source.path)
    return false;
  source.dotted = strchr(source.path, '.') != NULL;
  *ret_source = source;
  return true;
}

/* The end of the quoted text or comment that starts at `at`; `at` itself when none does. */
static const char *skip_quoted(const char *at) {
  if (*at == '\'' || *at == '"' || *at == '`') {
    char quote = *at++;
    for (; *at; at++) {
      if (*at == '\\' && quote != '`' && at[1])
        at++;
      else if (*at == quote && at[1] == quote)
        at++;
      else if (*at == quote)
        return at + 1;
    }
    return at;
  }
  if (*at == '#' || (at[0] == '-' && at[1] == '-' && (at[2] == ' ' || at[2] == '\t')))
    return at + strcspn(at, "\n");
  if (at[0] == '/' && at[1] == '*') {
    const char *end = strstr(at + 2, "*/");
    return end ? end + 2 : at + strlen(at);
  }
  return at;
}

static bool is_name_char(char c) {
  return g_ascii_isalnum(c) || c == '_' || c == '.' || c == '$';
}

static int column_with_source(const Projection *projection, const Source *source) {
  for (unsigned i = 0; i < projection->column_count; i++)
    if (!strcmp(projection->columns[i].from.text, source->text))
      return (int)i;
  return -1;
}

bool statement_parse(const char *text, GStringChunk *chunk, Rule *rule, const char **ret_wrong) {
  g_autoptr(GString) out = g_string_new(NULL);
  g_autoptr(GArray) parameters = g_array_new(FALSE, FALSE, sizeof(Parameter));
  bool ended = false;
  for (const char *at = text; *at;) {
    const char *end = skip_quoted(at);
    if (*at == '?' || (ended && !g_ascii_isspace(*at))) {
      *ret_wrong = *at == '?' ? "named parameters like :amount instead of ?" : "one statement";
      return false;
    }
    if (end == at && *at == ':' && at[1] != '=' && is_name_char(at[1])) {
      size_t length = 1;
      while (is_name_char(at[1 + length]))
        length++;
      while (length > 1 && at[length] == '.') /* a full stop after the name is the statement's */
        length--;
      Parameter parameter;
      if (!source_parse(at + 1, length, chunk, &parameter.from)) {
        *ret_wrong = "after : a payload path or one of $event_id, $aggregate_id, $version, "
                     "$occurred_at, $event_type, $metadata.x";
        return false;
      }
      parameter.column = column_with_source(rule->projection, &parameter.from);
      g_array_append_val(parameters, parameter);
      g_string_append_c(out, '?');
      at += 1 + length;
      continue;
    }
    if (end == at)
      end = at + (at[0] == ':' && at[1] == ':' ? 2 : 1); /* "x::int" names no parameter */
    if (*at == ';')
      ended = true;
    else
      g_string_append_len(out, at, end - at);
    at = end;
  }
  g_strstrip(out->str);
  if (!*out->str || parameters->len > 65535) {
    *ret_wrong = "a statement";
    return false;
  }
  rule->statement = g_string_chunk_insert(chunk, out->str);
  rule->parameter_count = parameters->len;
  rule->parameters = (Parameter *)(void *)g_array_free(g_steal_pointer(&parameters), FALSE);
  return true;
}

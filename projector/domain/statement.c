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

/* Two dashes begin a comment before a blank, a control character or the end. */
static bool is_dash_comment(const char *at) {
  return at[0] == '-' && at[1] == '-' && (g_ascii_isspace(at[2]) || g_ascii_iscntrl(at[2]));
}

/* What such a comment holds is run by some servers and versions, and by others not. */
static bool is_executable_comment(const char *at) {
  return g_str_has_prefix(at, "/*!") || g_str_has_prefix(at, "/*M!");
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
  if (*at == '#' || is_dash_comment(at))
    return at + strcspn(at, "\n");
  if (at[0] == '/' && at[1] == '*') {
    const char *end = strstr(at + 2, "*/");
    return end ? end + 2 : at + strlen(at);
  }
  return at;
}

/* Also every byte of a letter that is not ASCII: names may hold such letters, of columns as of
 * fields. */
static bool is_name_char(char c) {
  return g_ascii_isalnum(c) || c == '_' || c == '.' || c == '$' || (unsigned char)c >= 0x80;
}

/* A blank, or a comment, whose end `skip_quoted` has found. */
static bool is_blank(const char *at, const char *end) {
  return g_ascii_isspace(*at) || (end > at && (*at == '#' || *at == '-' || *at == '/'));
}

static bool is_one_of(const char *word, size_t length, const char *const *words) {
  for (; *words; words++)
    if (length == strlen(*words) && !g_ascii_strncasecmp(word, *words, length))
      return true;
  return false;
}

bool statement_changes_rows(const char *text) {
  static const char *const writes[] = {"INSERT", "UPDATE", "DELETE", "REPLACE", NULL};
  static const char *const with[] = {"WITH", NULL};
  static const char *const reads[] = {"SELECT", "TABLE", "VALUES", NULL};
  bool after_with = false;
  int depth = 0;
  for (const char *at = text; *at;) {
    size_t length = 0;
    const char *end = skip_quoted(at);
    while (is_name_char(at[length]))
      length++;
    if (!after_with && length == 0 && !is_blank(at, end))
      return false; /* the first thing is no word */
    depth += (*at == '(') - (*at == ')');
    if (end == at && length > 0 && depth == 0) {
      if (is_one_of(at, length, writes))
        return true;
      if (is_one_of(at, length, after_with ? reads : with) == after_with)
        return false; /* the first word is none of ours, or WITH is for reading */
      after_with = true;
    }
    at = end > at ? end : at + MAX(length, 1);
  }
  return false;
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
    if (is_executable_comment(at)) {
      *ret_wrong = "a statement without /*! comments, which not every server runs";
      return false;
    }
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

/* --- another table -------------------------------------------------------------------------- */

/* One word, quoted text or other sign of a statement. */
typedef struct Token {
  const char *at;
  size_t length;
  bool word, blank;
} Token;

static Token next_token(const char *at) {
  const char *end = skip_quoted(at);
  Token token = {.at = at, .length = (size_t)(end - at)};
  token.blank = is_blank(at, end);
  if (end > at)
    return token;
  size_t mark = *at == ':' ? strspn(at, ":") : 0; /* a parameter is one token, and no word */
  while (is_name_char(at[mark + token.length]))
    token.length++;
  token.word = mark == 0 && token.length > 0;
  token.length = MAX(mark + token.length, 1);
  return token;
}

/* The next token that says something; `*at` is then behind it. */
static Token next_word(const char **at) {
  Token token = next_token(*at);
  while (**at && token.blank) {
    *at += token.length;
    token = next_token(*at);
  }
  *at += **at ? token.length : 0;
  return token;
}

static bool is_word(const Token *token, const char *word) {
  return token->word && token->length == strlen(word) &&
         !g_ascii_strncasecmp(token->at, word, token->length);
}

static bool is_table(const Token *token, const char *table) {
  size_t length = strlen(table);
  if (*token->at == '`')
    return token->length == length + 2 && !strncmp(token->at + 1, table, length);
  return token->word && token->length == length && !strncmp(token->at, table, length);
}

/* "UPDATE t SET", "UPDATE t AS a SET", "INSERT INTO t", "REPLACE t", "DELETE FROM t". */
static bool changes_only(const char *at, const char *table) {
  Token verb = next_word(&at), next = next_word(&at);
  bool update = is_word(&verb, "UPDATE"), remove = is_word(&verb, "DELETE");
  if (!update && !remove && !is_word(&verb, "INSERT") && !is_word(&verb, "REPLACE"))
    return false;
  if (!update) {
    bool between = is_word(&next, remove ? "FROM" : "INTO");
    if (remove && !between)
      return false;
    if (between)
      next = next_word(&at);
  }
  if (!is_table(&next, table))
    return false;
  next = next_word(&at);
  if (remove)
    return !*next.at || is_word(&next, "WHERE") || is_word(&next, "ORDER") ||
           is_word(&next, "LIMIT");
  if (!update)
    return true;
  if (is_word(&next, "AS"))
    next = next_word(&at);
  if (!is_word(&next, "SET") && (next.word || *next.at == '`'))
    next = next_word(&at);
  return is_word(&next, "SET");
}

char *statement_retarget(const char *text, const char *table, const char *to) {
  g_autoptr(GString) out = g_string_new(NULL);
  size_t length = strlen(table);
  if (!changes_only(text, table))
    return NULL;
  for (const char *at = text; *at;) {
    Token token = next_token(at);
    at += token.length;
    g_autofree char *word = g_strndup(token.at, token.length);
    g_auto(GStrv) parts = g_strsplit(word, ".", -1);
    if (*token.at == '`' && is_table(&token, table)) {
      if (out->len > 0 && out->str[out->len - 1] == '.')
        return NULL;
      g_string_append_printf(out, "`%s`", to);
    } else if (token.word && !strncmp(token.at, table, length) &&
               (token.length == length || token.at[length] == '.')) {
      g_string_append_printf(out, "%s%s", to, word + length);
    } else if (token.word && parts[0] && g_strv_contains((const char *const *)parts + 1, table)) {
      return NULL;
    } else {
      g_string_append(out, word);
    }
  }
  return g_string_free(g_steal_pointer(&out), FALSE);
}

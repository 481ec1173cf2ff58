/* statement.c - a small scanner that knows SQL's quotes and comments, and finds what a mapping's
 * statement sets and selects by. */
#include "projector/domain/statement.h"

#include <string.h>

/* Two dashes start a comment only before a blank, a control character or the end. */
static bool is_dash_comment(const char *at) {
  return at[0] == '-' && at[1] == '-' && (g_ascii_isspace(at[2]) || g_ascii_iscntrl(at[2]));
}

/* The content of such a comment is executed by some servers and versions, and skipped by others. */
static bool is_executable_comment(const char *at) {
  return g_str_has_prefix(at, "/*!") || g_str_has_prefix(at, "/*M!");
}

/* The end of the quoted text or comment that starts at `at`, or `at` itself if none does. */
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

/* Including every byte of a non-ASCII letter: names of columns and fields may contain such
 * letters. */
static bool is_name_char(char c) {
  return g_ascii_isalnum(c) || c == '_' || c == '.' || c == '$' || (unsigned char)c >= 0x80;
}

/* A blank, or a comment whose end `skip_quoted` has found. */
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
      return false; /* it does not begin with a word */
    depth += (*at == '(') - (*at == ')');
    if (depth < 0)
      return false;
    if (end == at && length > 0 && depth == 0) {
      if (is_one_of(at, length, writes))
        return true;
      if (is_one_of(at, length, after_with ? reads : with) == after_with)
        return false; /* the first word is another, or WITH belongs to a query */
      after_with = true;
    }
    at = end > at ? end : at + MAX(length, 1);
  }
  return false;
}

/* The column whose source begins with this one; the parameter is then looked up as the column is.
 * -1: none. */
static int column_with_source(const Projection *projection, Source *source) {
  for (unsigned i = 0; i < projection->column_count; i++) {
    const Source *from = &projection->columns[i].from;
    if (from->constant || strcmp(from->text, source->text) != 0)
      continue;
    *source = *from;
    return (int)i;
  }
  return -1;
}

/* The length of a parameter's name, colon included. A name that begins with a slash is a JSON
 * Pointer. A full stop after a name belongs to the statement. 0: not a parameter. */
static size_t parameter_length(const char *at) {
  bool pointer = at[1] == '/' && at[2] != '*';
  if (at[0] != ':' || !(pointer || is_name_char(at[1])))
    return 0;
  size_t length = 2;
  while (is_name_char(at[length]) || (pointer && (at[length] == '/' || at[length] == '~')))
    length++;
  while (length > 2 && at[length - 1] == '.')
    length--;
  return length;
}

/* Whether a reader could take what follows a JSON Pointer for a part of it, as in `:/a-b`. A name
 * may have any character, but only these end one that is meant to end. */
static bool ends_unclearly(const char *parameter, size_t length) {
  char next = parameter[length];
  if (parameter[1] != '/' || !next || g_ascii_isspace(next))
    return false;
  return !strchr(",);*+=<>!|&^.", next) || (next == '*' && parameter[length - 1] == '/');
}

/* --- tokens --------------------------------------------------------------------------------- */

/* One word, quoted text or other character of a statement. */
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
  size_t mark = *at == ':' ? strspn(at, ":") : 0; /* a parameter is one token, and not a word */
  while (is_name_char(at[mark + token.length]))
    token.length++;
  token.word = mark == 0 && token.length > 0;
  token.length = MAX(mark + token.length, 1);
  return token;
}

/* The next token that is neither blank nor comment; `*at` then points after it. */
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

/* A word has its qualifiers in it: t.column. */
bool statement_names(const char *text, const char *name) {
  size_t length = strlen(name);
  for (Token token = next_word(&text); *token.at; token = next_word(&text)) {
    bool quoted = *token.at == '`';
    const char *dot = quoted ? NULL : g_strrstr_len(token.at, (gssize)token.length, ".");
    const char *last = quoted ? token.at + 1 : dot ? dot + 1 : token.at;
    size_t found = (size_t)(token.at + token.length - last) - quoted;
    if ((quoted || token.word) && found == length && !g_ascii_strncasecmp(last, name, length))
      return true;
  }
  return false;
}

/* --- the row it touches --------------------------------------------------------------------- */

typedef struct RowReader {
  const Projection *projection;
  const Parameter *parameters;
  const char *at;
  unsigned parameter; /* the next one */
  Token column;       /* that is assigned to */
} RowReader;

/* Functions of both servers whose result depends on their arguments alone. */
static const char *const pure_functions[] = {
    "ABS",          "CEIL",        "CEILING",      "CHAR_LENGTH",
    "COALESCE",     "CONCAT",      "CONCAT_WS",    "DATE",
    "DATE_ADD",     "DATE_SUB",    "FLOOR",        "GREATEST",
    "IF",           "IFNULL",      "JSON_ARRAY",   "JSON_ARRAY_APPEND",
    "JSON_EXTRACT", "JSON_INSERT", "JSON_OBJECT",  "JSON_REMOVE",
    "JSON_REPLACE", "JSON_SET",    "JSON_UNQUOTE", "LEAST",
    "LEFT",         "LENGTH",      "LOWER",        "LPAD",
    "LTRIM",        "MOD",         "NULLIF",       "REPLACE",
    "REVERSE",      "RIGHT",       "ROUND",        "RPAD",
    "RTRIM",        "SIGN",        "SUBSTR",       "SUBSTRING",
    "TRIM",         "TRUNCATE",    "UPPER",        NULL};
static const char *const pure_words[] = {
    "AND", "BETWEEN",  "CASE", "DAY",  "DIV",    "ELSE", "END",   "FALSE", "HOUR",
    "IN",  "INTERVAL", "IS",   "LIKE", "MINUTE", "MOD",  "MONTH", "NOT",   "NULL",
    "OR",  "SECOND",   "THEN", "TRUE", "WHEN",   "YEAR", "XOR",   NULL};

static bool is_name(const Token *token, const char *table, const char *name) {
  const char *at = token->at;
  size_t length = token->length, prefix = strlen(table);
  if (token->word && length > prefix && !strncmp(at, table, prefix) && at[prefix] == '.')
    at += prefix + 1, length -= prefix + 1;
  else if (*at == '`' && length > 2)
    at++, length -= 2;
  else if (!token->word)
    return false;
  return length == strlen(name) && !g_ascii_strncasecmp(at, name, length);
}

/* -1: none of the mapping's. */
static int find_column(const RowReader *reader, const Token *token) {
  const Projection *projection = reader->projection;
  for (unsigned i = 0; i < projection->column_count; i++)
    if (is_name(token, projection->table, projection->columns[i].name))
      return (int)i;
  return -1;
}

static bool is_same(const Token *a, const Token *b) {
  return a->length == b->length && !g_ascii_strncasecmp(a->at, b->at, a->length);
}

static bool is_sign(const Token *token, char sign) {
  return token->length == 1 && *token->at == sign;
}

static bool comes_next(const RowReader *reader, char sign) {
  const char *at = reader->at;
  const Token token = next_word(&at);
  return is_sign(&token, sign);
}

/* Whether that part of an expression depends on nothing but the row and the parameters. */
static bool is_of_row(RowReader *reader, const Token *token) {
  char first = *token->at;
  bool called = comes_next(reader, '(');
  if (is_sign(token, '?'))
    reader->parameter++;
  if (first == '\'' || first == '"' || (token->word && g_ascii_isdigit(first) && !called))
    return true;
  if (!token->word && first != '`')
    return token->length == 1 && strchr("?()+-*/%<>=!&|^~,", first);
  if (token->word && (is_one_of(token->at, token->length, pure_words) ||
                      (called && is_one_of(token->at, token->length, pure_functions))))
    return true;
  return !called && (find_column(reader, token) >= 0 || is_same(token, &reader->column));
}

/* "column = expression, … WHERE", of columns that are not in the key. */
static bool read_assignments(RowReader *reader) {
  int depth = 0;
  bool begins = true;
  for (;;) {
    const Token token = next_word(&reader->at);
    depth += is_sign(&token, '(') - is_sign(&token, ')');
    if (!*token.at || depth < 0)
      return false;
    if (depth == 0 && is_word(&token, "WHERE"))
      return !begins;
    if (begins) {
      int column = find_column(reader, &token);
      bool key = column >= 0 && column < (int)reader->projection->key_count;
      bool qualified = column < 0 && memchr(token.at, '.', token.length); /* may be the key */
      if (key || qualified || !(token.word || *token.at == '`') || !comes_next(reader, '='))
        return false;
      reader->column = token;
    } else if (!is_of_row(reader, &token)) {
      return false;
    }
    begins = depth == 0 && is_sign(&token, ',');
  }
}

/* "key column = its parameter AND …", to the end. */
static bool read_key(RowReader *reader, unsigned *parameters) {
  unsigned count = reader->projection->key_count;
  for (unsigned seen = 0; seen < count; seen++) {
    const Token and_word = seen > 0 ? next_word(&reader->at) : (Token){0};
    const Token name = next_word(&reader->at), equals = next_word(&reader->at),
                value = next_word(&reader->at);
    int column = find_column(reader, &name);
    if ((seen > 0 && !is_word(&and_word, "AND")) || column < 0 || column >= (int)count ||
        parameters[column] != UINT_MAX || !is_sign(&equals, '=') || !is_sign(&value, '?') ||
        reader->parameters[reader->parameter].column != column)
      return false;
    parameters[column] = reader->parameter++;
  }
  return !*next_word(&reader->at).at;
}

/* An UPDATE of the one row whose key the event has, from what it has itself. Whatever is not
 * understood may touch anything. */
static const unsigned *find_key(const Rule *rule, Arena *arena) {
  RowReader reader = {
      .projection = rule->projection, .parameters = rule->parameters, .at = rule->statement};
  unsigned *parameters = arena_alloc(arena, rule->projection->key_count, sizeof *parameters);
  for (unsigned i = 0; i < rule->projection->key_count; i++)
    parameters[i] = UINT_MAX;
  const Token verb = next_word(&reader.at), table = next_word(&reader.at),
              set = next_word(&reader.at);
  return is_word(&verb, "UPDATE") && is_table(&table, rule->projection->table) &&
                 is_word(&set, "SET") && read_assignments(&reader) && read_key(&reader, parameters)
             ? parameters
             : NULL;
}

/* --- parameters ----------------------------------------------------------------------------- */

bool statement_parse(const char *text, Arena *arena, Rule *rule, const char **ret_wrong) {
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
    size_t length = end == at ? parameter_length(at) : 0;
    if (length > 0) {
      Parameter parameter;
      if (ends_unclearly(at, length)) {
        *ret_wrong =
            "a blank after the JSON Pointer of a parameter, whose names have only letters, "
            "digits, _ . $ and ~ (for one with others: JSON_VALUE(:$payload, "
            "'$.\"a-b\"'))";
        return false;
      }
      if (!source_parse(at + 1, length - 1, arena, &parameter.from) || parameter.from.in_item) {
        *ret_wrong = "after : " A_SOURCE;
        return false;
      }
      parameter.column = column_with_source(rule->projection, &parameter.from);
      g_array_append_val(parameters, parameter);
      g_string_append_c(out, '?');
      at += length;
      continue;
    }
    if (end == at)
      end = at + (at[0] == ':' && at[1] == ':' ? 2 : 1); /* "x::int" contains no parameter */
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
  rule->statement = arena_copy(arena, out->str, strlen(out->str));
  rule->parameter_count = parameters->len;
  rule->parameters = (Parameter *)(void *)g_array_free(g_steal_pointer(&parameters), FALSE);
  rule->key_parameters = find_key(rule, arena);
  return true;
}

/* --- another table -------------------------------------------------------------------------- */

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

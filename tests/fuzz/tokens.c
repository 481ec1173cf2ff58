/* tokens.c - a tokenizer for the SQL of MySQL and MariaDB. */
#include "tests/fuzz/tokens.h"

#include <string.h>

typedef struct Reader {
  const char *sql;
  size_t at, length;
  TokenMode mode;
  bool executable; /* within an executable comment */
} Reader;

static int peek(const Reader *reader, size_t ahead) {
  size_t at = reader->at + ahead;
  return at < reader->length ? (unsigned char)reader->sql[at] : -1;
}

static bool is_blank(int c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_control(int c) {
  return (c >= 0 && c < ' ') || c == 127;
}

static bool is_name_byte(int c) {
  return c >= 0x80 || c == '_' || c == '$' || g_ascii_isalnum(c < 0 ? 0 : c);
}

/* --- blanks and comments -------------------------------------------------------------------- */

static void skip_line(Reader *reader) {
  while (peek(reader, 0) >= 0 && peek(reader, 0) != '\n')
    reader->at++;
}

/* "--" begins a comment only before a blank, a control character, or the end. */
static bool is_dash_comment(const Reader *reader) {
  int after = peek(reader, 2);
  return peek(reader, 0) == '-' && peek(reader, 1) == '-' &&
         (after < 0 || is_blank(after) || is_control(after));
}

/* The content of a comment that starts like this is executed by MySQL or by MariaDB. */
static bool skip_executable_head(Reader *reader) {
  size_t mariadb = peek(reader, 2) == 'M' ? 1 : 0;
  if (peek(reader, 0) != '/' || peek(reader, 1) != '*' || peek(reader, 2 + mariadb) != '!')
    return false;
  reader->at += 3 + mariadb;
  for (int digits = 0; digits < 6 && g_ascii_isdigit(peek(reader, 0)); digits++)
    reader->at++;
  return true;
}

/* Moves past one blank or comment. `*ret_broken`: the comment has no end. */
static bool skip_one(Reader *reader, bool *ret_broken) {
  if (is_blank(peek(reader, 0))) {
    reader->at++;
    return true;
  }
  if (peek(reader, 0) == '#' || is_dash_comment(reader)) {
    skip_line(reader);
    return true;
  }
  if (reader->executable && peek(reader, 0) == '*' && peek(reader, 1) == '/') {
    reader->executable = false;
    reader->at += 2;
    return true;
  }
  if (skip_executable_head(reader)) {
    reader->executable = true;
    return true;
  }
  if (peek(reader, 0) != '/' || peek(reader, 1) != '*')
    return false;
  const char *from = reader->sql + reader->at + 2;
  const char *end = g_strstr_len(from, (gssize)(reader->length - reader->at - 2), "*/");
  *ret_broken = !end;
  reader->at = end ? (size_t)(end - reader->sql) + 2 : reader->length;
  return true;
}

/* --- quotes --------------------------------------------------------------------------------- */

static int unescaped(int c) {
  switch (c) {
  case '0': return 0;
  case 'b': return '\b';
  case 'n': return '\n';
  case 'r': return '\r';
  case 't': return '\t';
  case 'Z': return 26;
  default: return c;
  }
}

/* Reads from the opening quote to the closing one. False: there is none. */
static bool read_quoted(Reader *reader, bool escapes, GByteArray *bytes) {
  int quote = peek(reader, 0);
  for (reader->at++; peek(reader, 0) >= 0; reader->at++) {
    int c = peek(reader, 0);
    if (c == '\\' && escapes && peek(reader, 1) >= 0) {
      reader->at++;
      c = unescaped(peek(reader, 0));
    } else if (c == quote && peek(reader, 1) == quote) {
      reader->at++;
    } else if (c == quote) {
      reader->at++;
      return true;
    }
    guint8 byte = (guint8)c;
    g_byte_array_append(bytes, &byte, 1);
  }
  return false;
}

static void quoted(Reader *reader, Token *token) {
  int quote = peek(reader, 0);
  bool name = quote == '`' || (quote == '"' && reader->mode.ansi_quotes);
  token->bytes = g_byte_array_new();
  token->kind = name ? TOKEN_NAME : TOKEN_STRING;
  if (!read_quoted(reader, !name && !reader->mode.no_backslash_escapes, token->bytes))
    token->kind = TOKEN_BROKEN;
}

/* --- numbers -------------------------------------------------------------------------------- */

static size_t count_digits(const Reader *reader, size_t from, bool (*is_one)(int c)) {
  size_t count = 0;
  while (is_one(peek(reader, from + count)))
    count++;
  return count;
}

static bool is_digit(int c) {
  return c >= '0' && c <= '9';
}

static bool is_hex(int c) {
  return c >= 0 && g_ascii_isxdigit(c);
}

static bool is_bit(int c) {
  return c == '0' || c == '1';
}

static GByteArray *bytes_of_hex(const char *digits, size_t count) {
  GByteArray *bytes = g_byte_array_new();
  for (size_t i = 0; i < count; i += 2) {
    guint8 byte =
        (guint8)(g_ascii_xdigit_value(digits[i]) << 4 | g_ascii_xdigit_value(digits[i + 1]));
    g_byte_array_append(bytes, &byte, 1);
  }
  return bytes;
}

/* X'..' and b'..': only digits up to the quote; hexadecimal digits in pairs. */
static bool prefixed(Reader *reader, Token *token) {
  int c = peek(reader, 0);
  bool hex = c == 'x' || c == 'X', bit = c == 'b' || c == 'B';
  if ((!hex && !bit) || peek(reader, 1) != '\'')
    return false;
  size_t count = count_digits(reader, 2, hex ? is_hex : is_bit);
  bool good = peek(reader, 2 + count) == '\'' && (bit || count % 2 == 0);
  token->kind = !good ? TOKEN_BROKEN : hex ? TOKEN_HEX : TOKEN_BIT;
  if (token->kind == TOKEN_HEX)
    token->bytes = bytes_of_hex(reader->sql + reader->at + 2, count);
  reader->at += good ? count + 3 : 2 + count;
  return true;
}

/* 0x0f and 0b01, unless more of a name follows. */
static bool zero_prefixed(Reader *reader, Token *token) {
  if (peek(reader, 0) != '0' || (peek(reader, 1) != 'x' && peek(reader, 1) != 'b'))
    return false;
  bool hex = peek(reader, 1) == 'x';
  size_t count = count_digits(reader, 2, hex ? is_hex : is_bit);
  if (count == 0 || is_name_byte(peek(reader, 2 + count)))
    return false;
  token->kind = hex ? TOKEN_HEX : TOKEN_BIT;
  if (hex && count % 2 == 0)
    token->bytes = bytes_of_hex(reader->sql + reader->at + 2, count);
  reader->at += 2 + count;
  return true;
}

static size_t exponent_length(const Reader *reader, size_t from) {
  if (peek(reader, from) != 'e' && peek(reader, from) != 'E')
    return 0;
  size_t sign = peek(reader, from + 1) == '-' || peek(reader, from + 1) == '+' ? 1 : 0;
  size_t digits = count_digits(reader, from + 1 + sign, is_digit);
  return digits ? 1 + sign + digits : 0;
}

/* 1, 1.5, .5, 1., 1e9; "1abc" is a word. */
static bool number(Reader *reader, Token *token) {
  size_t length = count_digits(reader, 0, is_digit);
  bool point = peek(reader, length) == '.';
  if (length == 0 && !(point && is_digit(peek(reader, 1))))
    return false;
  if (point)
    length += 1 + count_digits(reader, length + 1, is_digit);
  size_t exponent = exponent_length(reader, length);
  if (!point && !exponent && is_name_byte(peek(reader, length)))
    return false;
  token->kind = TOKEN_NUMBER;
  reader->at += length + exponent;
  return true;
}

/* --- tokens --------------------------------------------------------------------------------- */

static void read_token(Reader *reader, Token *token) {
  int c = peek(reader, 0);
  if (c == '\'' || c == '"' || c == '`') {
    quoted(reader, token);
  } else if (prefixed(reader, token) || zero_prefixed(reader, token) || number(reader, token)) {
    return;
  } else if (is_name_byte(c)) {
    token->kind = TOKEN_WORD;
    while (is_name_byte(peek(reader, 0)))
      reader->at++;
  } else {
    token->kind = is_control(c) ? TOKEN_BROKEN : c == '?' ? TOKEN_PLACEHOLDER : TOKEN_SIGN;
    reader->at++;
  }
}

static void clear_token(gpointer data) {
  Token *token = data;
  if (token->bytes)
    g_byte_array_unref(token->bytes);
}

GArray *tokens_read(const char *sql, size_t length, TokenMode mode) {
  GArray *tokens = g_array_new(FALSE, TRUE, sizeof(Token));
  g_array_set_clear_func(tokens, clear_token);
  Reader reader = {.sql = sql, .length = length, .mode = mode};
  while (reader.at < length) {
    Token token = {.at = reader.at, .kind = TOKEN_BROKEN};
    bool broken = false;
    if (skip_one(&reader, &broken) && !broken)
      continue;
    if (!broken)
      read_token(&reader, &token);
    token.length = reader.at - token.at;
    token.executable = reader.executable;
    g_array_append_val(tokens, token);
  }
  return tokens;
}

const Token *token_get(const GArray *tokens, guint index) {
  return index < tokens->len ? &g_array_index(tokens, Token, index) : NULL;
}

bool token_is_word(const Token *token, const char *sql, const char *word) {
  return token && token->kind == TOKEN_WORD && token->length == strlen(word) &&
         !g_ascii_strncasecmp(sql + token->at, word, token->length);
}

bool token_is_sign(const Token *token, const char *sql, char sign) {
  return token && token->kind == TOKEN_SIGN && sql[token->at] == sign;
}

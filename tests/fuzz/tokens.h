/* tokens.h - SQL as MySQL and MariaDB read it, token by token.
 *
 * Written from the servers' manuals ("Literal Values", "Comments", "Schema Object Names", "Server
 * SQL Modes") and knows nothing of how this program writes or scans SQL: it is the second
 * opinion. */
#pragma once

#include <glib.h>
#include <stdbool.h>

typedef enum TokenKind {
  TOKEN_WORD,        /* a keyword, or a name without quotes */
  TOKEN_NAME,        /* a name in quotes; `bytes` has it without them */
  TOKEN_NUMBER,      /* without a sign */
  TOKEN_STRING,      /* `bytes` is what it stands for */
  TOKEN_HEX,         /* X'0f' or 0x0f; `bytes` is what it stands for */
  TOKEN_BIT,         /* b'01' or 0b01 */
  TOKEN_PLACEHOLDER, /* ? */
  TOKEN_SIGN,        /* any other character */
  TOKEN_BROKEN,      /* a quote or comment without its end, or bytes that are none of these */
} TokenKind;

typedef struct Token {
  TokenKind kind;
  size_t at, length; /* in the text */
  GByteArray *bytes; /* of names, strings, hexadecimals; else NULL */
  bool executable;   /* stands in a comment that the server executes */
} Token;

/* What of sql_mode changes how SQL is read. */
typedef struct TokenMode {
  bool ansi_quotes;          /* "x" is a name */
  bool no_backslash_escapes; /* \ is a character as any other */
} TokenMode;

/* Array of Token, without blanks and comments. Free it with g_array_unref. */
GArray *tokens_read(const char *sql, size_t length, TokenMode mode);
const Token *token_get(const GArray *tokens, guint index);
/* Whether it is that keyword; NULL is none. */
bool token_is_word(const Token *token, const char *sql, const char *word);
bool token_is_sign(const Token *token, const char *sql, char sign);

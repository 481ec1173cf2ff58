/* fuzz_statement.c - the text of an `sql` rule.
 *
 * Promises, to an independent tokenizer: what is accepted is one statement that begins as one that
 * changes rows; it holds a placeholder for each parameter and hides nothing in a comment that the
 * server executes; put together again from its parts it is accepted and means the same; aimed at
 * another table it is the same but for that table. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokens.h"

#include "projector/domain/statement.h"

#include <string.h>

static Column columns[] = {
    {.name = "account_id", .from = {.text = "$aggregate_id", .path = "aggregate_id"}},
    {.name = "balance", .from = {.in_payload = true, .text = "balance", .path = "balance"}},
};
static const Projection projection = {
    .table = "account", .key_count = 1, .column_count = 2, .columns = columns};

/* --- sources -------------------------------------------------------------------------------- */

static void check_source(const Source *source) {
  Arena *arena = arena_new();
  Source again;
  PROMISE(*source->text && (!source->path || *source->path), "a source without a name");
  PROMISE(source->dotted == (source->path && strchr(source->path, '.') != NULL),
          "a path and its dots: %s", source->text);
  PROMISE(source_parse(source->text, strlen(source->text), arena, &again) &&
              !g_strcmp0(source->path, again.path) && source->in_payload == again.in_payload,
          "the text of a source is another source: %s", source->text);
  arena_free(arena);
}

/* --- statements ----------------------------------------------------------------------------- */

static bool is_write(const Token *token, const char *sql) {
  return token_is_word(token, sql, "INSERT") || token_is_word(token, sql, "UPDATE") ||
         token_is_word(token, sql, "DELETE") || token_is_word(token, sql, "REPLACE");
}

static void check_begin(const GArray *tokens, const char *sql) {
  const Token *first = token_get(tokens, 0);
  if (is_write(first, sql))
    return;
  PROMISE(token_is_word(first, sql, "WITH"), "no statement that changes rows: %s", sql);
  int depth = 0;
  for (guint i = 1; i < tokens->len; i++) {
    const Token *token = token_get(tokens, i);
    depth += token_is_sign(token, sql, '(') - token_is_sign(token, sql, ')');
    if (depth == 0 && is_write(token, sql))
      return;
    const Token *before = token_get(tokens, i - 1);
    bool name = token_is_sign(before, sql, '.'); /* of a column, say */
    /* `.1SELECT`, which the program takes for one word, and no server for the end of a WITH */
    bool glued = before->kind == TOKEN_NUMBER && before->at + before->length == token->at;
    PROMISE(depth > 0 || name || glued || !token_is_word(token, sql, "SELECT"), "WITH to read: %s",
            sql);
  }
  PROMISE(false, "WITH and nothing that changes rows: %s", sql);
}

static guint count_of(const GArray *tokens, TokenKind kind) {
  guint count = 0;
  for (guint i = 0; i < tokens->len; i++)
    count += token_get(tokens, i)->kind == kind;
  return count;
}

/* The server refuses a broken text; where its quotes end is anybody's guess. */
static bool is_broken(const GArray *tokens) {
  return count_of(tokens, TOKEN_BROKEN) > 0;
}

static void check_statement(const Rule *rule, const GArray *tokens) {
  const char *sql = rule->statement;
  check_begin(tokens, sql);
  PROMISE(count_of(tokens, TOKEN_PLACEHOLDER) == rule->parameter_count, "%u parameters for %s",
          rule->parameter_count, sql);
  for (guint i = 0; i < tokens->len; i++) {
    const Token *token = token_get(tokens, i);
    PROMISE(!token_is_sign(token, sql, ';'), "two statements: %s", sql);
    PROMISE(!token->executable, "what this comment does depends on the server: %s", sql);
  }
}

static void check_parameters(const Rule *rule) {
  for (unsigned i = 0; i < rule->parameter_count; i++) {
    const Parameter *parameter = &rule->parameters[i];
    check_source(&parameter->from);
    PROMISE(parameter->column < (int)projection.column_count, "a column that is not there");
    if (parameter->column >= 0)
      PROMISE(!strcmp(columns[parameter->column].from.text, parameter->from.text),
              "the type of another column");
  }
}

/* The statement as it could have been written in the mapping file. */
static char *put_together(const Rule *rule, const GArray *tokens) {
  g_autoptr(GString) text = g_string_new(NULL);
  size_t from = 0;
  unsigned parameter = 0;
  for (guint i = 0; i < tokens->len; i++) {
    const Token *token = token_get(tokens, i);
    if (token->kind != TOKEN_PLACEHOLDER)
      continue;
    g_string_append_len(text, rule->statement + from, (gssize)(token->at - from));
    g_string_append_printf(text, ":%s", rule->parameters[parameter++].from.text);
    from = token->at + token->length;
  }
  g_string_append(text, rule->statement + from);
  return g_string_free(g_steal_pointer(&text), FALSE);
}

static void check_again(const Rule *rule, const GArray *tokens, Arena *arena) {
  g_autofree char *text = put_together(rule, tokens);
  Rule again = {.projection = &projection, .operation = OP_SQL};
  const char *wrong = "";
  PROMISE(statement_parse(text, arena, &again, &wrong), "refused the second time (%s): %s", wrong,
          text);
  PROMISE(!strcmp(rule->statement, again.statement), "another statement the second time: %s", text);
  PROMISE(rule->parameter_count == again.parameter_count, "other parameters the second time: %s",
          text);
  for (unsigned i = 0; i < rule->parameter_count; i++)
    PROMISE(!strcmp(rule->parameters[i].from.text, again.parameters[i].from.text),
            "another parameter the second time: %s", text);
  g_free(again.parameters);
}

/* --- another table -------------------------------------------------------------------------- */

static bool is_named(const Token *token, const char *sql, const char *name) {
  if (token->kind == TOKEN_NAME)
    return token->bytes->len == strlen(name) &&
           !memcmp(token->bytes->data, name, token->bytes->len);
  return token->kind == TOKEN_WORD && token->length == strlen(name) &&
         !memcmp(sql + token->at, name, token->length);
}

static void check_retarget(const char *sql, const GArray *tokens) {
  static const char to[] = "shadow_0";
  if (strstr(sql, to))
    return;
  g_autofree char *text = statement_retarget(sql, projection.table, to);
  if (!text)
    return;
  g_autoptr(GArray) aimed = tokens_read(text, strlen(text), (TokenMode){0});
  PROMISE(aimed->len == tokens->len, "aimed elsewhere it has other tokens: %s", text);
  bool any = false;
  for (guint i = 0; i < tokens->len; i++) {
    const Token *before = token_get(tokens, i), *after = token_get(aimed, i);
    bool same = before->kind == after->kind && before->length == after->length &&
                !memcmp(sql + before->at, text + after->at, before->length);
    bool moved = is_named(before, sql, projection.table) && is_named(after, text, to);
    PROMISE(same || moved, "aimed elsewhere another word has changed: %s", text);
    PROMISE(!same || !is_named(before, sql, projection.table) || any,
            "the table it changes is still the old one: %s", text);
    any |= moved;
  }
  PROMISE(any, "aimed elsewhere it is the same: %s", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  g_autofree char *text = g_strndup((const char *)data, size);
  if (strlen(text) != size || !g_utf8_validate(text, -1, NULL))
    return 0; /* a mapping file can contain neither */
  Arena *arena = arena_new();
  Rule rule = {.projection = &projection, .operation = OP_SQL};
  const char *wrong = NULL;
  Source source;
  if (source_parse(text, size, arena, &source))
    check_source(&source);
  if (!statement_parse(text, arena, &rule, &wrong)) {
    PROMISE(wrong && *wrong, "refused without a reason");
  } else if (statement_changes_rows(rule.statement)) {
    g_autoptr(GArray) tokens = tokens_read(rule.statement, strlen(rule.statement), (TokenMode){0});
    if (!is_broken(tokens)) {
      check_statement(&rule, tokens);
      check_parameters(&rule);
      check_again(&rule, tokens, arena);
      check_retarget(rule.statement, tokens);
    }
  }
  g_free(rule.parameters);
  arena_free(arena);
  return 0;
}

/* fuzz_mapping.c - the whole mapping file, as the program loads it.
 *
 * What files and the environment hold is made up: no input can read this machine's. Promises:
 * what is accepted has the shape that the rest of the program leans on; written again from what was
 * understood it is accepted and understood the same; what is refused says why, in UTF-8, and never
 * quotes the password. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokens.h"

#include "projector/app/shared/config.h"
#include "projector/domain/event.h"
#include "projector/domain/statement.h"

#include <string.h>

static const char mapping_file[] = "fuzz.json", secret_in_file[] = "secret-of-a-file";

/* --- files that are none --------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv);

static const uint8_t *input;
static size_t input_size;

gboolean __wrap_g_file_get_contents(const char *path, char **ret_text, gsize *ret_length,
                                    GError **error);
const char *__wrap_g_getenv(const char *name);

gboolean __wrap_g_file_get_contents(const char *path, char **ret_text, gsize *ret_length,
                                    GError **error) {
  bool is_mapping = !strcmp(path, mapping_file);
  if (!is_mapping && !g_str_has_suffix(path, "secret")) {
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOENT, "no file %s", path);
    return FALSE;
  }
  gsize length = is_mapping ? input_size : strlen(secret_in_file);
  char *text = g_malloc(length + 1);
  memcpy(text, is_mapping ? (const void *)input : secret_in_file, length);
  text[length] = '\0';
  *ret_text = text;
  if (ret_length)
    *ret_length = length;
  return TRUE;
}

const char *__wrap_g_getenv(const char *name) {
  static const char *const variables[][2] = {
      {"PORT", "3307"}, {"NAME", "bank"}, {"EMPTY", ""}, {"BROKEN", "\xFF"}, {"NESTED", "${NAME}"}};
  for (size_t i = 0; i < G_N_ELEMENTS(variables); i++)
    if (!strcmp(name, variables[i][0]))
      return variables[i][1];
  return NULL;
}

/* --- the shape ------------------------------------------------------------------------------- */

static bool is_plain_name(const char *name) {
  size_t length = strlen(name);
  return length >= 1 && length <= 64 &&
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$") == length;
}

static void check_rule(const Mapping *mapping, const Projection *projection, const Rule *rule) {
  const Rule *const *rules =
      mapping_rules(mapping, projection->aggregate_type, strlen(projection->aggregate_type),
                    rule->event_type, strlen(rule->event_type));
  bool found = false;
  for (; rules && *rules; rules++)
    found |= *rules == rule;
  PROMISE(found, "an event of type %s does not find its rule", rule->event_type);
  PROMISE(rule->projection == projection, "a rule of another projection");
  for (unsigned i = 0; i < rule->assignment_count; i++)
    PROMISE(rule->assignments[i].column >= projection->key_count &&
                rule->assignments[i].column < projection->column_count,
            "a rule assigns to a column that is none, or to the key");
  bool assigns = rule->operation == OP_UPDATE || rule->operation == OP_ADD ||
                 rule->operation == OP_SUBTRACT || rule->soft;
  PROMISE(assigns == (rule->assignment_count > 0), "%s with %u columns",
          operation_name(rule->operation), rule->assignment_count);
  PROMISE((rule->operation == OP_SQL) == (rule->statement != NULL), "a statement of its own");
}

static void check_projection(const Mapping *mapping, unsigned index) {
  const Projection *projection = mapping_projection(mapping, index);
  PROMISE(projection->index == index, "a projection of another number");
  PROMISE(mapping_find(mapping, projection->table) == projection, "two projections of one table");
  PROMISE(is_plain_name(projection->table), "a table that needs more than backticks");
  PROMISE(projection->key_count >= 1 && projection->key_count <= projection->column_count,
          "a projection without a key");
  PROMISE(projection->rule_count >= 1 || projection->parent, "a projection without rules");
  for (unsigned i = 0; i < projection->column_count; i++) {
    const Column *column = &projection->columns[i];
    PROMISE(is_plain_name(column->name), "a column that needs more than backticks");
    PROMISE(i >= projection->key_count || !column->nullable, "a key that may be NULL");
    for (unsigned j = 0; j < i; j++)
      PROMISE(g_ascii_strcasecmp(column->name, projection->columns[j].name), "a column twice");
  }
  for (unsigned i = 0; i < projection->rule_count; i++)
    check_rule(mapping, projection, &projection->rules[i]);
  mapping_overwrites(mapping, projection);
}

/* --- written again --------------------------------------------------------------------------- */

/* A single path, whose text says everything about it. */
static bool is_plain_source(const Source *source) {
  return !source->constant && !source->otherwise;
}

static bool is_plain_rule(const Rule *rule) {
  bool plain = !rule->when && !rule->soft;
  for (unsigned i = 0; i < rule->assignment_count; i++)
    plain = plain && is_plain_source(&rule->assignments[i].from);
  return plain;
}

/* Whether the functions below can write the whole mapping: no constants, lists, conditions, soft
 * deletes, children, or columns that are always set. */
static bool is_plain(const Mapping *mapping) {
  bool plain = true;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    const Projection *projection = mapping_projection(mapping, i);
    plain = plain && !projection->when && projection->always_count == 0 &&
            projection->child_count == 0 && !projection->parent;
    for (unsigned k = 0; k < projection->column_count; k++)
      plain = plain && is_plain_source(&projection->columns[k].from) &&
              !projection->columns[k].type.plain;
    for (unsigned k = 0; k < projection->rule_count; k++)
      plain = plain && is_plain_rule(&projection->rules[k]);
  }
  return plain;
}

static json_t *column_json(const Column *column, bool is_key) {
  json_t *json = json_pack("{s:s, s:s}", "from", column->from.text, "type", column->type.text);
  if (!is_key)
    json_object_update_new(
        json, json_pack("{s:b, s:b}", "null", column->nullable, "compare", column->compare));
  return json;
}

static json_t *columns_json(const Projection *projection, unsigned from, unsigned end) {
  json_t *json = json_object();
  for (unsigned i = from; i < end; i++)
    json_object_set_new(json, projection->columns[i].name,
                        column_json(&projection->columns[i], i < projection->key_count));
  return json;
}

/* With the names of the parameters in place of the question marks. */
static char *statement_text(const Rule *rule) {
  g_autoptr(GString) text = g_string_new(NULL);
  g_autoptr(GArray) tokens = tokens_read(rule->statement, strlen(rule->statement), (TokenMode){0});
  size_t from = 0;
  unsigned count = 0;
  for (guint i = 0; i < tokens->len; i++) {
    const Token *token = token_get(tokens, i);
    if (token->kind == TOKEN_BROKEN)
      return NULL;
    if (token->kind != TOKEN_PLACEHOLDER)
      continue;
    PROMISE(count < rule->parameter_count, "a placeholder without a parameter: %s",
            rule->statement);
    g_string_append_len(text, rule->statement + from, (gssize)(token->at - from));
    g_string_append_printf(text, ":%s", rule->parameters[count++].from.text);
    from = token->at + token->length;
  }
  g_string_append(text, rule->statement + from);
  return g_string_free(g_steal_pointer(&text), FALSE);
}

/* NULL: it contains a statement that the server will refuse, because a quote has no end. */
static json_t *rule_json(const Rule *rule) {
  json_t *json = json_pack("{s:s}", "op", operation_name(rule->operation));
  if (rule->operation == OP_SQL) {
    g_autofree char *text = statement_text(rule);
    if (!text) {
      json_decref(json);
      return NULL;
    }
    json_object_set_new(json, "statement", json_string(text));
  }
  json_t *columns = rule->assignment_count > 0 ? json_object() : NULL;
  for (unsigned i = 0; i < rule->assignment_count; i++)
    json_object_set_new(columns, rule->projection->columns[rule->assignments[i].column].name,
                        json_string(rule->assignments[i].from.text));
  if (columns)
    json_object_set_new(json, "columns", columns);
  return json;
}

static json_t *projection_json(const Projection *projection) {
  json_t *events = json_object();
  for (unsigned i = 0; i < projection->rule_count; i++) {
    json_t *rule = rule_json(&projection->rules[i]);
    if (!rule) {
      json_decref(events);
      return NULL;
    }
    json_object_set_new(events, projection->rules[i].event_type, rule);
  }
  json_t *json = json_pack(
      "{s:s, s:s, s:b, s:o, s:o, s:o}", "aggregate_type", projection->aggregate_type, "table",
      projection->table, "allow_unique_keys", projection->allow_unique_keys, "key",
      columns_json(projection, 0, projection->key_count), "columns",
      columns_json(projection, projection->key_count, projection->column_count), "events", events);
  if (projection->entities)
    json_object_set_new(json, "entities", json_string(projection->entities));
  return json;
}

static json_t *mapping_json(const Mapping *mapping) {
  json_t *list = json_array();
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++) {
    json_t *projection = projection_json(mapping_projection(mapping, i));
    if (!projection) {
      json_decref(list);
      return NULL;
    }
    json_array_append_new(list, projection);
  }
  return json_pack("{s:s, s:o}", "unknown_events",
                   mapping_ignores_unknown(mapping) ? "ignore" : "fail", "projections", list);
}

static void check_again(const Mapping *mapping) {
  Failure failure = {0};
  json_t *json = is_plain(mapping) ? mapping_json(mapping) : NULL;
  if (!json)
    return;
  g_autoptr(Mapping) again = mapping_parse(json, &failure);
  PROMISE(again, "refused the second time: %s", failure.message);
  json_t *second = mapping_json(again);
  PROMISE(json_equal(json, second), "understood in another way the second time");
  json_decref(second);
  json_decref(json);
}

/* --- what is refused ------------------------------------------------------------------------- */

/* How often the input contains the text. If it appears elsewhere too, it is not a secret. */
static unsigned count_in_input(const char *text) {
  const char *at = (const char *)input, *end = at + input_size;
  unsigned count = 0;
  while ((at = g_strstr_len(at, end - at, text))) {
    count++;
    at++;
  }
  return count;
}

static void check_refusal(const Failure *failure) {
  enum { TELLING = 8 };
  PROMISE(failure->class == FAILURE_CONFIG && *failure->message, "refused without a reason");
  PROMISE(g_utf8_validate(failure->message, -1, NULL), "the reason is no UTF-8");
  if (count_in_input(secret_in_file) == 0)
    PROMISE(!strstr(failure->message, secret_in_file), "it quotes a secret: %s", failure->message);
  json_t *json = json_loadb((const char *)input, input_size, 0, NULL);
  const char *password =
      json_string_value(json_object_get(json_object_get(json, "mysql"), "password"));
  if (password && strlen(password) >= TELLING && count_in_input(password) == 1)
    PROMISE(!strstr(failure->message, password), "it quotes the password: %s", failure->message);
  json_decref(json);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  mongoc_log_set_handler(NULL, NULL); /* it warns of each option of a URI that it does not know */
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Failure failure = {0};
  input = data;
  input_size = size;
  g_autoptr(Config) config = config_load(mapping_file, &failure);
  if (!config) {
    check_refusal(&failure);
    return 0;
  }
  PROMISE(*config->name && *config->mysql.database && *config->mongodb.database,
          "names are missing");
  PROMISE(config->settings.workers >= 1 && config->settings.batch >= 1, "nothing would be done");
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++)
    check_projection(config->mapping, i);
  check_again(config->mapping);
  return 0;
}

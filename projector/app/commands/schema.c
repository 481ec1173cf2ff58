/* schema.c - `projector schema`: the DDL of the projector's own tables and of the projections. */
#include "projector/app/commands/migrations.h"
#include "projector/app/shared/command.h"
#include "projector/infra/mysql/catalog.h"
#include "projector/infra/mysql/ddl.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* The statements of a migration file: each ends with a semicolon at the end of a line. Comment
 * lines are dropped. */
static GPtrArray *split_statements(const char *text) {
  GPtrArray *statements = g_ptr_array_new_with_free_func(g_free);
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  g_autoptr(GString) statement = g_string_new(NULL);
  for (char **line = lines; *line; line++) {
    if (g_str_has_prefix(*line, "--") || (!**line && statement->len == 0))
      continue;
    g_string_append_printf(statement, "%s\n", *line);
    if (!g_str_has_suffix(*line, ";"))
      continue;
    g_string_truncate(statement, statement->len - 2);
    g_ptr_array_add(statements, g_strdup(statement->str));
    g_string_truncate(statement, 0);
  }
  return statements;
}

/* One JSON object a line: where a statement comes from, or what was done to a table. */
static void print_line(const char *key, const char *subject, const char *value_key,
                       const char *value) {
  json_t *line = json_pack("{s:s, s:s}", key, subject, value_key, value);
  command_print_json(line, JSON_COMPACT);
  json_decref(line);
}

static void print_done(bool as_json, const char *key, const char *subject, const char *done) {
  if (as_json)
    print_line(key, subject, "done", done);
  else
    printf("%s: %s\n", subject, done);
}

static void print_statements(const Config *config, bool mariadb) {
  for (size_t i = 0; i < migration_count; i++) {
    g_autoptr(GPtrArray) statements = split_statements(migrations[i].sql);
    for (guint j = 0; j < statements->len; j++)
      print_line("source", migrations[i].name, "statement", statements->pdata[j]);
  }
  for (unsigned i = 0; i < mapping_table_count(config->mapping); i++) {
    const Projection *projection = mapping_table(config->mapping, i);
    g_autofree char *sql = ddl_create_table(projection, mariadb);
    print_line("source", projection->path, "statement", sql);
  }
}

static void print_schema(const Config *config, bool mariadb) {
  for (size_t i = 0; i < migration_count; i++)
    printf("-- %s\n%s\n", migrations[i].name, migrations[i].sql);
  for (unsigned i = 0; i < mapping_table_count(config->mapping); i++) {
    const Projection *projection = mapping_table(config->mapping, i);
    g_autofree char *sql = ddl_create_table(projection, mariadb);
    printf("-- %s: %s\n%s;\n\n", projection->path, projection->aggregate_type, sql);
  }
}

static bool apply_statement(Session *session, const char *sql, Failure *ret_failure) {
  return session_execute(session, sql, strlen(sql), NULL, ret_failure);
}

static bool apply_migrations(Session *session, bool as_json, Failure *ret_failure) {
  for (size_t i = 0; i < migration_count; i++) {
    g_autoptr(GPtrArray) statements = split_statements(migrations[i].sql);
    for (guint j = 0; j < statements->len; j++)
      if (!apply_statement(session, statements->pdata[j], ret_failure))
        return failure_prefix(ret_failure, "%s", migrations[i].name);
    print_done(as_json, "source", migrations[i].name, "in place");
  }
  return true;
}

/* Before anything is altered: checks what an added column would contain in existing rows. The
 * server would invent '' or 0, and a projector that runs with the older mapping would fail. */
static bool check_added(Session *session, const Projection *projection, Failure *ret_failure) {
  g_autoptr(GPtrArray) names = g_ptr_array_new();
  Failure failure = {0};
  if (!catalog_columns_without_value(session, projection, names, ret_failure))
    return false;
  if (names->len == 0)
    return true;
  g_autofree char *row =
      session_ask(session, &failure, "SELECT 1 FROM `%s` LIMIT 1", projection->table);
  if (!row) {
    *ret_failure = failure;
    return failure.class == FAILURE_NONE;
  }
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "%s has rows, and its new column %s is NOT NULL and has no default: nothing "
                     "was changed. Give the column \"null\": true, or a \"default\" that is right "
                     "for the existing rows; docs/changing-the-mapping.md has the steps",
                     projection->table, (const char *)names->pdata[0]);
}

static bool apply_projection(Session *session, const Projection *projection, bool as_json,
                             Failure *ret_failure) {
  bool exists;
  g_autoptr(GPtrArray) missing = catalog_missing_columns(session, projection, &exists, ret_failure);
  if (!missing)
    return false;
  if (!exists) {
    g_autofree char *sql = ddl_create_table(projection, session_is_mariadb(session));
    if (!apply_statement(session, sql, ret_failure))
      return failure_prefix(ret_failure, "%s", projection->table);
    print_done(as_json, "table", projection->table, "created");
    return true;
  }
  for (guint i = 0; i < missing->len; i++) {
    if (!apply_statement(session, missing->pdata[i], ret_failure))
      return failure_prefix(ret_failure, "%s", projection->table);
    print_done(as_json, "table", projection->table, missing->pdata[i]);
  }
  if (missing->len == 0)
    print_done(as_json, "table", projection->table, "in place");
  return true;
}

/* The remaining findings need an operator, or this user cannot see what was done. */
static int look_again(Session *session, const Mapping *mapping) {
  Failure failure = {0};
  g_autoptr(GPtrArray) findings = catalog_check(session, mapping, &failure);
  if (!findings)
    return command_fail(&failure);
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    if (finding->error) {
      failure_set(&failure, FAILURE_CONFIG, SOURCE_MYSQL, 0, "still: %s", finding->text);
      return command_fail(&failure);
    }
  }
  return EXIT_GOOD;
}

static int apply_schema(const Config *config, bool as_json) {
  Failure failure = {0};
  g_autoptr(Session) session = session_open(&config->mysql, &failure);
  if (!session || !apply_migrations(session, as_json, &failure))
    return command_fail(&failure);
  for (unsigned i = 0; i < mapping_table_count(config->mapping); i++)
    if (!check_added(session, mapping_table(config->mapping, i), &failure))
      return command_fail(&failure);
  for (unsigned i = 0; i < mapping_table_count(config->mapping); i++)
    if (!apply_projection(session, mapping_table(config->mapping, i), as_json, &failure))
      return command_fail(&failure);
  return look_again(session, config->mapping);
}

/* DDL is MySQL's, unless the server can be reached and is MariaDB. */
static bool is_mariadb(const Config *config) {
  Failure ignored;
  g_autoptr(Session) session = session_open(&config->mysql, &ignored);
  return session && session_is_mariadb(session);
}

int command_schema(int argc, char **argv) {
  gboolean apply = FALSE, as_json = FALSE;
  const GOptionEntry options[] = {
      {"apply", 0, 0, G_OPTION_ARG_NONE, &apply,
       "Create missing tables and columns; never drops, narrows or changes existing ones", NULL},
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON object a line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){"- print or create the tables",
                         "Prints the DDL of the projector's own tables and of the projections.",
                         options},
          &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  if (apply)
    return apply_schema(config, as_json);
  if (as_json)
    print_statements(config, is_mariadb(config));
  else
    print_schema(config, is_mariadb(config));
  return EXIT_GOOD;
}

/* try.c - `projector try`: what events would do, without a store. */
#include "projector/app/commands/try.h"

#include "projector/app/shared/command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- events --------------------------------------------------------------------------------- */

static char *read_input(const char *file, size_t *ret_length, Failure *ret_failure) {
  g_autoptr(GError) error = NULL;
  char *text = NULL;
  if (strcmp(file, "-") != 0) {
    if (!g_file_get_contents(file, &text, ret_length, &error))
      failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s: %s", file, error->message);
    return text;
  }
  g_autoptr(GString) all = g_string_new(NULL);
  char part[65536];
  size_t count;
  while ((count = fread(part, 1, sizeof part, stdin)) > 0)
    g_string_append_len(all, part, (gssize)count);
  *ret_length = all->len;
  return g_string_free(g_steal_pointer(&all), FALSE);
}

typedef struct Try {
  const Config *config;
  Rehearsal *rehearsal;
  gboolean as_json, mariadb;
  bool all_good;
} Try;

static bool try_document(Try *try, const json_t *json, const char *path, Failure *ret_failure) {
  Event *event = try_event(try->config, json, path, ret_failure);
  if (!event)
    return false;
  const Rehearsed done = rehearsal_take(try->rehearsal, event);
  json_t *report = try_report(event, &done, try->mariadb);
  try->all_good = try->all_good && done.verdict != VERDICT_FAILED && done.verdict != VERDICT_WAIT;
  if (try->as_json)
    command_print_json(report, JSON_COMPACT);
  else
    try_print(report);
  json_decref(report);
  return true;
}

static bool try_file(Try *try, const char *file, Failure *ret_failure) {
  size_t length = 0, i;
  json_t *member;
  g_autofree char *text = read_input(file, &length, ret_failure);
  json_t *documents = text ? try_documents(text, length, file, ret_failure) : NULL;
  bool good = documents != NULL;
  if (good && json_array_size(documents) == 0)
    good = failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected an event document, found none", file);
  json_array_foreach(documents, i, member) {
    g_autofree char *path = g_strdup_printf("%s: document %zu", file, i + 1);
    good = good && try_document(try, member, path, ret_failure);
  }
  json_decref(documents);
  return good;
}

static int try_events(const Config *config, char *const *files, gboolean as_json,
                      gboolean mariadb) {
  g_autoptr(Rehearsal) rehearsal = rehearsal_new(config->mapping);
  Try try = {config, rehearsal, as_json, mariadb, true};
  Failure failure = {0};
  for (; *files; files++)
    if (!try_file(&try, *files, &failure))
      return command_fail(&failure);
  return try.all_good ? EXIT_GOOD : EXIT_NO;
}

/* --- the command ---------------------------------------------------------------------------- */

static int run_cases(const Config *config, char *const *files, CaseFormat format) {
  bool all_good = true;
  for (; *files; files++) {
    bool good = true;
    Failure failure = {0};
    if (!try_cases(config, *files, format, &good, &failure))
      return command_fail(&failure);
    all_good = all_good && good;
  }
  return all_good ? EXIT_GOOD : EXIT_NO;
}

static bool take_format(const char *name, gboolean as_json, CaseFormat *ret_format) {
  if (!name)
    *ret_format = as_json ? FORMAT_JSON : FORMAT_TAP;
  else if (!strcmp(name, "tap"))
    *ret_format = FORMAT_TAP;
  else if (!strcmp(name, "junit"))
    *ret_format = FORMAT_JUNIT;
  else if (!strcmp(name, "json"))
    *ret_format = FORMAT_JSON;
  else
    return false;
  return true;
}

int command_try(int argc, char **argv) {
  g_auto(GStrv) expect = NULL;
  g_autofree char *name = NULL;
  gboolean as_json = FALSE, mariadb = FALSE;
  const GOptionEntry options[] = {
      {"expect", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &expect,
       "Run the cases of this file: given rows, events, expected rows", "CASES.json"},
      {"format", 0, 0, G_OPTION_ARG_STRING, &name,
       "Format of the results: tap (default), junit or json", "FORMAT"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON line for each event or case", NULL},
      {"mariadb", 0, 0, G_OPTION_ARG_NONE, &mariadb, "Print the SQL in MariaDB's dialect", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  CaseFormat format;
  int status;
  if (!command_begin_without_stores(
          &argc, &argv,
          &(CommandHelp){"[EVENT.json…] - what events would do, without a store",
                         "Reads event documents (Extended JSON; from stdin without a file) and "
                         "prints what each would change and with which SQL, or why it would fail. "
                         "With --expect it runs test cases: exit status 1 if an expectation fails.",
                         options},
          &config, &status))
    return status;
  if (!take_format(name, as_json, &format))
    return command_misuse("--format: expected tap, junit or json");
  if (name && !expect)
    return command_misuse("--format needs --expect");
  if (expect && argc > 1)
    return command_misuse("expected EVENT.json or --expect, not both");
  if (expect)
    return run_cases(config, expect, format);
  char from_stdin[] = "-", *const input[] = {from_stdin, NULL};
  return try_events(config, argc > 1 ? argv + 1 : input, as_json, mariadb);
}

/* command.c - option parsing and exit statuses common to all commands. */
#include "projector/app/shared/command.h"

#include "outbox/text/clean.h"
#include "projector/infra/log.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

bool command_output_is_lost(void) {
  bool lost = fflush(stdout) != 0;
  lost |= ferror(stdout) != 0;
  struct pollfd reader = {.fd = STDOUT_FILENO};
  /* the reader of a pipe may exit as soon as it has seen enough */
  return lost && !(poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR));
}

int command_misuse(const char *expected) {
  fprintf(stderr, "%s: %s; try --help\n", g_get_prgname(), expected);
  return EXIT_WRONG;
}

bool command_version(const char *text, int64_t *ret_version) {
  *ret_version = 0;
  if (!text || g_ascii_string_to_signed(text, 10, 1, INT64_MAX, ret_version, NULL))
    return true;
  command_misuse("VERSION: expected a number from 1");
  return false;
}

void print_clean(FILE *to, const char *text) {
  g_autoptr(GString) clean = g_string_new(NULL);
  text_append_clean(clean, text, "");
  fputs(clean->str, to);
}

void command_print_json_text(const char *text) {
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_autofree char *clean = json_text_clean(valid);
  fputs(clean, stdout);
}

void command_print_json(const json_t *json, size_t flags) {
  char *text = json_dumps(json, flags);
  command_print_json_text(text ? text : "{}"); /* NULL: the text is not UTF-8 */
  putchar('\n');
  free(text);
}

int command_fail(const Failure *failure) {
  static const char *const sources[] = {"", "mysql: ", "mongodb: ", ""};
  Failure redacted = log_redacted(failure);
  g_autoptr(GString) line = g_string_new("projector: ");
  g_string_append(line, sources[failure->source]);
  text_append_clean(line, redacted.message, "");
  if (failure->code)
    g_string_append_printf(line, " (%d)", failure->code);
  log_plain(line->str);
  switch (failure->class) {
  case FAILURE_CONFIG:
  case FAILURE_MAPPING: return EXIT_WRONG;
  case FAILURE_UNAVAILABLE:
  case FAILURE_SPACE: return EXIT_UNREACHABLE;
  case FAILURE_CONFLICT:
  case FAILURE_UNKNOWN:
  case FAILURE_HISTORY: /* a store that cannot answer has not said no */
    return failure->source == SOURCE_MYSQL || failure->source == SOURCE_MONGODB ? EXIT_UNREACHABLE
                                                                                : EXIT_NO;
  default: return EXIT_NO;
  }
}

bool command_projections(const Config *config, const char *table, const char *purpose,
                         GPtrArray *projections, Failure *ret_failure) {
  const Projection *named = table ? mapping_find(config->mapping, table) : NULL;
  if (table && !named)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "no projection fills a table %s", table);
  if (named && !named->entities)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "projections[%u]: %s has no \"entities\" to %s", named->index, named->table,
                       purpose);
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++) {
    const Projection *projection = mapping_projection(config->mapping, i);
    if (named ? projection == named : projection->entities != NULL)
      g_ptr_array_add(projections, (gpointer)projection);
  }
  return projections->len > 0 || failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                                             "no projection has \"entities\" to %s", purpose);
}

/* GLib leaves "--" in place if an argument after it begins with "-", as the number -5 does. */
static void drop_separator(int *argc, char **argv) {
  for (int i = 1; i < *argc; i++)
    if (!strcmp(argv[i], "--")) {
      memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv); /* with the NULL */
      --*argc;
      return;
    }
}

static const GOptionEntry *find_option(const GOptionEntry *entries, const char *argument) {
  for (; entries && entries->long_name; entries++)
    if ((g_str_has_prefix(argument, "--") && !strcmp(argument + 2, entries->long_name)) ||
        (argument[0] == '-' && argument[1] && argument[1] == entries->short_name && !argument[2]))
      return entries;
  return NULL;
}

static bool is_negative_number(const char *argument) {
  return argument[0] == '-' && argument[1] && !argument[1 + strspn(argument + 1, "0123456789")];
}

/* GLib takes the id -5 for an option, so its minus is hidden while options are parsed: the argument
 * then begins behind it. What belongs to an option stays as it is. */
static GPtrArray *hide_minuses(int argc, char **argv, const GOptionEntry *own,
                               const GOptionEntry *common) {
  GPtrArray *hidden = g_ptr_array_new();
  const GOptionEntry *option = NULL;
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    bool is_value = option && option->arg != G_OPTION_ARG_NONE;
    if (!is_value && is_negative_number(argv[i]))
      g_ptr_array_add(hidden, ++argv[i]);
    option = is_value ? NULL : find_option(own, argv[i]);
    if (!is_value && !option)
      option = find_option(common, argv[i]);
  }
  return hidden;
}

static void show_minuses(int argc, char **argv, const GPtrArray *hidden) {
  for (int i = 1; i < argc; i++)
    argv[i] -= g_ptr_array_find((GPtrArray *)hidden, argv[i], NULL);
}

typedef Config *(*ConfigLoader)(const char *file, Failure *ret_failure);

static bool begin(int *argc, char ***argv, const CommandHelp *help, ConfigLoader load,
                  Config **ret_config, int *ret_status) {
  g_autofree char *file = NULL;
  gboolean debug = FALSE;
  const GOptionEntry common[] = {
      {"config", 'c', 0, G_OPTION_ARG_FILENAME, &file, "The mapping file (required)", "FILE"},
      {"debug", 0, 0, G_OPTION_ARG_NONE, &debug,
       "Log the reasons of failures in full, with the values that MySQL quotes in them", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(GOptionContext) context = g_option_context_new(help->usage);
  g_autoptr(GError) error = NULL;
  g_autofree char *name = g_strdup_printf("projector %s", (*argv)[0]);
  g_set_prgname(name);
  g_option_context_set_summary(context, help->summary);
  if (help->options)
    g_option_context_add_main_entries(context, help->options, NULL);
  g_option_context_add_main_entries(context, common, NULL);
  *ret_status = EXIT_WRONG;
  g_autoptr(GPtrArray) hidden = hide_minuses(*argc, *argv, help->options, common);
  if (!g_option_context_parse(context, argc, argv, &error)) {
    fprintf(stderr, "%s: ", name);
    print_clean(stderr, error->message);
    fprintf(stderr, "; try --help\n");
    return false;
  }
  show_minuses(*argc, *argv, hidden);
  drop_separator(argc, *argv);
  if (!file) {
    fprintf(stderr, "%s: -c FILE is missing; try --help\n", name);
    return false;
  }
  Failure failure = {0};
  g_autoptr(Config) config = load(file, &failure);
  if (!config) {
    *ret_status = command_fail(&failure);
    return false;
  }
  log_setup(config->settings.log_json, debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
  for (guint i = 0; i < config->warnings->len; i++)
    log_warning("configuration", LOG_FIELDS(LOG_TEXT("reason", config->warnings->pdata[i])));
  *ret_config = g_steal_pointer(&config);
  return true;
}

bool command_begin(int *argc, char ***argv, const CommandHelp *help, Config **ret_config,
                   int *ret_status) {
  return begin(argc, argv, help, config_load, ret_config, ret_status);
}

bool command_begin_without_stores(int *argc, char ***argv, const CommandHelp *help,
                                  Config **ret_config, int *ret_status) {
  return begin(argc, argv, help, config_load_mapping, ret_config, ret_status);
}

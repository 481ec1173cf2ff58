// `outbox init`: creates the collections and indexes of the outbox.
#include "outbox/cli/cli.h"

#include <stdio.h>
#include <string.h>

static const char DESCRIPTION[] =
    "May be run any number of times: it creates what is missing.\n"
    "\n"
    "The collection OUTBOX_commands remembers the ids of executed commands, so that one that is "
    "sent\n"
    "again changes nothing; all writers with liboutbox use it as soon as it is there. "
    "--commands-ttl\n"
    "says for how long: a number of seconds, or one with s, m, h or d (30d); \"never\" or 0: they "
    "are\n"
    "never removed. Without the option an existing setting stays; a new collection gets 30d.";

// Reads "30d" or "3600". False: it is something else.
static bool parse_ttl(const char *text, int64_t *ret_seconds) {
  static const struct {
    char letter;
    int seconds;
  } units[] = {{'\0', 1}, {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
  size_t digits = strspn(text, "0123456789");
  guint64 number;
  g_autofree char *figure = g_strndup(text, digits);
  if (strcmp(text, "never") == 0) {
    *ret_seconds = OUTBOX_COMMANDS_FOREVER;
    return true;
  }
  if (text[digits] != '\0' && text[digits + 1] != '\0') {
    return false;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(units); i++) {
    if (text[digits] == units[i].letter &&
        g_ascii_string_to_unsigned(figure, 10, 0, (guint64)(G_MAXINT32 / units[i].seconds), &number,
                                   NULL)) {
      *ret_seconds = number ? (int64_t)number * units[i].seconds : OUTBOX_COMMANDS_FOREVER;
      return true;
    }
  }
  return false;
}

static const char *const DEFAULT_ENTITIES[] = {"accounts", NULL};

// A feed that holds entities too would give its reader documents that are no events.
static bool check_feeds(const char *const *entities, char **feeds) {
  for (size_t i = 0; feeds && feeds[i]; i++) {
    if (g_strv_contains(entities, feeds[i])) {
      cli_say("--feed %s: expected a collection of its own, found one for entities", feeds[i]);
      return false;
    }
  }
  return true;
}

// The collections beside the outbox. `feeds` may be NULL.
static bool init_neighbours(outbox_t *outbox, const char *const *names, char **feeds, bool archive,
                            outbox_error_t *error) {
  bool good = true;
  for (size_t i = 0; good && names[i]; i++) {
    good = outbox_create_collection(outbox, names[i], error);
  }
  for (size_t i = 0; good && feeds && feeds[i]; i++) {
    good = outbox_init_feed(outbox, feeds[i], error);
  }
  return good && (!archive || outbox_init_archive(outbox, error));
}

int cli_init(int argc, char **argv) {
  g_auto(GStrv) entities = NULL;
  g_auto(GStrv) feeds = NULL;
  g_autofree char *ttl = NULL;
  gboolean archive = FALSE, no_commands = FALSE;
  const GOptionEntry entries[] = {
      {"entities", 0, 0, G_OPTION_ARG_STRING_ARRAY, &entities,
       "collection of entities to create; may be repeated (default: accounts)", "NAME"},
      {"feed", 0, 0, G_OPTION_ARG_STRING_ARRAY, &feeds,
       "feed to create, with the indexes of an outbox; may be repeated", "NAME"},
      {"archive", 0, 0, G_OPTION_ARG_NONE, &archive,
       "create the archive too, with the indexes that events on demand and replay need", NULL},
      {"commands-ttl", 0, 0, G_OPTION_ARG_STRING, &ttl,
       "how long executed commands are remembered (default: 30d)", "TIME"},
      {"no-commands", 0, 0, G_OPTION_ARG_NONE, &no_commands,
       "do not create the collection that remembers them", NULL},
      {NULL},
  };
  const cli_usage_t usage = {
      .name = "init",
      .summary = "create the outbox collection and its indexes",
      .description = DESCRIPTION,
      .entries = entries,
  };
  g_auto(cli_store_t) store = {0};
  int status;
  if (!cli_parse(&usage, argc, argv, &store, &status)) {
    return status;
  }
  outbox_init_options_t options = {.no_commands = no_commands};
  if (ttl && no_commands) {
    cli_say("--commands-ttl and --no-commands exclude each other");
    return STATUS_WRONG;
  }
  if (ttl && !parse_ttl(ttl, &options.commands_ttl_s)) {
    cli_say("--commands-ttl: expected a time like 30d, 12h or 3600, at most 68 years, or never; "
            "found \"%.60s\"",
            ttl);
    return STATUS_WRONG;
  }
  const char *const *names = entities ? (const char *const *)entities : DEFAULT_ENTITIES;
  if (!check_feeds(names, feeds)) {
    return STATUS_WRONG;
  }
  g_autoptr(outbox_t) outbox = cli_open(&store, false, &status);
  if (!outbox) {
    return status;
  }
  outbox_error_t error = {0};
  if (!outbox_init_with(outbox, &options, &error) ||
      !init_neighbours(outbox, names, feeds, archive, &error)) {
    cli_say("%s", error.message);
    return cli_status(&error);
  }
  printf("outbox is ready\n");
  return STATUS_GOOD;
}

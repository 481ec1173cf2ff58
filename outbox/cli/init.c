// `outbox init`: the collections and the indexes of the outbox.
#include "outbox/cli/cli.h"

#include <stdio.h>

int cli_init(int argc, char **argv) {
  g_auto(GStrv) entities = NULL;
  const GOptionEntry entries[] = {
      {"entities", 0, 0, G_OPTION_ARG_STRING_ARRAY, &entities,
       "collection of entities to create; may be repeated (default: accounts)", "NAME"},
      {NULL},
  };
  const cli_usage_t usage = {
      .name = "init",
      .summary = "create the outbox collection and its indexes",
      .description = "May be run any number of times: it creates what is missing.",
      .entries = entries,
  };
  g_auto(cli_store_t) store = {0};
  int status;
  if (!cli_parse(&usage, argc, argv, &store, &status)) {
    return status;
  }
  g_autoptr(outbox_t) outbox = cli_open(&store, false, &status);
  if (!outbox) {
    return status;
  }
  const char *const defaults[] = {"accounts", NULL};
  const char *const *names = entities ? (const char *const *)entities : defaults;
  outbox_error_t error = {0};
  bool good = outbox_init(outbox, &error);
  for (size_t i = 0; good && names[i]; i++) {
    good = outbox_create_collection(outbox, names[i], &error);
  }
  if (!good) {
    cli_say("%s", error.message);
    return cli_status(&error);
  }
  printf("outbox is ready\n");
  return STATUS_GOOD;
}

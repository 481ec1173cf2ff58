/* mend.c - the commands `projector retry`, `skip` and `refresh`; resolve.c does what they ask for.
 */
#include "projector/app/command.h"
#include "projector/app/resolve.h"

#include <jansson.h>
#include <stdio.h>

static const char *const dead_only[] = {"dead", NULL};

/* --- what the three commands share ------------------------------------------------------------ */

typedef struct Choice {
  gboolean by_aggregate, all_dead, as_json;
  Selection selection;
} Choice;

#define JSON_OPTION(flag)                                                                          \
  { "json", 0, 0, G_OPTION_ARG_NONE, flag, "The result as JSON", NULL }

static bool choose(int argc, char **argv, Choice *choice) {
  Selection *selection = &choice->selection;
  *selection = (Selection){.states = choice->all_dead ? dead_only : resolve_blocking};
  if (choice->all_dead)
    return argc == 1 && !choice->by_aggregate;
  if (choice->by_aggregate) {
    selection->aggregate_type = argv[1];
    selection->aggregate_id = argc > 2 ? argv[2] : NULL;
    return argc == 3;
  }
  selection->event_id = argv[1];
  return argc == 2;
}

static void print_json(json_t *json) {
  command_print_json(json, JSON_COMPACT);
  json_decref(json);
}

typedef bool (*Resolve)(const Config *config, MongoStore *store, const Selection *selection,
                        int64_t *ret_count, Failure *ret_failure);

/* A lock that another keeps for too long is no answer. */
static int fail(const Failure *failure) {
  int status = command_fail(failure);
  return failure->class == FAILURE_CONFLICT ? EXIT_UNREACHABLE : status;
}

/* Mends, prints the result, and gives the exit status. */
static int mend(const Config *config, const Choice *choice, Resolve do_it, const char *done_one,
                const char *done_many) {
  Failure failure = {0};
  int64_t count;
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (!store || !do_it(config, store, &choice->selection, &count, &failure))
    return fail(&failure);
  if (choice->as_json)
    print_json(json_pack("{s:I}", "count", (json_int_t)count));
  else
    printf("%lld %s\n", (long long)count, count == 1 ? done_one : done_many);
  return count == 0 ? EXIT_NO : EXIT_GOOD;
}

static bool begin_choice(int *argc, char ***argv, const char *usage, const char *summary,
                         Config **ret_config, Choice *ret_choice, int *ret_status) {
  Choice choice = {0};
  const GOptionEntry options[] = {
      {"aggregate", 0, 0, G_OPTION_ARG_NONE, &choice.by_aggregate,
       "All failed and dead events of one aggregate: --aggregate TYPE ID", NULL},
      {"all-dead", 0, 0, G_OPTION_ARG_NONE, &choice.all_dead, "All dead events", NULL},
      JSON_OPTION(&choice.as_json),
      G_OPTION_ENTRY_NULL};
  if (!command_begin(argc, argv, usage, summary, options, ret_config, ret_status))
    return false;
  if (choose(*argc, *argv, &choice)) {
    *ret_choice = choice;
    return true;
  }
  *ret_status = command_misuse("expected EVENT_ID, --aggregate TYPE ID or --all-dead");
  return false;
}

/* --- retry ------------------------------------------------------------------------------------ */

int command_retry(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Choice choice;
  int status;
  if (!begin_choice(&argc, &argv, "EVENT_ID - try failed or dead events again",
                    "Makes the events pending with all their attempts before them. Exit status 1 "
                    "when there is none to retry.",
                    &config, &choice, &status))
    return status;
  return mend(config, &choice, resolve_retry, "event to retry", "events to retry");
}

/* --- skip ------------------------------------------------------------------------------------- */

int command_skip(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Choice choice;
  int status;
  if (!begin_choice(
          &argc, &argv, "EVENT_ID - go on without failed or dead events",
          "Takes the events out; the ledger keeps that they were skipped. Their aggregates "
          "go on without them. Exit status 1 when there is none to skip.",
          &config, &choice, &status))
    return status;
  return mend(config, &choice, resolve_skip, "event skipped", "events skipped");
}

/* --- refresh ---------------------------------------------------------------------------------- */

int command_refresh(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  Refreshed done;
  int status;
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {JSON_OPTION(&as_json), G_OPTION_ENTRY_NULL};
  if (!command_begin(&argc, &argv, "TYPE ID - take an aggregate's rows from its entity",
                     "Reads the entity, writes the whole row, and supersedes the events that the "
                     "entity contains already. Exit status 1 when there is no such aggregate.",
                     options, &config, &status))
    return status;
  if (argc != 3)
    return command_misuse("expected TYPE ID");
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (!store || !resolve_refresh(config, store, argv[1], argv[2], &done, &failure))
    return fail(&failure);
  if (as_json) {
    print_json(done.found ? json_pack("{s:I, s:I}", "version", (json_int_t)done.version, "left",
                                      (json_int_t)done.left)
                          : json_pack("{s:n, s:i}", "version", "left", 0));
    return done.found ? EXIT_GOOD : EXIT_NO;
  }
  if (!done.found) {
    printf("no entity and no event of %s %s\n", argv[1], argv[2]);
    return EXIT_NO;
  }
  printf("%s %s is at version %lld\n", argv[1], argv[2], (long long)done.version);
  if (done.left > 0)
    printf("%lld failed or dead events are not contained in the entity; retry or skip them\n",
           (long long)done.left);
  return EXIT_GOOD;
}

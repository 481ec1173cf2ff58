/* pause.c - `projector pause` and `projector resume`: a pause is noted in the lease's document. */
#include "projector/app/shared/command.h"
#include "projector/app/shared/identity.h"
#include "projector/app/shared/resolve.h"
#include "projector/domain/datetime.h"
#include "projector/infra/mongo/lease.h"

static bool act(const Config *config, bool pause, PauseChange *ret_change, Failure *ret_failure) {
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, ret_failure);
  return store && identity_verify_name(config, store, ret_failure) &&
         resolve_pause(config, store, pause, ret_change, ret_failure);
}

static void print_json(const PauseChange *change) {
  char time[DATETIME_TEXT_SIZE];
  datetime_format(change->pause.since_ms * 1000, 3, time);
  g_autofree char *by = g_utf8_make_valid(change->pause.by, -1);
  json_t *json = json_pack("{s:b, s:b}", "paused", change->pause.on, "changed", change->changed);
  if (change->pause.on) {
    json_object_set_new(json, "by", json_string(by));
    json_object_set_new(json, "since", json_string(time));
  }
  command_print_json(json, JSON_COMPACT);
  json_decref(json);
}

static void print_pause(const PauseState *pause) {
  char time[DATETIME_TEXT_SIZE];
  datetime_format(pause->since_ms * 1000, 0, time);
  printf("paused by ");
  print_clean(stdout, pause->by);
  printf(" since %s UTC", time);
}

static int run(int argc, char **argv, bool pause, CommandHelp help) {
  gboolean as_json = FALSE;
  const GOptionEntry options[] = {{"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "For machines", NULL},
                                  G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  PauseChange change;
  int status;
  help.options = options;
  if (!command_begin(&argc, &argv, &help, &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  if (!act(config, pause, &change, &failure))
    return command_fail(&failure);
  if (as_json) {
    print_json(&change);
  } else if (pause) {
    print_pause(&change.pause);
    puts(change.changed ? "" : ", as before");
  } else {
    puts(change.changed ? "resumed" : "it was not paused");
  }
  return pause || change.changed ? EXIT_GOOD : EXIT_NO;
}

int command_pause(int argc, char **argv) {
  return run(argc, argv, true,
             (CommandHelp){"- apply nothing until `resume`",
                           "The owner finishes its current batch within some seconds, then applies "
                           "nothing; it keeps the lease but holds no lock or claim. A new owner is "
                           "paused too. `status`, /readyz and the page show the pause.",
                           NULL});
}

int command_resume(int argc, char **argv) {
  return run(argc, argv, false,
             (CommandHelp){"- end a pause",
                           "The owner continues within some seconds. Exit status 1 when nothing "
                           "was paused.",
                           NULL});
}

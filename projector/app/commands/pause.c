/* pause.c - `projector pause` and `projector resume`: a pause is noted in the lease's document. */
#include "projector/app/shared/command.h"
#include "projector/app/shared/resolve.h"
#include "projector/domain/datetime.h"
#include "projector/infra/mongo/lease.h"

static bool act(const Config *config, bool pause, PauseChange *ret_change, Failure *ret_failure) {
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, ret_failure);
  return store && resolve_pause(config, store, pause, ret_change, ret_failure);
}

static void print_pause(const PauseState *pause) {
  char time[DATETIME_TEXT_SIZE];
  datetime_format(pause->since_ms * 1000, 0, time);
  printf("paused by ");
  print_clean(stdout, pause->by);
  printf(" since %s UTC", time);
}

static const CommandHelp pause_help = {
    "- apply nothing until `resume`",
    "The owner finishes its current batch within some seconds, then applies nothing; it keeps the "
    "lease but holds no lock or claim. A new owner is paused too. `status`, /readyz and the page "
    "show the pause.",
    NULL};

static const CommandHelp resume_help = {
    "- end a pause",
    "The owner continues within some seconds. Exit status 1 when nothing was paused.", NULL};

static int run(int argc, char **argv, bool pause) {
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  PauseChange change;
  int status;
  if (!command_begin(&argc, &argv, pause ? &pause_help : &resume_help, &config, &status))
    return status;
  if (argc != 1)
    return command_misuse("expected no arguments");
  if (!act(config, pause, &change, &failure))
    return command_fail(&failure);
  if (pause) {
    print_pause(&change.pause);
    puts(change.changed ? "" : ", as before");
    return EXIT_GOOD;
  }
  puts(change.changed ? "resumed" : "it was not paused");
  return change.changed ? EXIT_GOOD : EXIT_NO;
}

int command_pause(int argc, char **argv) {
  return run(argc, argv, true);
}

int command_resume(int argc, char **argv) {
  return run(argc, argv, false);
}

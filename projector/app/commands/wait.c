/* wait.c - `projector wait`: wait until MySQL accounts for an aggregate's version. */
#include "projector/app/shared/account.h"
#include "projector/app/shared/command.h"

#include <string.h>

enum { LOOK_MS = 10, LOOK_MAX_MS = 100, TIMEOUT_MS = 5000 };

static const int64_t forever_ms = INT64_MAX / 1000 / 2; /* so long that no sum of times overflows */

static void print_answer(const Question *question, bool as_json) {
  const Account *answer = &question->answer;
  static const char *const states[] = {"failed", "dead"};
  if (as_json) {
    json_t *json = answer->state == ACCOUNT_DONE ? json_pack("{s:s}", "outcome", answer->outcome)
                   : answer->state == ACCOUNT_BLOCKED
                       ? json_pack("{s:n, s:s, s:s}", "outcome", "behind", answer->event_id,
                                   "state", states[answer->dead])
                       : json_pack("{s:n, s:n}", "outcome", "behind");
    command_print_json(json, JSON_COMPACT);
    json_decref(json);
  } else if (answer->state == ACCOUNT_DONE) {
    puts(answer->outcome);
  } else if (answer->state == ACCOUNT_BLOCKED) {
    printf("waits behind the %s event ", states[answer->dead]);
    print_clean(stdout, answer->event_id);
    putchar('\n');
  } else {
    puts("not in time");
  }
}

static bool wait_for(const Config *config, Question *question, int64_t timeout_ms,
                     Failure *ret_failure) {
  Stores stores;
  int64_t ends_at = g_get_monotonic_time() + MIN(timeout_ms, forever_ms) * 1000;
  int64_t pause_ms = LOOK_MS;
  if (!stores_open(config, "wait", &stores, ret_failure))
    return false;
  Failure ignored = {0};
  g_autoptr(Archive) archive = archive_open(&config->mongodb, &ignored);
  Asking asking = {.stores = &stores, .archive = archive};
  bool good;
  while ((good = account_ask(&asking, &question, 1, ret_failure)) &&
         question->answer.state == ACCOUNT_OPEN) {
    int64_t left_ms = (ends_at - g_get_monotonic_time()) / 1000;
    if (left_ms <= 0)
      break;
    g_usleep((gulong)MIN(pause_ms, left_ms) * 1000);
    pause_ms = MIN(pause_ms * 2, LOOK_MAX_MS);
  }
  stores_close(&stores);
  return good;
}

int command_wait(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Failure failure = {0};
  gboolean as_json = FALSE;
  g_autofree char *kind = NULL;
  gint64 timeout_ms = TIMEOUT_MS;
  int status;
  const GOptionEntry options[] = {
      {"timeout-ms", 0, 0, G_OPTION_ARG_INT64, &timeout_ms,
       "Maximum wait (default: 5000); 0: check once", "N"},
      {"id-kind", 0, 0, G_OPTION_ARG_STRING, &kind,
       "The id is of this kind alone: string, int, uuid or objectid", "KIND"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &as_json, "One JSON document", NULL},
      G_OPTION_ENTRY_NULL};
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){"TYPE ID VERSION - wait until an aggregate's version is accounted for",
                         "Prints how the version was accounted for: applied, superseded (the row "
                         "shows a newer state), skipped (by an operator) or missing (no event has "
                         "it). Exit status 1 if it does not arrive in time or, at once, if it "
                         "waits behind a failed or dead event, whose id is printed.",
                         options},
          &config, &status))
    return status;
  if (argc != 4)
    return command_misuse("expected TYPE ID VERSION");
  if (timeout_ms < 0)
    return command_misuse("expected --timeout-ms from 0");
  Question question;
  const char *wrong = question_init(&question, config->mapping, argv[1], argv[2], kind, argv[3]);
  if (wrong)
    return command_misuse(wrong);
  if (!wait_for(config, &question, timeout_ms, &failure))
    return command_fail(&failure);
  print_answer(&question, as_json);
  return question.answer.state == ACCOUNT_DONE ? EXIT_GOOD : EXIT_NO;
}

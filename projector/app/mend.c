/* mend.c - `projector retry`, `skip` and `refresh`: what a person decides about events that failed.
 *
 * They work beside a running projector, in any process: events are taken over by compare and set,
 * MySQL is written under an exclusive lock of the fence, and the owner is nudged to look again. */
#include "projector/app/mend.h"

#include "projector/app/command.h"
#include "projector/app/find.h"
#include "projector/app/refresh.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/selection.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const blocking[] = {"failed", "dead", NULL};
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
  *selection = (Selection){.states = choice->all_dead ? dead_only : blocking};
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

static Outbox *open_outbox(MongoStore *store, const char *command) {
  g_autofree char *owner = g_strdup_printf(OUTBOX_BY_HAND "%s:%s:%d:%08x", command,
                                           g_get_host_name(), (int)getpid(), g_random_int());
  return outbox_new(store, owner);
}

typedef bool (*Mend)(const Config *config, MongoStore *store, const Selection *selection,
                     int64_t *ret_count, Failure *ret_failure);

/* A lock that another keeps for too long is no answer. */
static int fail(const Failure *failure) {
  int status = command_fail(failure);
  return failure->class == FAILURE_CONFLICT ? EXIT_UNREACHABLE : status;
}

/* Mends, prints the result, and gives the exit status. */
static int mend(const Config *config, const Choice *choice, Mend do_it, const char *done_one,
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

bool mend_retry(const Config *config, MongoStore *store, const Selection *selection,
                int64_t *ret_count, Failure *ret_failure) {
  g_autoptr(Outbox) outbox = open_outbox(store, "retry");
  return selection_retry(outbox, selection, ret_count, ret_failure) &&
         (*ret_count == 0 || lease_nudge(store, config->name, ret_failure));
}

int command_retry(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  Choice choice;
  int status;
  if (!begin_choice(&argc, &argv, "EVENT_ID - try failed or dead events again",
                    "Makes the events pending with all their attempts before them. Exit status 1 "
                    "when there is none to retry.",
                    &config, &choice, &status))
    return status;
  return mend(config, &choice, mend_retry, "event to retry", "events to retry");
}

/* --- skip ------------------------------------------------------------------------------------- */

/* The ledger says `skipped` and the event's version is accounted for, in one transaction. What
 * sorts before the event is not late for that. `event->skipped` becomes what the ledger says. */
static bool record_skipped(Session *session, const Ledger *ledger, Event *event,
                           Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  Item item = {.event = event, .verdict = VERDICT_SKIPPED};
  AggregateState *state = aggregate_set_open(set, &event->aggregate);
  bool repeated = false;
  if (!session_run(session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(session, ledger, set, arena, ret_failure) ||
      !ledger_insert(session, ledger, &item, 1, &repeated, ret_failure))
    return false;
  if (repeated) { /* it was applied after all, or skipped: then there is nothing to record */
    session_rollback(session);
    *ret_failure = (Failure){0};
    return ledger_find_known(session, ledger, &item, 1, ret_failure);
  }
  order_pass(&state->position, event);
  state->moved = true;
  return ledger_write_positions(session, ledger, set, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

/* An event without a readable id or aggregate has no place in the ledger: it is only taken out. */
static bool skip_event(Session *session, const Ledger *ledger, Outbox *outbox, Event *event,
                       bool *ret_skipped, Failure *ret_failure) {
  if (!outbox_seize(outbox, event, ret_skipped, ret_failure))
    return false;
  if (!*ret_skipped)
    return true;
  bool recorded = true;
  event->skipped = true;
  if (event_has_aggregate(event)) {
    recorded = record_skipped(session, ledger, event, ret_failure);
    session_rollback(session);
  }
  if (recorded)
    return outbox_acknowledge(outbox, &event, 1, ret_failure);
  Failure ignored; /* then the sweeper finds it */
  outbox_unseize(outbox, event, &ignored);
  return false;
}

static bool skip_selected(const Config *config, Outbox *outbox, const Selection *selection,
                          int64_t *ret_count, Failure *ret_failure) {
  Ledger ledger = {.projector = config->name};
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  g_autoptr(EventCursor) cursor = selection_find(outbox, selection);
  const bson_t *document;
  *ret_count = 0;
  if (!session)
    return false;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    bool skipped;
    if (!skip_event(session, &ledger, outbox, event, &skipped, ret_failure))
      return false;
    *ret_count += skipped;
  }
  return ret_failure->class == FAILURE_NONE;
}

bool mend_skip(const Config *config, MongoStore *store, const Selection *selection,
               int64_t *ret_count, Failure *ret_failure) {
  g_autoptr(Outbox) outbox = open_outbox(store, "skip");
  return skip_selected(config, outbox, selection, ret_count, ret_failure) &&
         (*ret_count == 0 || lease_nudge(store, config->name, ret_failure));
}

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
  return mend(config, &choice, mend_skip, "event skipped", "events skipped");
}

/* --- refresh ---------------------------------------------------------------------------------- */

/* What failed and is contained in the entity now may pass: the projector supersedes it. */
static bool free_contained(Outbox *outbox, const char *type, const char *id, int64_t version,
                           int64_t *ret_left, Failure *ret_failure) {
  Selection selection = {.aggregate_type = type, .aggregate_id = id, .states = blocking};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &selection);
  const bson_t *document;
  *ret_left = 0;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    char text[ID_TEXT_SIZE];
    id_text(&event->key.event_id, text);
    Selection one = {.event_id = text, .states = blocking};
    int64_t count;
    if (event->key.version == 0 || event->key.version > version)
      ++*ret_left;
    else if (!selection_retry(outbox, &one, &count, ret_failure))
      return false;
  }
  return ret_failure->class == FAILURE_NONE;
}

bool mend_refresh(const Config *config, MongoStore *store, const char *type, const char *id,
                  Refreshed *ret_refreshed, Failure *ret_failure) {
  Ledger ledger = {.projector = config->name};
  Aggregate aggregate;
  uint8_t bytes[16];
  Refreshed done = {0};
  g_autoptr(Outbox) outbox = open_outbox(store, "refresh");
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  if (!session ||
      !find_aggregate(config, outbox, type, id, bytes, &aggregate, &done.found, ret_failure))
    return false;
  if (done.found && (!refresh_aggregate(session, &ledger, outbox, config->mapping, &aggregate,
                                        &done.version, ret_failure) ||
                     !free_contained(outbox, type, id, done.version, &done.left, ret_failure) ||
                     !lease_nudge(store, config->name, ret_failure)))
    return false;
  *ret_refreshed = done;
  return true;
}

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
  if (!store || !mend_refresh(config, store, argv[1], argv[2], &done, &failure))
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

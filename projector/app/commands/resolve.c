/* resolve.c - the commands `projector retry`, `skip` and `refresh`; shared/resolve.c does the
 * work. */
#include "projector/app/shared/resolve.h"

#include "outbox/text/clean.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/reconcile/rows_text.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/find.h"
#include "projector/app/shared/identity.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *const dead_only[] = {"dead", NULL};

/* --- what the commands share ------------------------------------------------------------------ */

typedef struct Choice {
  gboolean by_aggregate, all_dead, dry_run, as_json;
  char *type, *class, *reason, *id_kind;
  Selection selection;
} Choice;

static void choice_clear(Choice *choice) {
  g_free(choice->type);
  g_free(choice->class);
  g_free(choice->reason);
  g_free(choice->id_kind);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Choice, choice_clear)

#define ID_KIND_OPTION(text)                                                                       \
  {                                                                                                \
    "id-kind", 0, 0, G_OPTION_ARG_STRING, text,                                                    \
        "The id is of this kind alone: string, int, uuid or objectid", "KIND"                      \
  }
#define JSON_OPTION(flag)                                                                          \
  { "json", 0, 0, G_OPTION_ARG_NONE, flag, "The result as JSON", NULL }

static bool is_text(const char *text) {
  return !text || g_utf8_validate(text, -1, NULL);
}

/* NULL: valid. */
static const char *choose(int argc, char **argv, Choice *choice) {
  static const char expected[] = "expected EVENT_ID, --aggregate TYPE ID or --all-dead";
  Selection *selection = &choice->selection;
  bool kind = choice->type || choice->class || choice->reason;
  *selection = (Selection){.states = choice->all_dead ? dead_only : resolve_blocking,
                           .event_type = choice->type,
                           .error_class = choice->class,
                           .error_message = choice->reason,
                           .id_kind = choice->id_kind};
  if (!is_text(argv[1]) || (argc > 2 && !is_text(argv[2]))) /* GLib checks options */
    return "expected texts in UTF-8";
  if (choice->id_kind && !id_kind_from_name(choice->id_kind, &(IdKind){0}))
    return "--id-kind: expected string, int, uuid or objectid";
  if (choice->all_dead)
    return argc == 1 && !choice->by_aggregate ? NULL : expected;
  if (kind)
    return "--type, --class and --reason need --all-dead";
  if (choice->by_aggregate) {
    selection->aggregate_type = argv[1];
    selection->aggregate_id = argc > 2 ? argv[2] : NULL;
    return argc == 3 ? NULL : expected;
  }
  selection->event_id = argv[1];
  return argc == 2 ? NULL : expected;
}

static void print_json(json_t *json) {
  command_print_json(json, JSON_COMPACT);
  json_decref(json);
}

/* `help` comes without options: they are those of a choice. */
static bool begin_choice(int *argc, char ***argv, CommandHelp help, Config **ret_config,
                         Choice *choice, int *ret_status) {
  const GOptionEntry options[] = {
      {"aggregate", 0, 0, G_OPTION_ARG_NONE, &choice->by_aggregate,
       "All failed and dead events of one aggregate: --aggregate TYPE ID", NULL},
      {"all-dead", 0, 0, G_OPTION_ARG_NONE, &choice->all_dead, "All dead events", NULL},
      {"type", 0, 0, G_OPTION_ARG_STRING, &choice->type, "Of these, only this event type",
       "EVENT_TYPE"},
      {"class", 0, 0, G_OPTION_ARG_STRING, &choice->class, "Of these, only this failure class",
       "CLASS"},
      {"reason", 0, 0, G_OPTION_ARG_STRING, &choice->reason,
       "Of these, only those with this reason, as printed by `list --summary`", "TEXT"},
      ID_KIND_OPTION(&choice->id_kind),
      {"dry-run", 0, 0, G_OPTION_ARG_NONE, &choice->dry_run,
       "Only print the events that it would change", NULL},
      JSON_OPTION(&choice->as_json),
      G_OPTION_ENTRY_NULL};
  help.options = options;
  if (!command_begin(argc, argv, &help, ret_config, ret_status))
    return false;
  const char *wrong = choose(*argc, *argv, choice);
  if (wrong)
    *ret_status = command_misuse(wrong);
  return !wrong;
}

/* --- events as they are ----------------------------------------------------------------------- */

/* As it was written, so that `outbox put` takes it if it is needed again; NULL: it is not UTF-8.
 * Free with bson_free. */
static char *written_json(const Event *event) {
  bson_t view, written = BSON_INITIALIZER;
  event_append_without(event_document(event, &view), OWN_ALL, &written);
  char *json = bson_as_relaxed_extended_json(&written, NULL);
  bson_destroy(&written);
  return json;
}

static void print_document(const Event *event) {
  char *json = written_json(event);
  command_print_json_text(json ? json : "{}");
  bson_free(json);
}

typedef struct Printer {
  bool as_json;
  int64_t count;
} Printer;

static void print_event(const Event *event, void *data) {
  Printer *printer = data;
  if (printer->as_json)
    printf("%s", printer->count ? "," : "{\"events\":[");
  print_document(event);
  if (!printer->as_json)
    putchar('\n');
  printer->count++;
}

/* Also when a store failed in between: what was printed is one JSON object. */
static void print_end(const Printer *printer) {
  if (printer->as_json)
    printf("%s],\"count\":%lld}\n", printer->count ? "" : "{\"events\":[",
           (long long)printer->count);
}

static bool print_selected(MongoStore *store, const Selection *selection, Printer *printer,
                           Failure *ret_failure) {
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "look");
  g_autoptr(EventCursor) cursor = selection_find(outbox, selection);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    print_event(event, printer);
  }
  return ret_failure->class == FAILURE_NONE;
}

/* --- none ------------------------------------------------------------------------------------- */

/* The event's state, or "" when it is not in the outbox. */
static bool find_in_outbox(MongoStore *store, const Selection *chosen, char state[static 16],
                           Failure *ret_failure) {
  static const char *const names[] = {"pending", "in_progress", "failed", "dead"};
  g_autoptr(Outbox) outbox = outbox_new_for_command(store, "look");
  const Selection any = {.event_id = chosen->event_id, .id_kind = chosen->id_kind};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &any);
  const bson_t *document = event_cursor_next(cursor, ret_failure);
  g_autoptr(Event) event = document ? event_decode(document) : NULL;
  g_strlcpy(state, event ? names[event->status] : "", 16);
  return ret_failure->class == FAILURE_NONE;
}

static bool find_in_ledger(const Config *config, const Selection *chosen, LedgerEntry *ret_entry,
                           Failure *ret_failure) {
  const char *id = chosen->event_id;
  uint8_t bytes[16];
  Id ids[IDS_OF_TEXT];
  Event events[IDS_OF_TEXT] = {0};
  Item items[IDS_OF_TEXT] = {0};
  LedgerEntry entries[IDS_OF_TEXT] = {0};
  const Ledger ledger = {.projector = config->name};
  unsigned count = ids_from_text(id, strlen(id), bytes, ids);
  if (chosen->id_kind && !ids_keep_kind(ids, &count, chosen->id_kind))
    return true;
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  for (unsigned i = 0; i < count; i++) {
    events[i].key.event_id = ids[i];
    items[i].event = &events[i];
  }
  if (!session || !ledger_find_entries(session, &ledger, items, count, entries, ret_failure))
    return false;
  for (unsigned i = 0; i < count; i++)
    if (entries[i].outcome)
      *ret_entry = entries[i];
  return true;
}

/* Explains on stderr why nothing was done about the named event. */
static void explain_none(const Config *config, MongoStore *store, const Selection *chosen) {
  Failure failure = {0};
  LedgerEntry entry = {0};
  char state[16];
  if (!find_in_outbox(store, chosen, state, &failure))
    return;
  fprintf(stderr, "projector: event ");
  print_clean(stderr, chosen->event_id);
  if (*state)
    fprintf(stderr, " is %s, neither failed nor dead\n", state);
  else if (!find_in_ledger(config, chosen, &entry, &failure))
    fprintf(stderr, " is not in the outbox\n");
  else if (entry.outcome)
    fprintf(stderr, " was %s at %s\n", entry.outcome, entry.applied_at);
  else
    fprintf(stderr, " is not known: neither the outbox nor the ledger has it\n");
}

static int conclude(const Config *config, MongoStore *store, const Choice *choice, int64_t count) {
  if (count == 0 && choice->selection.event_id)
    explain_none(config, store, &choice->selection);
  return count == 0 ? EXIT_NO : EXIT_GOOD;
}

static int dry_run(const Config *config, MongoStore *store, const Choice *choice,
                   const char *verb) {
  Failure failure = {0};
  Printer printer = {.as_json = choice->as_json};
  if (!identity_verify_name(config, store, &failure))
    return command_fail(&failure);
  bool good = print_selected(store, &choice->selection, &printer, &failure);
  print_end(&printer);
  if (!good)
    return command_fail(&failure);
  if (!choice->as_json)
    printf("%lld event%s would be %s\n", (long long)printer.count, printer.count == 1 ? "" : "s",
           verb);
  return conclude(config, store, choice, printer.count);
}

/* --- retry ------------------------------------------------------------------------------------ */

int command_retry(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  g_auto(Choice) choice = {0};
  Failure failure = {0};
  int64_t count;
  int status;
  const CommandHelp help = {"EVENT_ID - try failed or dead events again",
                            "Makes the events pending again, with all their attempts. Exit status "
                            "1 if there is nothing to retry.",
                            NULL};
  if (!begin_choice(&argc, &argv, help, &config, &choice, &status))
    return status;
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (store && choice.dry_run)
    return dry_run(config, store, &choice, "tried again");
  if (!store || !identity_verify_name(config, store, &failure) ||
      !resolve_retry(config, store, &choice.selection, &count, &failure))
    return command_fail(&failure);
  if (choice.as_json)
    print_json(json_pack("{s:I}", "count", (json_int_t)count));
  else
    printf(count == 1 ? "%lld event will be tried again\n" : "%lld events will be tried again\n",
           (long long)count);
  return conclude(config, store, &choice, count);
}

/* --- skip ------------------------------------------------------------------------------------- */

int command_skip(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  g_auto(Choice) choice = {0};
  Failure failure = {0};
  int64_t count;
  int status;
  const CommandHelp help = {
      "EVENT_ID - continue without failed or dead events",
      "Removes the events and prints them; the ledger records that they were skipped, and the "
      "collection OUTBOX_archive keeps them. Their aggregates continue without them. Exit status 1 "
      "if there is nothing to skip.",
      NULL};
  if (!begin_choice(&argc, &argv, help, &config, &choice, &status))
    return status;
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, &failure);
  if (store && choice.dry_run)
    return dry_run(config, store, &choice, "skipped");
  Printer printer = {.as_json = choice.as_json};
  bool good = store && resolve_skip_reporting(config, store, &choice.selection, print_event,
                                              &printer, &count, &failure);
  if (store)
    print_end(&printer);
  if (!good) {
    fflush(stdout);
    if (printer.count)
      failure_prefix(&failure, "after %lld skipped event%s", (long long)printer.count,
                     printer.count == 1 ? "" : "s");
    return command_fail(&failure);
  }
  if (!choice.as_json)
    printf("%lld event%s skipped\n", (long long)count, count == 1 ? "" : "s");
  return conclude(config, store, &choice, count);
}

/* --- refresh ---------------------------------------------------------------------------------- */

typedef struct RefreshJob {
  gboolean force, dry_run, as_json;
  char *id_kind;
  Sought sought;
  bool has_entity;
  char *rows;          /* rows that exist although there is no entity */
  char *still;         /* what differs afterwards, or NULL */
  GPtrArray *blocking; /* of Event: failed and dead ones, as they were before */
  Refreshed done;
} RefreshJob;

static void refresh_job_clear(RefreshJob *job) {
  g_free(job->id_kind);
  g_free(job->rows);
  g_free(job->still);
  if (job->blocking)
    g_ptr_array_unref(job->blocking);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RefreshJob, refresh_job_clear)

static bool find_blocking(Stores *stores, RefreshJob *job, Failure *ret_failure) {
  const Selection selection = {.aggregate = &job->sought.aggregate, .states = resolve_blocking};
  g_autoptr(EventCursor) cursor = selection_find(stores->outbox, &selection);
  const bson_t *document;
  job->blocking = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  while ((document = event_cursor_next(cursor, ret_failure)))
    g_ptr_array_add(job->blocking, event_decode(document));
  return ret_failure->class == FAILURE_NONE;
}

static bool is_superseded(const RefreshJob *job, const Event *event) {
  return event->key.version > 0 && event->key.version <= job->done.version;
}

/* Those that the refresh superseded: they leave the outbox without being applied. */
static void print_superseded(const RefreshJob *job) {
  for (guint i = 0; i < job->blocking->len; i++) {
    const Event *event = job->blocking->pdata[i];
    if (is_superseded(job, event)) {
      print_document(event);
      putchar('\n');
    }
  }
}

/* Recheck, writes unless it is a dry run, and looks again. */
static bool run_refresh(Stores *stores, RefreshJob *job, Failure *ret_failure) {
  const Config *config = stores->config;
  if (!find_one_aggregate(config, stores->outbox, &job->sought, ret_failure))
    return false;
  if (!job->sought.found)
    return true;
  if (!find_entity(config, stores->outbox, &job->sought.aggregate, &job->has_entity, ret_failure) ||
      (!job->has_entity && !rows_text(stores, &job->sought.aggregate, &job->rows, ret_failure)) ||
      !find_blocking(stores, job, ret_failure))
    return false;
  if (job->dry_run)
    return true;
  return (job->force ? resolve_refresh : resolve_refresh_safely)(
             config, stores->store, &job->sought, &job->done, ret_failure) &&
         repair_check_aggregate(stores, &job->sought.aggregate, &job->still, ret_failure);
}

static json_t *superseded_json(const RefreshJob *job) {
  json_t *list = json_array();
  for (guint i = 0; i < job->blocking->len; i++) {
    const Event *event = job->blocking->pdata[i];
    if (!is_superseded(job, event))
      continue;
    char *text = written_json(event);
    g_autofree char *valid = g_utf8_make_valid(text ? text : "{}", -1);
    json_t *json = json_loads(valid, JSON_ALLOW_NUL, NULL);
    json_array_append_new(list, json ? json : json_object());
    bson_free(text);
  }
  return list;
}

static json_t *refresh_json(const RefreshJob *job) {
  if (!job->sought.found)
    return json_pack("{s:n, s:i}", "version", "left", 0);
  json_t *json = job->dry_run ? json_pack("{s:b}", "entity", (int)job->has_entity)
                              : json_pack("{s:I, s:I}", "version", (json_int_t)job->done.version,
                                          "left", (json_int_t)job->done.left);
  if (job->done.freed > 0)
    json_object_set_new(json, "superseded", superseded_json(job));
  if (job->done.unversioned > 0)
    json_object_set_new(json, "unversioned", json_integer(job->done.unversioned));
  if (!job->has_entity)
    json_object_set_new(json, job->dry_run ? "would_remove" : "removed", json_string(job->rows));
  if (job->still)
    json_object_set_new(json, "different", json_string(job->still));
  return json;
}

static void print_refresh(const RefreshJob *job) {
  const char *rows = job->rows && *job->rows ? job->rows : "no row";
  g_autoptr(GString) name = g_string_new(NULL);
  text_append_clean(name, job->sought.type, "");
  g_string_append_c(name, ' ');
  text_append_clean(name, job->sought.text, "");
  if (!job->sought.found) {
    printf("no entity and no event of %s\n", name->str);
  } else if (!job->has_entity) {
    printf("%s has no entity. %s:\n", name->str,
           job->dry_run ? "With --force a refresh would remove" : "Removed");
    print_clean(stdout, rows);
    putchar('\n');
  } else if (job->dry_run) {
    printf("%s would be taken from its entity\n", name->str);
  }
  if (!job->sought.found || job->dry_run)
    return;
  if (job->has_entity)
    printf("%s is at version %lld\n", name->str, (long long)job->done.version);
  if (job->done.freed > 0) {
    print_superseded(job);
    printf("%lld failed or dead event%s, contained in this version, superseded\n",
           (long long)job->done.freed, job->done.freed == 1 ? "" : "s");
  }
  if (job->done.left > 0)
    printf("%lld failed or dead events are not contained in the entity; retry or skip them\n",
           (long long)job->done.left);
  if (job->done.unversioned > 0)
    printf("%lld waiting events have no version, so they are applied on top, even if the entity "
           "contains them: an add or subtract among them may count twice; compare afterwards "
           "(reconcile)\n",
           (long long)job->done.unversioned);
  if (job->still) {
    printf("but it is still different (a trigger, a generated column, or a key whose collation "
           "considers two ids equal?): ");
    print_clean(stdout, job->still);
    putchar('\n');
  }
}

int command_refresh(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  g_auto(RefreshJob) job = {0};
  Failure failure = {0};
  Stores stores = {0};
  int status;
  const GOptionEntry options[] = {
      {"force", 0, 0, G_OPTION_ARG_NONE, &job.force,
       "Even without an entity: remove the rows and supersede the events", NULL},
      {"dry-run", 0, 0, G_OPTION_ARG_NONE, &job.dry_run, "Only print what it would do", NULL},
      ID_KIND_OPTION(&job.id_kind),
      JSON_OPTION(&job.as_json),
      G_OPTION_ENTRY_NULL};
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){"TYPE ID - take an aggregate's rows from its entity",
                         "Reads the entity, writes the whole row, supersedes the events that the "
                         "entity already contains, and verifies the row. Exit status 1 if there is "
                         "no such aggregate or entity, or if the row still differs.",
                         options},
          &config, &status))
    return status;
  if (argc != 3)
    return command_misuse("expected TYPE ID");
  job.sought.type = argv[1];
  job.sought.text = argv[2];
  job.sought.kind = job.id_kind;
  bool good =
      stores_open(config, "refresh", &stores, &failure) && run_refresh(&stores, &job, &failure);
  stores_close(&stores);
  if (!good && job.sought.found && !job.has_entity && !job.force)
    failure_prefix(&failure, "refused (--force does it, --dry-run shows what it would remove)");
  if (!good)
    return command_fail(&failure);
  if (job.as_json)
    print_json(refresh_json(&job));
  else
    print_refresh(&job);
  return job.sought.found && !job.still && (job.has_entity || job.force) ? EXIT_GOOD : EXIT_NO;
}

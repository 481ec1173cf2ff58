/* events.c - `projector events`: prints archived events, without any effect. */
#include "projector/app/shared/command.h"
#include "projector/app/shared/event_query.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/numbering.h"

#include <stdio.h>
#include <unistd.h>

typedef struct EventsOptions {
  char *after, *from, *to, *version, *limit, *event_type, *aggregate_type, *aggregate_id, *id_kind;
  gboolean by_aggregate, follow, waiting;
} EventsOptions;

/* With --follow, each page appears at once. */
static bool print_line(const char *line, size_t length, void *data) {
  (void)data;
  return fwrite(line, 1, length, stdout) == length;
}

static bool rest(int64_t ms, void *data) {
  (void)data;
  if (fflush(stdout) != 0)
    return false;
  g_usleep((gulong)MAX(ms, 0) * 1000);
  return !ferror(stdout);
}

static bool set(EventQuery *query, const char *key, const char *value, Failure *ret_failure) {
  return !value || event_query_set(query, key, value, ret_failure);
}

static bool fill_in(EventQuery *query, const EventsOptions *options, int argc, char **argv,
                    Failure *ret_failure) {
  query->follow = options->follow;
  query->waiting = options->waiting;
  return set(query, "after", options->after, ret_failure) &&
         set(query, "from", options->from, ret_failure) &&
         set(query, "to", options->to, ret_failure) &&
         set(query, "limit", options->limit, ret_failure) &&
         set(query, "event_type", options->event_type, ret_failure) &&
         set(query, "aggregate_type", options->aggregate_type, ret_failure) &&
         set(query, "aggregate_id", options->aggregate_id, ret_failure) &&
         set(query, "aggregate_id_kind", options->id_kind, ret_failure) &&
         set(query, "aggregate_type", argc > 1 ? argv[1] : NULL, ret_failure) &&
         set(query, "aggregate_id", argc > 2 ? argv[2] : NULL, ret_failure) &&
         set(query, "version", argc > 3 ? argv[3] : options->version, ret_failure);
}

/* Events without a number cannot be delivered. */
static bool warn_of_unnumbered(const Config *config, Archive *archive, Failure *ret_failure) {
  bool behind;
  LeaseView lease;
  if (!numbering_is_behind(archive_events(archive), &behind, ret_failure))
    return false;
  if (!behind)
    return true;
  if (!lease_look(archive_store(archive), config->name, &lease, ret_failure))
    return false;
  log_warning(lease.held
                  ? "archived events wait for their sequence number, which the projector assigns"
                  : "archived events have no sequence number yet: `projector run` assigns it",
              NULL);
  return true;
}

static int print_events(const Config *config, const EventQuery *query) {
  Failure failure = {0};
  g_autoptr(Archive) archive = archive_open(&config->mongodb, &failure);
  EventReading reading = {.config = config, .query = query, .sink = print_line, .pause = rest};
  if (!archive || !event_query_run(&reading, archive, &failure) ||
      !warn_of_unnumbered(config, archive, &failure))
    return command_fail(&failure);
  return EXIT_GOOD;
}

int command_events(int argc, char **argv) {
  EventsOptions options = {0};
  const GOptionEntry entries[] = {
      {"after", 0, 0, G_OPTION_ARG_STRING, &options.after,
       "Only after this cursor (default: 0, all)", "CURSOR"},
      {"aggregate", 0, 0, G_OPTION_ARG_NONE, &options.by_aggregate,
       "Only of one aggregate: --aggregate TYPE ID [VERSION]", NULL},
      {"aggregate-type", 0, 0, G_OPTION_ARG_STRING, &options.aggregate_type,
       "Only of this aggregate type", "TYPE"},
      {"aggregate-id", 0, 0, G_OPTION_ARG_STRING, &options.aggregate_id,
       "Only of this aggregate; needs --aggregate-type", "ID"},
      {"id-kind", 0, 0, G_OPTION_ARG_STRING, &options.id_kind,
       "What the aggregate's id is: string, int, uuid or objectid (default: any)", "KIND"},
      {"version", 0, 0, G_OPTION_ARG_STRING, &options.version,
       "Only the aggregate's event with this version", "N"},
      {"event-type", 0, 0, G_OPTION_ARG_STRING, &options.event_type, "Only of this event type",
       "EVENT_TYPE"},
      {"type", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_STRING, &options.event_type, NULL, NULL},
      {"from", 0, 0, G_OPTION_ARG_STRING, &options.from,
       "Only events that occurred at this time or later", "TIME"},
      {"to", 0, 0, G_OPTION_ARG_STRING, &options.to, "Only events that occurred before this time",
       "TIME"},
      {"limit", 0, 0, G_OPTION_ARG_STRING, &options.limit, "At most N events", "N"},
      {"follow", 0, 0, G_OPTION_ARG_NONE, &options.follow, "Wait for new events until interrupted",
       NULL},
      {"waiting", 0, 0, G_OPTION_ARG_NONE, &options.waiting,
       "Also print the events that wait in the outbox, without a cursor", NULL},
      {"json", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &(gboolean){0}, NULL, NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  g_auto(EventQuery) query;
  Failure failure = {0};
  int status;
  event_query_init(&query);
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "[TYPE ID [VERSION]] - archived events, one JSON object a line",
              "Prints applied events in the order of their cursors, so that another system can "
              "fill or repair its own store. Changes nothing. Needs \"retain\": \"archive\".",
              entries},
          &config, &status))
    return status;
  if (argc > (options.by_aggregate ? 4 : 1) || (options.by_aggregate && argc < 3))
    return command_misuse("expected --aggregate TYPE ID [VERSION], or no arguments");
  if (!fill_in(&query, &options, argc, argv, &failure) ||
      !event_query_check(&query, config, &failure))
    return command_fail(&failure);
  return print_events(config, &query);
}

/* replay.c - `projector replay`: fills a projection from the archived events in a table beside it
 * and swaps the two, or rebuilds one aggregate's row. */
#include "projector/app/replay/replay.h"

#include "outbox/text/clean.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/identity.h"
#include "projector/app/shared/resolve.h"
#include "projector/domain/retarget.h"
#include "projector/domain/statement.h"
#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/mysql/fence.h"
#include "projector/infra/mysql/inspect.h"
#include "projector/infra/mysql/privileges.h"
#include "projector/infra/mysql/shadow_carry.h"
#include "projector/infra/mysql/unnamed.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
  NAME_MAX_LENGTH = 64, /* of a projector's name in its tables */
  GATE_HOLDS_S = 60,    /* in case this process freezes while the owner waits */
};

typedef struct ReplayOptions {
  char *projection, *from, *to;
  char **leave_out;
  gboolean by_aggregate, restart, drop_old, force, as_json;
  const char *aggregate_type, *aggregate_id;
} ReplayOptions;

/* --- what to replay ------------------------------------------------------------------------- */

static bool parse_time(const char *option, const char *text, int64_t *ret_ms,
                       Failure *ret_failure) {
  if (!text)
    return true;
  g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(text, NULL);
  if (!time)
    return failure_refuse(ret_failure, "%s: expected a time like 2026-01-31T23:59:59Z, found %.80s",
                          option, text);
  *ret_ms = g_date_time_to_unix(time) * 1000 + g_date_time_get_microsecond(time) / 1000;
  return true;
}

/* All ids that the text may mean; an id without an event leaves nothing out. */
static void leave_out(Replay *replay, const char *text) {
  Id *ids = arena_alloc(replay->arena, IDS_OF_TEXT, sizeof *ids);
  unsigned count = ids_from_text(text, strlen(text), arena_alloc(replay->arena, 16, 1), ids);
  for (unsigned i = 0; i < count; i++)
    g_hash_table_add(replay->leave_out, &ids[i]);
}

static bool choose_events(Replay *replay, const ReplayOptions *options, Failure *ret_failure) {
  replay->range =
      (EventRange){replay->projection->aggregate_type, .from = INT64_MIN, .to = INT64_MAX};
  for (char **id = options->leave_out; id && *id; id++)
    leave_out(replay, *id);
  return parse_time("--from", options->from, &replay->range.from, ret_failure) &&
         parse_time("--to", options->to, &replay->range.to, ret_failure);
}

static bool open_stores(Replay *replay, Failure *ret_failure) {
  const Config *config = replay->config;
  bool empty;
  replay->store = mongo_store_open_single(&config->mongodb, ret_failure);
  replay->archive = replay->store ? archive_open(&config->mongodb, ret_failure) : NULL;
  if (!replay->archive || !archive_is_empty(replay->archive, &empty, ret_failure))
    return false;
  replay->outbox = outbox_new_for_command(replay->store, "replay");
  if (!config->mongodb.archive && empty)
    return failure_refuse(
        ret_failure,
        "mongodb.retain is \"delete\" and there is no %s_archive: no event is left to "
        "replay; rebuild fills a table from the entities",
        config->mongodb.outbox);
  if (!config->mongodb.archive && replay->range.to == INT64_MAX)
    return failure_refuse(
        ret_failure,
        "mongodb.retain is \"delete\": what is applied now does not reach the archive, so "
        "no table filled from it could follow live events; set \"archive\", or look at "
        "an earlier state with --to");
  replay->session = session_open(&config->mysql, ret_failure);
  return replay->session && identity_verify(config, replay->store, replay->session, ret_failure) &&
         mysql_json_slack(replay->session, &replay->json_slack, ret_failure);
}

static void close_stores(Replay *replay) {
  g_string_free(replay->lost.text, TRUE);
  g_free(replay->first_forgotten);
  g_hash_table_unref(replay->leave_out);
  arena_free(replay->arena);
  mapping_free(replay->mapping);
  session_close(replay->renamer);
  session_close(replay->session);
  outbox_free(replay->outbox);
  archive_close(replay->archive);
  mongo_store_close(replay->store);
}

/* --- a table beside the one that is shown --------------------------------------------------- */

/* "bank/account"; a projector's name cannot contain a slash. */
static char *scope_name(const Replay *replay) {
  g_assert(replay->projection);
  char *name = g_strdup_printf("%s/%s", replay->config->name, replay->projection->table);
  if (strlen(name) <= NAME_MAX_LENGTH)
    return name;
  g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_MD5, name, -1);
  g_free(name);
  return g_strdup_printf("replay/%s", digest);
}

/* What a continued replay must share with the one that was interrupted. */
static char *purpose_of(const Replay *replay) {
  const json_t *projections = json_object_get(replay->config->json, "projections");
  char *dump = json_dumps(json_array_get(projections, replay->projection->index),
                          JSON_COMPACT | JSON_SORT_KEYS);
  g_autofree char *text = g_strdup_printf("%lld %lld %s", (long long)replay->range.from,
                                          (long long)replay->range.to, dump ? dump : "");
  g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
  free(dump);
  return g_strdup_printf("replay:%s", digest);
}

/* The table and its ledger belong together: if one is missing, both start again. */
static bool open_shadow(Replay *replay, const ReplayOptions *options, const Shadow *shadow,
                        Failure *ret_failure) {
  g_autofree char *purpose = purpose_of(replay), *found = NULL;
  const char *table = replay->projection->table, *scope = replay->scope.projector;
  bool exists, shown;
  if (!shadow_table_exists(replay->session, table, &shown, ret_failure) ||
      !shadow_table_exists(replay->session, shadow->fresh, &exists, ret_failure) ||
      !fence_read_owner(replay->session, scope, &found, ret_failure))
    return false;
  if (!shown)
    return failure_refuse(ret_failure,
                          "table %s does not exist; `projector schema --apply` creates it", table);
  if (!options->to && (!privileges_check_swap(&replay->config->mysql, shadow, ret_failure) ||
                       !shadow_check(replay->session, shadow, options->drop_old, ret_failure) ||
                       !unnamed_check(replay->session, replay->projection, ret_failure)))
    return false;
  if (exists && !options->restart) {
    if (g_strcmp0(found, purpose) != 0)
      return failure_refuse(
          ret_failure,
          "%s exists from a replay with other options or another mapping; --restart "
          "drops it and starts again",
          shadow->fresh);
    fprintf(stderr, "projector: continues with %s\n", shadow->fresh);
    return fence_take(replay->session, scope, purpose, &replay->scope.epoch, ret_failure);
  }
  if (!shadow_drop(replay->session, shadow, ret_failure) ||
      !ledger_clear(replay->session, scope, ret_failure) ||
      !fence_take(replay->session, scope, purpose, &replay->scope.epoch, ret_failure))
    return false;
  crash_point("replay_before_create");
  return shadow_create(replay->session, shadow, ret_failure);
}

/* --- hand-over ------------------------------------------------------------------------------ */

/* What others have written into the live table: most of it before the gate closes, the rest after.
 */
static bool carry_unnamed(Replay *replay, Failure *ret_failure) {
  const UnnamedCarry carry = {
      .live = replay->projection, .fresh = replay->target, .gate = replay->gate, .replayed = true};
  return shadow_carry_unnamed(replay->session, &carry, ret_failure);
}

/* MySQL was restored to an earlier state. */
static bool check_forgotten(const Replay *replay, const ReplayOptions *options,
                            Failure *ret_failure) {
  return replay->forgotten == 0 || options->force ||
         failure_refuse(
             ret_failure,
             "MySQL has lost %lld events that were applied before (the first: %s): they are "
             "applied "
             "again when their aggregates get a later event, and would count twice; nothing was "
             "swapped: run `reconcile --repair` first, or use --force",
             (long long)replay->forgotten, replay->first_forgotten);
}

/* Rows that a swap would lose, because the archive lacks their events; with --from that is wanted.
 * While the gate is closed: before, `run` writes rows that are not replayed yet. */
static bool check_lost(Replay *replay, const ReplayOptions *options, Failure *ret_failure) {
  return replay_find_lost(replay, ret_failure) &&
         (replay->lost.count == 0 || options->force || options->from ||
          failure_refuse(
              ret_failure,
              "the archive has no events to make these rows from, and the swap would lose them: "
              "%.250s; nothing was swapped: `rebuild` fills the table from the entities, --force "
              "accepts the loss",
              replay->lost.text->str));
}

/* While the gate is closed, the table gets the remaining events and takes the live one's place. */
static bool finish_and_swap(Replay *replay, const ReplayOptions *options, Session *gate,
                            const char *since, const Shadow *shadow, Failure *ret_failure) {
  crash_point("replay_with_gate");
  replay->gate = gate;
  replay->scope.held = true;
  replay->scope.epoch = 0;
  if (!replay_finish(replay, since, ret_failure) || !carry_unnamed(replay, ret_failure) ||
      !check_lost(replay, options, ret_failure)) {
    replay->gate = NULL;
    shadow_open_gate(gate, shadow);
    return false;
  }
  replay->gate = NULL;
  crash_point("replay_before_swap");
  return shadow_swap(gate, replay->renamer, replay->session, shadow, ret_failure);
}

static bool hand_over(Replay *replay, const ReplayOptions *options, const char *since,
                      const Shadow *shadow, Failure *ret_failure) {
  g_autoptr(Session) gate = session_open(&replay->config->mysql, ret_failure);
  if (!gate || !session_run(gate, ret_failure, "SET SESSION wait_timeout = %d", GATE_HOLDS_S) ||
      !check_forgotten(replay, options, ret_failure) || !carry_unnamed(replay, ret_failure) ||
      !replay_keep_awake(replay, ret_failure) ||
      !shadow_close_gate(gate, shadow, options->drop_old, ret_failure) ||
      !finish_and_swap(replay, options, gate, since, shadow, ret_failure))
    return false;
  crash_point("replay_after_swap");
  if (!ledger_clear(replay->session, replay->scope.projector, ret_failure))
    return false;
  crash_point("replay_after_clear");
  return (!options->drop_old || shadow_drop_old(replay->session, shadow, ret_failure)) &&
         resolve_report(replay->config, replay->store, "replay", ret_failure);
}

static void print_sums(const Replay *replay, const ReplayOptions *options, const char *table,
                       double seconds) {
  if (options->as_json)
    printf("{\"table\": \"%s\", \"events\": %lld, \"skipped\": %lld, \"unreadable\": %lld, "
           "\"lost_rows\": %lld, \"seconds\": %.3f}\n",
           table, (long long)replay->replayed, (long long)replay->skipped,
           (long long)replay->unreadable, (long long)replay->lost.count, seconds);
  else
    printf("%s: %lld events replayed in %.1f s%s\n", table, (long long)replay->replayed, seconds,
           options->to ? "" : ", live events continue from there");
  if (replay->skipped && !options->as_json)
    printf("  skipped events left out: %lld\n", (long long)replay->skipped);
  if (replay->unreadable && !options->as_json)
    printf("  events left out, because they cannot be read: %lld\n", (long long)replay->unreadable);
  if (replay->lost.count > 0 && !options->as_json) {
    printf("  rows lost, because no replayed event makes them: ");
    print_clean(stdout, replay->lost.text->str);
    putchar('\n');
  }
}

static bool replay_table(Replay *replay, const ReplayOptions *options, Failure *ret_failure) {
  int64_t started_us = clock_us();
  char until[LEDGER_TIME_SIZE];
  g_autofree char *scope = scope_name(replay);
  Shadow *shadow = &replay->shadow;
  replay->scope.projector = scope;
  if (!shadow_name_replay(replay->projection, shadow, ret_failure))
    return false;
  replay->mapping =
      mapping_retarget(replay->config->json, replay->projection, shadow->fresh, ret_failure);
  if (!replay->mapping)
    return false;
  replay->target = mapping_projection(replay->mapping, 0);
  replay->renamer = shadow_open_renamer(&replay->config->mysql, shadow, ret_failure);
  bool good = replay->renamer && open_shadow(replay, options, shadow, ret_failure) &&
              replay_catch_up(replay, until, ret_failure) &&
              (options->to || hand_over(replay, options, until, shadow, ret_failure));
  if (good)
    print_sums(replay, options, options->to ? shadow->fresh : replay->projection->table,
               (double)(clock_us() - started_us) / 1e6);
  return good;
}

/* --- one aggregate -------------------------------------------------------------------------- */

/* A statement may count on beginning without a row, or with the defaults of a new one. */
static bool needs_new_row(const Rule *rule, const GPtrArray *unnamed) {
  bool needs = rule->operation == OP_SQL && !rule->key_parameters;
  for (guint i = 0; rule->operation == OP_SQL && i < unnamed->len; i++)
    needs |= statement_names(rule->statement, unnamed->pdata[i]);
  return needs;
}

/* What the mapping does not name stays in the row, or is named. */
static bool look_at_unnamed(Replay *replay, Failure *ret_failure) {
  const Projection *projection = replay->projection;
  g_autoptr(GPtrArray) unnamed = unnamed_columns(replay->session, projection, ret_failure);
  if (!unnamed)
    return false;
  replay->keep_row = true;
  for (unsigned i = 0; i < projection->rule_count; i++)
    replay->keep_row &= !needs_new_row(&projection->rules[i], unnamed);
  if (replay->keep_row || unnamed->len == 0)
    return true;
  g_ptr_array_add(unnamed, NULL);
  g_autofree char *names = g_strjoinv(", ", (char **)unnamed->pdata);
  fprintf(stderr,
          "projector: the row is deleted and inserted, because of a statement of %s: columns that "
          "the mapping does not name begin with their defaults (%s)\n",
          projection->table, names);
  return true;
}

static void print_row_json(const ReplayOptions *options, const char *table, int64_t events) {
  g_autofree char *id = g_utf8_make_valid(options->aggregate_id, -1);
  json_t *line =
      json_pack("{s:s, s:s, s:s, s:I}", "table", table, "aggregate_type", options->aggregate_type,
                "aggregate_id", id, "events", (json_int_t)events);
  command_print_json(line, JSON_COMPACT);
  json_decref(line);
}

static void print_row(const ReplayOptions *options, const char *table, int64_t events) {
  g_autoptr(GString) name = g_string_new(NULL);
  text_append_clean(name, options->aggregate_type, "");
  g_string_append_c(name, ' ');
  text_append_clean(name, options->aggregate_id, "");
  if (options->as_json)
    print_row_json(options, table, events);
  else if (events == 0)
    printf("no applied event of %s\n", name->str);
  else
    printf("%s: the row of %s made from %lld events\n", table, name->str, (long long)events);
}

static bool replay_row(Replay *replay, const ReplayOptions *options, int64_t *ret_events,
                       Failure *ret_failure) {
  const Projection *projection = replay->projection;
  const char *text = options->aggregate_id;
  uint8_t bytes[16];
  Id ids[IDS_OF_TEXT];
  g_assert(projection);
  if (strcmp(options->aggregate_type, projection->aggregate_type) != 0)
    return failure_refuse(ret_failure, "%s is filled from events of %s, not of %s",
                          projection->table, projection->aggregate_type, options->aggregate_type);
  if (!projection_owns_rows(projection))
    return failure_refuse(ret_failure,
                          "the key of %s is not $aggregate_id alone, so its rows may not belong to "
                          "this aggregate alone; replay the whole table",
                          projection->table);
  replay->mapping =
      mapping_retarget(replay->config->json, projection, projection->table, ret_failure);
  if (!replay->mapping)
    return false;
  replay->target = mapping_projection(replay->mapping, 0);
  if (!look_at_unnamed(replay, ret_failure))
    return false;
  unsigned count = ids_from_text(text, strlen(text), bytes, ids);
  *ret_events = 0;
  for (unsigned k = 0; k < count; k++) { /* all that the text may mean */
    int64_t events = 0;
    Aggregate aggregate = {.type = options->aggregate_type,
                           .type_length = (uint32_t)strlen(options->aggregate_type),
                           .id = ids[k]};
    if (!replay_aggregate(replay, &aggregate, &events, ret_failure))
      return false;
    *ret_events += events;
  }
  print_row(options, projection->table, *ret_events);
  return true;
}

/* --- the command ---------------------------------------------------------------------------- */

static int run(const Config *config, const ReplayOptions *options) {
  Failure failure = {0};
  int64_t events = 1;
  Replay replay = {.config = config,
                   .projection = mapping_find(config->mapping, options->projection),
                   .live = {.projector = config->name},
                   .arena = arena_new(),
                   .leave_out = g_hash_table_new(id_hash_key, id_equal_key),
                   .lost.text = g_string_new(NULL)};
  bool good = replay.projection
                  ? choose_events(&replay, options, &failure) && open_stores(&replay, &failure)
                  : failure_refuse(&failure, "no projection fills a table %s", options->projection);
  if (good)
    good = options->by_aggregate ? replay_row(&replay, options, &events, &failure)
                                 : replay_table(&replay, options, &failure);
  close_stores(&replay);
  return !good ? command_fail(&failure) : events > 0 ? EXIT_GOOD : EXIT_NO;
}

static void free_options(ReplayOptions *options) {
  g_free(options->projection);
  g_free(options->from);
  g_free(options->to);
  g_strfreev(options->leave_out);
}

int command_replay(int argc, char **argv) {
  g_autoptr(Config) config = NULL;
  ReplayOptions options = {0};
  int status;
  const GOptionEntry own[] = {
      {"projection", 0, 0, G_OPTION_ARG_STRING, &options.projection, "The table to fill (required)",
       "TABLE"},
      {"from", 0, 0, G_OPTION_ARG_STRING, &options.from,
       "Only events that occurred at TIME (2026-01-31T00:00:00Z) or later", "TIME"},
      {"to", 0, 0, G_OPTION_ARG_STRING, &options.to,
       "Only events that occurred before TIME; the rows are left in TABLE__replay", "TIME"},
      {"aggregate", 0, 0, G_OPTION_ARG_NONE, &options.by_aggregate,
       "Only the row of one aggregate, in place: --aggregate TYPE ID", NULL},
      {"skip", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options.leave_out,
       "Leave this event out; may be repeated", "EVENT_ID"},
      {"restart", 0, 0, G_OPTION_ARG_NONE, &options.restart,
       "Discard an interrupted replay and start again", NULL},
      {"drop-old", 0, 0, G_OPTION_ARG_NONE, &options.drop_old,
       "Drop TABLE__old, before and after; otherwise the old table stays under that name", NULL},
      {"force", 0, 0, G_OPTION_ARG_NONE, &options.force,
       "Replace TABLE even if it loses rows whose events the archive lacks, or if a restored MySQL "
       "may apply events again",
       NULL},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.as_json, "The result as JSON", NULL},
      G_OPTION_ENTRY_NULL};
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){"- fill a table from archived events",
                         "Applies the archived events to TABLE__replay, catches up with what is "
                         "applied meanwhile, and then replaces TABLE. `run` may continue "
                         "meanwhile; an interrupted replay resumes where it stopped.",
                         own},
          &config, &status)) {
    free_options(&options);
    return status;
  }
  options.aggregate_type = options.by_aggregate && argc > 1 ? argv[1] : NULL;
  options.aggregate_id = options.by_aggregate && argc > 2 ? argv[2] : NULL;
  if (!options.projection)
    status = command_misuse("--projection TABLE is missing");
  else if (argc != (options.by_aggregate ? 3 : 1))
    status = command_misuse(options.by_aggregate ? "expected --aggregate TYPE ID"
                                                 : "too many arguments");
  else if (options.by_aggregate && (options.from || options.to || options.restart))
    status = command_misuse("--aggregate excludes --from, --to and --restart");
  else
    status = run(config, &options);
  free_options(&options);
  return status;
}

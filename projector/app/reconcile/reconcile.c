/* reconcile.c - `projector reconcile`: compares entities with rows, and repairs what differs.
 *
 * For each projection: every entity against its row, then every row against the entities; at the
 * end the events of the outbox. What differs is looked at again (recheck.h) before it counts
 * as a difference, and repaired at once (repair.h). */
#include "projector/app/reconcile/emptied.h"
#include "projector/app/reconcile/outbox_check.h"
#include "projector/app/reconcile/repair.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/reconcile/report.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/journal.h"
#include "projector/app/shared/progress.h"
#include "projector/app/shared/resolve.h"
#include "projector/domain/value_text.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/feeds.h"

#include <stdio.h>
#include <string.h>

enum { SOURCE_LAG_MS = 5000 }; /* what is looked at again is settled by then */

typedef struct ReconcileOptions {
  char *table, *key_from, *key_to, *state;
  gint64 sample;
  gboolean repair, dry_run, force, resume, as_json;
} ReconcileOptions;

/* Where an interrupted comparison stood. */
typedef struct ReconcileCheckpoint {
  unsigned projection; /* index in the mapping; the number of projections: at the events */
  bool rows;           /* in the pass over the rows */
  bson_t *entity;      /* `_id` of the last entity, or NULL */
  CompareCounts counts;
} ReconcileCheckpoint;

typedef struct Reconcile {
  const Config *config;
  const ReconcileOptions *options;
  GPtrArray *projections; /* of Projection: those to compare */
  CompareRange range;
  Stores stores;
  Journal *journal;
  Compare *compare; /* of the current projection; NULL: at the events of the outbox */
  ReportSums sums;  /* of the current projection */
  const char *told; /* the aggregate type last looked at for a missing collection */
  int64_t found, repaired;
} Reconcile;

/* --- lines ---------------------------------------------------------------------------------- */

static void count_line(Reconcile *reconcile, const json_t *line) {
  const char *name = json_string_value(json_object_get(line, "difference"));
  bool repaired = json_is_true(json_object_get(line, "mended"));
  for (int kind = 0; name && kind < DIFFERENCE_KINDS; kind++)
    reconcile->sums.found[kind] += !strcmp(name, difference_name((DifferenceKind)kind));
  reconcile->sums.repaired += repaired;
  reconcile->repaired += repaired;
  reconcile->found += name != NULL;
  if (!name)
    reconcile->sums = (ReportSums){0};
}

/* Shows a line from an earlier run, or one that was just recorded. */
static void show_line(const json_t *line, void *data) {
  Reconcile *reconcile = data;
  count_line(reconcile, line);
  report_print(line, reconcile->options->as_json);
}

static void add_line(Reconcile *reconcile, json_t *line) {
  journal_line(reconcile->journal, line);
  show_line(line, reconcile);
  json_decref(line);
}

/* Whether every row is extra because the collection of entities is missing: said once, and refused
 * where rows would be deleted. Asked with each batch, because a collection may be dropped
 * meanwhile. */
static bool check_emptied(Reconcile *reconcile, Failure *ret_failure) {
  const ReconcileOptions *options = reconcile->options;
  const Projection *projection = compare_layout(reconcile->compare)->projection, *emptied;
  if (options->force)
    return true;
  if (options->repair && !options->dry_run)
    return emptied_refuse(&reconcile->stores, projection->aggregate_type, ret_failure);
  if (g_strcmp0(reconcile->told, projection->aggregate_type) == 0)
    return true;
  if (!emptied_find(&reconcile->stores, projection->aggregate_type, &emptied, ret_failure))
    return false;
  if (emptied)
    fprintf(stderr,
            "projector: %s.%s does not exist, but the table %s has rows: is "
            "\"entities\" right? --repair refuses to delete them, unless --force\n",
            reconcile->config->mongodb.database, emptied->entities, emptied->table);
  reconcile->told = projection->aggregate_type;
  return true;
}

/* The effect of a repair is verified before it is reported. */
static bool repair(Reconcile *reconcile, Difference *differences, size_t count, Arena *arena,
                   Failure *ret_failure) {
  if (!repair_differences(&reconcile->stores, differences, count, arena, ret_failure))
    return false;
  return reconcile->compare
             ? compare_verify(reconcile->compare, differences, count, arena, ret_failure)
             : repair_check_events(&reconcile->stores, differences, count, arena, ret_failure);
}

static bool take_differences(Difference *differences, size_t count, void *data,
                             Failure *ret_failure) {
  Reconcile *reconcile = data;
  g_autoptr(Arena) arena = arena_new();
  int64_t started_us = clock_us();
  if (reconcile->compare && !check_emptied(reconcile, ret_failure))
    return false;
  if (reconcile->options->dry_run)
    repair_plan(differences, count);
  else if (reconcile->options->repair && !repair(reconcile, differences, count, arena, ret_failure))
    return false;
  reconcile->sums.repairing += (double)(clock_us() - started_us) / 1e6;
  for (size_t i = 0; i < count; i++)
    add_line(reconcile, report_difference(&differences[i]));
  return true;
}

/* --- checkpoints ---------------------------------------------------------------------------- */

static void note_checkpoint(Reconcile *reconcile, unsigned projection, bool rows,
                            const bson_t *entity, const CompareCounts *counts) {
  char *text = entity ? bson_as_canonical_extended_json(entity, NULL) : NULL;
  journal_checkpoint(reconcile->journal,
                     json_pack("{s:i, s:b, s:s?, s:I, s:I, s:I}", "projection", (int)projection,
                               "rows", (int)rows, "entity", text, "entities",
                               (json_int_t)counts->entities, "compared_rows",
                               (json_int_t)counts->rows, "lagging", (json_int_t)counts->lagging));
  bson_free(text);
}

static ReconcileCheckpoint checkpoint_from(const json_t *json) {
  ReconcileCheckpoint read = {.projection =
                                  (unsigned)json_integer_value(json_object_get(json, "projection")),
                              .rows = json_is_true(json_object_get(json, "rows"))};
  const char *text = json_string_value(json_object_get(json, "entity"));
  bson_error_t error;
  read.entity = text ? bson_new_from_json((const uint8_t *)text, -1, &error) : NULL;
  read.counts.entities = json_integer_value(json_object_get(json, "entities"));
  read.counts.rows = json_integer_value(json_object_get(json, "compared_rows"));
  read.counts.lagging = json_integer_value(json_object_get(json, "lagging"));
  return read;
}

/* --- one projection ------------------------------------------------------------------------- */

static bool compare_all_entities(Reconcile *reconcile, Compare *compare, unsigned index,
                                 bson_t **at, int64_t total, Failure *ret_failure) {
  const CompareCounts *counts = compare_counts(compare);
  g_autofree char *what =
      g_strdup_printf("%s, entities", compare_layout(compare)->projection->table);
  Progress progress;
  progress_begin(&progress, what, counts->entities, total);
  bool good = true;
  for (bool end = false; good && !end;) {
    good = compare_entities(compare, at, take_differences, reconcile, &end, ret_failure);
    if (good)
      note_checkpoint(reconcile, index, false, *at, counts);
    progress_show(&progress, counts->entities);
  }
  progress_end(&progress);
  return good;
}

/* Compares the child rows under rows that no entity has. */
static bool compare_all_children(Reconcile *reconcile, const Projection *projection, int64_t total,
                                 Failure *ret_failure) {
  for (unsigned i = 0; i < projection->child_count; i++) {
    g_autoptr(Compare) compare = compare_new_child(&reconcile->stores, projection->children[i],
                                                   &reconcile->range, ret_failure);
    reconcile->compare = compare;
    if (!compare || !compare_rows(compare, take_differences, reconcile, total, ret_failure))
      return false;
  }
  return true;
}

/* Positions belong to aggregates, so they are checked with the first projection of the type. */
static bool is_first_of_type(const Reconcile *reconcile, guint at) {
  const Projection *projection = reconcile->projections->pdata[at];
  for (guint i = 0; i < at; i++)
    if (!strcmp(((const Projection *)reconcile->projections->pdata[i])->aggregate_type,
                projection->aggregate_type))
      return false;
  return true;
}

static void add_sums(Reconcile *reconcile, const char *table, const CompareCounts *counts,
                     int64_t started_us) {
  reconcile->sums.table = table;
  reconcile->sums.counts = *counts;
  reconcile->sums.rows_too = reconcile->options->sample == 0;
  reconcile->sums.seconds = (double)(clock_us() - started_us) / 1e6;
  add_line(reconcile, report_sums(&reconcile->sums));
}

/* `from` is where to continue; takes over its entity. */
static bool reconcile_projection(Reconcile *reconcile, guint at, ReconcileCheckpoint *from,
                                 Failure *ret_failure) {
  const Projection *projection = reconcile->projections->pdata[at];
  int64_t started_us = clock_us(), total, sample = reconcile->options->sample;
  g_autoptr(Compare) compare = compare_new(&reconcile->stores, projection, &reconcile->range,
                                           is_first_of_type(reconcile, at), ret_failure);
  if (!compare || !compare_estimate(compare, &total, ret_failure))
    return false;
  compare_restore(compare, &from->counts);
  reconcile->compare = compare;
  bool good;
  if (sample > 0)
    good = compare_sample(compare, sample, take_differences, reconcile, ret_failure);
  else
    good = (from->rows || compare_all_entities(reconcile, compare, projection->index, &from->entity,
                                               total, ret_failure));
  if (good && sample == 0) {
    note_checkpoint(reconcile, projection->index, true, NULL, compare_counts(compare));
    good = compare_rows(compare, take_differences, reconcile, total, ret_failure) &&
           compare_all_children(reconcile, projection, total, ret_failure);
  }
  reconcile->compare = NULL;
  if (!good)
    return false;
  const CompareCounts none = {0};
  add_sums(reconcile, projection->table, compare_counts(compare), started_us);
  note_checkpoint(reconcile, projection->index + 1, false, NULL, &none);
  return true;
}

/* The events of the outbox do not belong to any part of a table. */
static bool reconcile_events(Reconcile *reconcile, Failure *ret_failure) {
  const Projection *first = reconcile->projections->pdata[0];
  const CompareCounts none = {0};
  if (reconcile->options->sample || reconcile->range.from || reconcile->range.to)
    return true;
  if (!outbox_check(&reconcile->stores, reconcile->options->table ? first->aggregate_type : NULL,
                    take_differences, reconcile, ret_failure))
    return false;
  add_sums(reconcile, NULL, &none, clock_us());
  return true;
}

static bool reconcile_all(Reconcile *reconcile, ReconcileCheckpoint *from, Failure *ret_failure) {
  for (guint i = 0; i < reconcile->projections->len; i++) {
    const Projection *projection = reconcile->projections->pdata[i];
    ReconcileCheckpoint start = {0};
    if (projection->index < from->projection)
      continue;
    if (projection->index == from->projection) {
      start = *from;
      from->entity = NULL;
    }
    bool good = reconcile_projection(reconcile, i, &start, ret_failure);
    if (start.entity)
      bson_destroy(start.entity);
    if (!good)
      return false;
  }
  return reconcile_events(reconcile, ret_failure);
}

/* --- the journal ---------------------------------------------------------------------------- */

static bool open_journal(Reconcile *reconcile, ReconcileCheckpoint *ret_from,
                         Failure *ret_failure) {
  const ReconcileOptions *options = reconcile->options;
  const JournalOptions journal = {.command = "reconcile",
                                  .state = options->state,
                                  .resume = options->resume,
                                  .take = show_line,
                                  .data = reconcile};
  json_t *found = NULL;
  if (options->sample)
    return true;
  json_t *own = json_pack("{s:s?, s:s?, s:s?, s:b, s:b}", "table", options->table, "key_from",
                          options->key_from, "key_to", options->key_to, "repair",
                          (int)options->repair, "dry_run", (int)options->dry_run);
  if (!journal_begin(&journal, reconcile->config, own, &reconcile->journal, &found, ret_failure))
    return false;
  if (found)
    *ret_from = checkpoint_from(found);
  json_decref(found);
  return true;
}

static bool report_repair(const Reconcile *reconcile, Failure *ret_failure) {
  g_autofree char *act =
      g_strdup_printf("reconcile --repair: %lld difference%s repaired",
                      (long long)reconcile->repaired, reconcile->repaired == 1 ? "" : "s");
  return resolve_report(reconcile->config, reconcile->stores.store, act, ret_failure);
}

/* Entities contain what the source of a feed has not copied yet, and no event here explains it. */
static bool check_source(const Reconcile *reconcile, Failure *ret_failure) {
  const ReconcileOptions *options = reconcile->options;
  const char *outbox = reconcile->config->mongodb.outbox;
  FeedSource source;
  if (!feeds_find_source(reconcile->stores.store, &source, ret_failure))
    return false;
  bool flows = source.works && source.lag_ms >= 0 && source.lag_ms <= SOURCE_LAG_MS;
  if (!*source.name || flows || (options->repair && options->force))
    return true;
  g_autofree char *why = g_strdup_printf(
      "%s is a feed, and the projector \"%s\", which copies events into it, %s: entities may be "
      "ahead of the feed, and look different for that reason",
      outbox, source.name, source.works ? "may be behind" : "is not running");
  if (options->repair && !options->dry_run)
    return failure_refuse(ret_failure,
                          "%s; --repair works when nothing waits at that projector (or with "
                          "--force, if it is gone for good, or you know that the feed has all)",
                          why);
  log_warning(why, NULL);
  return true;
}

static bool reconcile_stores(Reconcile *reconcile, ReconcileCheckpoint *from,
                             Failure *ret_failure) {
  bool good = stores_open(reconcile->config, "reconcile", &reconcile->stores, ret_failure) &&
              check_source(reconcile, ret_failure) && reconcile_all(reconcile, from, ret_failure);
  Failure ignored = {0}; /* what was repaired is reported, whatever ended it */
  if (reconcile->repaired > 0)
    good &= report_repair(reconcile, good ? ret_failure : &ignored);
  stores_close(&reconcile->stores);
  return good;
}

static int reconcile_and_report(Reconcile *reconcile) {
  Failure failure = {0};
  ReconcileCheckpoint from = {0};
  if (!open_journal(reconcile, &from, &failure))
    return command_fail(&failure);
  bool good = reconcile_stores(reconcile, &from, &failure);
  if (from.entity)
    bson_destroy(from.entity);
  journal_close(g_steal_pointer(&reconcile->journal), !good);
  fflush(stdout);
  if (!good)
    return command_fail(&failure);
  return reconcile->found > reconcile->repaired ? EXIT_NO : EXIT_GOOD;
}

/* --- the command ---------------------------------------------------------------------------- */

static bool parse_key(const Column *column, const char *text, const char *option, Arena *arena,
                      const Value **ret_value, Failure *ret_failure) {
  Value *value = arena_alloc(arena, 1, sizeof *value);
  *ret_value = text ? value : NULL;
  return !text || value_from_text(text, strlen(text), &column->type, arena, value) ||
         failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "%s: expected a value of column %s, %s", option, column->name,
                     column->type.text);
}

static bool prepare(Reconcile *reconcile, Arena *arena, Failure *ret_failure) {
  const ReconcileOptions *options = reconcile->options;
  if (!command_projections(reconcile->config, options->table, "compare with",
                           reconcile->projections, ret_failure))
    return false;
  const Projection *first = reconcile->projections->pdata[0];
  return parse_key(&first->columns[0], options->key_from, "--key-from", arena,
                   &reconcile->range.from, ret_failure) &&
         parse_key(&first->columns[0], options->key_to, "--key-to", arena, &reconcile->range.to,
                   ret_failure);
}

/* NULL: the options go together. */
static const char *misuse(const ReconcileOptions *options, int arguments) {
  if (arguments > 2 || (arguments == 2 && options->table))
    return "expected one TABLE at most";
  if (options->dry_run && !options->repair)
    return "--dry-run needs --repair";
  if (options->force && !options->repair)
    return "--force needs --repair";
  if (options->resume && options->sample)
    return "--resume and --sample exclude each other";
  if (options->sample < 0)
    return "--sample: expected a positive number";
  if ((options->key_from || options->key_to) && arguments < 2 && !options->table)
    return "--key-from and --key-to need a TABLE";
  return NULL;
}

static void options_clear(ReconcileOptions *options) {
  g_free(options->table);
  g_free(options->key_from);
  g_free(options->key_to);
  g_free(options->state);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ReconcileOptions, options_clear)

int command_reconcile(int argc, char **argv) {
  g_auto(ReconcileOptions) options = {0};
  const GOptionEntry entries[] = {
      {"projection", 0, 0, G_OPTION_ARG_STRING, &options.table, "The same as TABLE", "TABLE"},
      {"key-from", 0, 0, G_OPTION_ARG_STRING, &options.key_from,
       "Only rows whose first key column is at least KEY", "KEY"},
      {"key-to", 0, 0, G_OPTION_ARG_STRING, &options.key_to,
       "Only rows whose first key column is at most KEY", "KEY"},
      {"sample", 0, 0, G_OPTION_ARG_INT64, &options.sample,
       "Only N entities, chosen at random; does not search for extra rows", "N"},
      {"repair", 0, 0, G_OPTION_ARG_NONE, &options.repair, "Repair what differs", NULL},
      {"dry-run", 0, 0, G_OPTION_ARG_NONE, &options.dry_run, "Only print what --repair would do",
       NULL},
      {"force", 0, 0, G_OPTION_ARG_NONE, &options.force,
       "With --repair, even if the collection of entities does not exist, or the source of a feed "
       "is behind",
       NULL},
      {"resume", 0, 0, G_OPTION_ARG_NONE, &options.resume, "Continue an interrupted comparison",
       NULL},
      {"state", 0, 0, G_OPTION_ARG_FILENAME, &options.state,
       "Progress file (default: in the user's state directory)", "FILE"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.as_json, "One JSON object per line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){"[TABLE] - compare entities with rows",
                         "Compares each entity with its row, column by column, and searches for "
                         "rows without an entity, while `run` works. Aggregates with waiting "
                         "events are lagging, not different. Exit status 1 if differences remain.",
                         entries},
          &config, &status))
    return status;
  const char *wrong = misuse(&options, argc);
  if (wrong)
    return command_misuse(wrong);
  if (argc == 2)
    options.table = g_strdup(argv[1]);
  g_autoptr(GPtrArray) projections = g_ptr_array_new();
  g_autoptr(Arena) arena = arena_new();
  Failure failure = {0};
  Reconcile reconcile = {.config = config, .options = &options, .projections = projections};
  if (!prepare(&reconcile, arena, &failure))
    return command_fail(&failure);
  return reconcile_and_report(&reconcile);
}

/* rebuild_command.c - `projector rebuild`: checks before anything is written, and chooses how the
 * tables are filled. */
#include "projector/app/rebuild/rebuild.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/resolve.h"
#include "projector/infra/mysql/catalog.h"

#include <stdio.h>
#include <string.h>

/* --- before anything is written --------------------------------------------------------------- */

/* An aggregate's position is common to all its tables, so they all need entities. */
static bool check_companions(const Config *config, const Projection *projection,
                             Failure *ret_failure) {
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++) {
    const Projection *other = mapping_projection(config->mapping, i);
    if (!other->entities && !strcmp(other->aggregate_type, projection->aggregate_type))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                         "projections[%u]: %s takes the same events as %s and needs \"entities\" "
                         "too: its rows are written together with those of %s",
                         i, other->table, projection->table, projection->table);
  }
  return true;
}

static bool check_tables(Session *session, const Config *config, Failure *ret_failure) {
  g_autoptr(GPtrArray) findings = catalog_check(session, config->mapping, ret_failure);
  for (guint i = 0; findings && i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    if (finding->error)
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "%s", finding->text);
  }
  return findings != NULL;
}

static bool check(Rebuild *rebuild, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  for (guint i = 0; i < rebuild->projections->len; i++) {
    const Projection *projection = rebuild->projections->pdata[i];
    Layout layout;
    if (!check_companions(rebuild->config, projection, ret_failure) ||
        !layout_init(projection, arena, &layout, ret_failure))
      return false;
  }
  if (!check_tables(rebuild->stores.session, rebuild->config, ret_failure))
    return false;
  for (guint i = 0; i < rebuild->projections->len; i++)
    if (!rebuild_check_emptied(rebuild, rebuild->projections->pdata[i], ret_failure))
      return false;
  return true;
}

/* --- the command ---------------------------------------------------------------------------- */

typedef struct RebuildOptions {
  char *state;
  gint64 rate;
  gboolean resume, as_json, shadow, drop_old, force;
} RebuildOptions;

static bool open_journal(Rebuild *rebuild, const RebuildOptions *options, const char *table,
                         Failure *ret_failure) {
  const JournalOptions journal = {.command = "rebuild",
                                  .state = options->state,
                                  .resume = options->resume,
                                  .take = rebuild_show_line,
                                  .data = rebuild};
  json_t *own = json_pack("{s:s?, s:b}", "table", table, "shadow", (int)options->shadow);
  json_t *found = NULL;
  if (!journal_begin(&journal, rebuild->config, own, &rebuild->journal, &found, ret_failure))
    return false;
  if (found)
    rebuild->at = rebuild_checkpoint_from(found);
  json_decref(found);
  return true;
}

static int rebuild_all(Rebuild *rebuild, const RebuildOptions *options, const char *table) {
  Failure failure = {0};
  if (!stores_open(rebuild->config, "rebuild", &rebuild->stores, &failure))
    return command_fail(&failure);
  bool good = check(rebuild, &failure) &&
              (!options->shadow || rebuild_shadow_check(rebuild, &failure)) &&
              open_journal(rebuild, options, table, &failure);
  if (good) {
    Failure ignored = {0}; /* of an interrupted one, which may have written rows */
    good = (options->shadow ? rebuild_shadow : rebuild_in_place)(rebuild, &failure);
    good &= resolve_report(rebuild->config, rebuild->stores.store,
                           good ? "rebuild" : "interrupted rebuild", good ? &failure : &ignored);
    journal_close(g_steal_pointer(&rebuild->journal), !good);
    if (!good)
      failure_prefix(&failure, "interrupted (continue with --resume)");
  }
  if (rebuild->at.entity)
    bson_destroy(rebuild->at.entity);
  stores_close(&rebuild->stores);
  fflush(stdout);
  if (!good)
    return command_fail(&failure);
  return rebuild->left > 0 ? EXIT_NO : EXIT_GOOD;
}

int command_rebuild(int argc, char **argv) {
  g_autofree char *state = NULL;
  RebuildOptions options = {0};
  const GOptionEntry entries[] = {
      {"rate", 0, 0, G_OPTION_ARG_INT64, &options.rate, "At most N entities per second", "N"},
      {"shadow", 0, 0, G_OPTION_ARG_NONE, &options.shadow,
       "Build TABLE__new beside the live table and swap the two; the old one stays as TABLE__old",
       NULL},
      {"drop-old", 0, 0, G_OPTION_ARG_NONE, &options.drop_old,
       "Drop a TABLE__old of an earlier rebuild", NULL},
      {"force", 0, 0, G_OPTION_ARG_NONE, &options.force,
       "Even if the collection of entities does not exist: leave no row", NULL},
      {"resume", 0, 0, G_OPTION_ARG_NONE, &options.resume, "Continue an interrupted rebuild", NULL},
      {"state", 0, 0, G_OPTION_ARG_FILENAME, &state,
       "Progress file (default: in the user's state directory)", "FILE"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.as_json, "One JSON object per line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv,
          &(CommandHelp){
              "[TABLE] - fill tables from their entities",
              "Writes the row of each entity, as `refresh` does, and deletes rows without an "
              "entity, while `run` works; then compares them. Without TABLE: all projections with "
              "entities. "
              "Exit status 1 if an entity could not be used or a row still differs.",
              entries},
          &config, &status))
    return status;
  if (argc > 2)
    return command_misuse("expected one TABLE at most");
  if (options.rate < 0)
    return command_misuse("--rate: expected a positive number");
  if (options.drop_old && !options.shadow)
    return command_misuse("--drop-old needs --shadow");
  options.state = state;
  g_autoptr(GPtrArray) projections = g_ptr_array_new();
  const char *table = argc == 2 ? argv[1] : NULL;
  Failure failure = {0};
  Rebuild rebuild = {.config = config,
                     .projections = projections,
                     .rate = options.rate,
                     .as_json = options.as_json,
                     .drop_old = options.drop_old,
                     .force = options.force};
  if (!command_projections(config, table, "rebuild from", projections, &failure))
    return command_fail(&failure);
  rebuild.left_ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  status = rebuild_all(&rebuild, &options, table);
  g_hash_table_unref(rebuild.left_ids);
  return status;
}

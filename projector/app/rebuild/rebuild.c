/* rebuild.c - `projector rebuild`: fills tables from the entities while `run` goes on.
 *
 * In place, entities are refreshed in batches (refresh.h), so that no event which the entity
 * contains is applied afterwards; then rows that no entity has are deleted, and the rest is
 * compared with the entities. */
#include "projector/app/rebuild/rebuild.h"

#include "projector/app/rebuild/fill.h"
#include "projector/app/reconcile/compare.h"
#include "projector/app/reconcile/repair.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/progress.h"
#include "projector/app/shared/resolve.h"
#include "projector/infra/clock.h"
#include "projector/infra/mysql/catalog.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 3 }; /* of one projection */

/* --- lines ---------------------------------------------------------------------------------- */

static const char *text_of(const json_t *line, const char *member) {
  const char *text = json_string_value(json_object_get(line, member));
  return text ? text : "";
}

static long long number_of(const json_t *line, const char *member) {
  return json_integer_value(json_object_get(line, member));
}

static void print_left(const json_t *line) {
  printf("left  %s  ", text_of(line, "left"));
  print_clean(stdout, text_of(line, "aggregate_type"));
  putchar(' ');
  print_clean(stdout, text_of(line, "aggregate_id"));
  printf(": ");
  print_clean(stdout, text_of(line, "reason"));
  putchar('\n');
}

static void print_done(const json_t *line) {
  double seconds = json_real_value(json_object_get(line, "seconds"));
  printf("%s: %lld entities in %.1f s", text_of(line, "rebuilt"), number_of(line, "entities"),
         seconds);
  if (number_of(line, "deleted"))
    printf(", %lld rows without an entity deleted", number_of(line, "deleted"));
  if (number_of(line, "left"))
    printf(", %lld left", number_of(line, "left"));
  putchar('\n');
}

static void show_line(const json_t *line, void *data) {
  Rebuild *rebuild = data;
  if (json_object_get(line, "left") && json_object_get(line, "reason")) {
    rebuild->left++;
    g_hash_table_add(rebuild->left_ids, g_strconcat(text_of(line, "aggregate_type"), " ",
                                                    text_of(line, "aggregate_id"), NULL));
  }
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K");
  if (rebuild->as_json) {
    command_print_json(line, JSON_COMPACT | JSON_REAL_PRECISION(6));
  } else if (json_object_get(line, "rebuilt")) {
    print_done(line);
  } else {
    print_left(line);
  }
}

static void add_line(Rebuild *rebuild, json_t *line) {
  journal_line(rebuild->journal, line);
  show_line(line, rebuild);
  json_decref(line);
}

static void leave(Rebuild *rebuild, const Projection *projection, const char *id,
                  const char *reason) {
  g_autofree char *valid_id = g_utf8_make_valid(id, -1);
  g_autofree char *valid_reason = g_utf8_make_valid(reason, -1);
  rebuild->at.left++;
  add_line(rebuild,
           json_pack("{s:s, s:s, s:s, s:s}", "left", projection->table, "aggregate_type",
                     projection->aggregate_type, "aggregate_id", valid_id, "reason", valid_reason));
}

void rebuild_leave(Rebuild *rebuild, const Projection *projection, const Aggregate *aggregate,
                   const char *reason) {
  char id[ID_TEXT_SIZE] = "?";
  if (aggregate)
    id_text(&aggregate->id, id);
  leave(rebuild, projection, id, reason);
}

void rebuild_leave_different(Rebuild *rebuild, const Projection *projection,
                             const Difference *difference, const char *reason) {
  char id[ID_TEXT_SIZE] = "?";
  if (difference->aggregate)
    id_text(&difference->aggregate->id, id);
  const char *text = difference->entity_id ? difference->entity_id : id;
  g_autofree char *valid = g_utf8_make_valid(text, -1);
  g_autofree char *name = g_strconcat(projection->aggregate_type, " ", valid, NULL);
  if (!g_hash_table_contains(rebuild->left_ids, name))
    leave(rebuild, projection, text, reason);
}

void rebuild_done(Rebuild *rebuild, const Projection *projection) {
  RebuildMark *at = &rebuild->at;
  add_line(rebuild, json_pack("{s:s, s:I, s:I, s:I, s:f}", "rebuilt", projection->table, "entities",
                              (json_int_t)at->entities, "deleted", (json_int_t)at->deleted, "left",
                              (json_int_t)at->left, "seconds",
                              (double)(clock_us() - rebuild->started_us) / 1e6));
}

/* --- marks ---------------------------------------------------------------------------------- */

void rebuild_mark(Rebuild *rebuild) {
  const RebuildMark *at = &rebuild->at;
  char *text = at->entity ? bson_as_canonical_extended_json(at->entity, NULL) : NULL;
  journal_mark(rebuild->journal,
               json_pack("{s:I, s:s?, s:I, s:I, s:I}", "step", (json_int_t)at->step, "entity", text,
                         "entities", (json_int_t)at->entities, "deleted", (json_int_t)at->deleted,
                         "left", (json_int_t)at->left));
  bson_free(text);
}

static RebuildMark mark_from(const json_t *json) {
  const char *text = json_string_value(json_object_get(json, "entity"));
  bson_error_t error;
  return (RebuildMark){.step = number_of(json, "step"),
                       .entity =
                           text ? bson_new_from_json((const uint8_t *)text, -1, &error) : NULL,
                       .entities = number_of(json, "entities"),
                       .deleted = number_of(json, "deleted"),
                       .left = number_of(json, "left")};
}

void rebuild_next_step(Rebuild *rebuild) {
  rebuild->at.step++;
  if (rebuild->at.entity)
    bson_destroy(g_steal_pointer(&rebuild->at.entity));
  rebuild_mark(rebuild);
}

/* --- in place ------------------------------------------------------------------------------- */

typedef struct Filler {
  Rebuild *rebuild;
  const Projection *projection;
  Reads *reads;
} Filler;

/* An entity that went away since its page was read needs no row. */
static bool is_gone(const Refresh *refresh) {
  return refresh->prefetched && !refresh->entity;
}

/* An entity that is found gone is looked at once more. What it was told between the reading of its
 * events and its own, a last deposit and the end say, is then among the events that go with it. */
bool rebuild_refresh(Rebuild *rebuild, Stores *stores, Reads *reads, const Projection *projection,
                     const Aggregate *aggregates, size_t count, Failure *ret_failure) {
  Prefetch prefetch = reads_prefetch(reads);
  g_autofree Refresh *refreshes = g_new0(Refresh, count);
  size_t again = 0;
  for (size_t i = 0; i < count; i++)
    refreshes[i] = (Refresh){.aggregate = &aggregates[i], .entity_needed = true};
  if (!repair_refresh(stores, &prefetch, refreshes, count, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (refreshes[i].failure.class != FAILURE_NONE)
      refreshes[again++] = (Refresh){.aggregate = refreshes[i].aggregate};
  if (!repair_refresh(stores, &prefetch, refreshes, again, ret_failure))
    return false;
  for (size_t i = 0; i < again; i++)
    if (refreshes[i].failure.class != FAILURE_NONE && !is_gone(&refreshes[i]))
      rebuild_leave(rebuild, projection, refreshes[i].aggregate, refreshes[i].failure.message);
  return true;
}

static bool refresh_batch(const Aggregate *aggregates, size_t count, void *data,
                          Failure *ret_failure) {
  Filler *filler = data;
  return rebuild_refresh(filler->rebuild, &filler->rebuild->stores, filler->reads,
                         filler->projection, aggregates, count, ret_failure);
}

/* The rows of all tables of the aggregate type: what its events change must agree. */
static bool fill(Rebuild *rebuild, const Projection *projection, int64_t total,
                 Failure *ret_failure) {
  g_autoptr(Fill) pages = fill_new(&rebuild->stores, projection, rebuild->rate);
  g_autoptr(Reads) reads = reads_new(&rebuild->stores, projection->entities);
  Filler filler = {rebuild, projection, reads};
  Progress progress;
  progress_begin(&progress, projection->table, rebuild->at.entities, total);
  bool good = true;
  for (bool end = false; good && !end;) {
    good = fill_page(pages, &rebuild->at.entity, refresh_batch, &filler, &rebuild->at.entities,
                     &end, ret_failure);
    if (good)
      rebuild_mark(rebuild);
    progress_show(&progress, rebuild->at.entities);
  }
  progress_end(&progress);
  return good;
}

static bool delete_rows(Difference *differences, size_t count, void *data, Failure *ret_failure) {
  Filler *filler = data;
  g_autoptr(Arena) arena = arena_new();
  if (!repair_differences(&filler->rebuild->stores, differences, count, arena, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (differences[i].mended)
      filler->rebuild->at.deleted++;
    else
      rebuild_leave(filler->rebuild, filler->projection, differences[i].aggregate,
                    differences[i].outcome);
  return true;
}

static void show_keys(int64_t keys, void *progress) {
  progress_show(progress, keys);
}

static bool delete_rows_without_entity(Rebuild *rebuild, const Projection *projection,
                                       Compare *compare, int64_t total, Failure *ret_failure) {
  Filler filler = {rebuild, projection, NULL};
  g_autofree char *what = g_strdup_printf("%s, keys", projection->table);
  Progress progress;
  progress_begin(&progress, what, 0, 2 * total);
  bool good = true;
  for (bool end = false; good && !end;)
    good = compare_rows(compare, delete_rows, &filler, show_keys, &progress, &end, ret_failure);
  progress_end(&progress);
  return good;
}

/* Whether an earlier projection's filling writes this one's rows too. */
static bool is_filled_before(const Rebuild *rebuild, guint at) {
  const Projection *projection = rebuild->projections->pdata[at];
  for (guint i = 0; i < at; i++) {
    const Projection *other = rebuild->projections->pdata[i];
    if (!strcmp(other->aggregate_type, projection->aggregate_type) &&
        !strcmp(other->entities, projection->entities))
      return true;
  }
  return false;
}

bool rebuild_estimate(Rebuild *rebuild, const Projection *projection, int64_t *ret_total,
                      Failure *ret_failure) {
  g_autoptr(Entities) entities = entities_open(rebuild->stores.store, projection->entities, NULL);
  return entities_estimate(entities, ret_total, ret_failure);
}

/* What was written is looked at before anybody is told that it is right. */
static bool leave_different(Difference *differences, size_t count, void *data,
                            Failure *ret_failure) {
  (void)ret_failure;
  Filler *filler = data;
  for (size_t i = 0; i < count; i++) {
    g_autofree char *what = difference_text(&differences[i]);
    rebuild_leave_different(filler->rebuild, filler->projection, &differences[i], what);
  }
  return true;
}

static bool look_again(Rebuild *rebuild, const Projection *projection, Compare *compare,
                       int64_t total, Failure *ret_failure) {
  Filler filler = {rebuild, projection, NULL};
  g_autofree char *what = g_strdup_printf("%s, comparing", projection->table);
  Progress progress;
  progress_begin(&progress, what, 0, total);
  bool good = true;
  for (bool end = false; good && !end;) {
    good =
        compare_entities(compare, &rebuild->at.entity, leave_different, &filler, &end, ret_failure);
    if (good)
      rebuild_mark(rebuild);
    progress_show(&progress, compare_counts(compare)->entities);
  }
  progress_end(&progress);
  return good;
}

/* Three steps: the entities, then the rows that no entity has, then a comparison. */
static bool rebuild_projection(Rebuild *rebuild, guint at, Failure *ret_failure) {
  const Projection *projection = rebuild->projections->pdata[at];
  const CompareRange all = {0};
  int64_t total;
  rebuild->started_us = clock_us();
  g_autoptr(Compare) compare = compare_new(&rebuild->stores, projection, &all, false, ret_failure);
  if (!compare || !compare_estimate(compare, &total, ret_failure))
    return false;
  if (rebuild->at.step == STEPS * (int64_t)at) {
    if (!is_filled_before(rebuild, at) && !fill(rebuild, projection, total, ret_failure))
      return false;
    rebuild_next_step(rebuild);
  }
  if (rebuild->at.step == STEPS * (int64_t)at + 1) {
    if (!delete_rows_without_entity(rebuild, projection, compare, total, ret_failure))
      return false;
    rebuild_next_step(rebuild);
  }
  if (!look_again(rebuild, projection, compare, total, ret_failure))
    return false;
  rebuild_done(rebuild, projection);
  rebuild->at.deleted = 0;
  if (at + 1 == rebuild->projections->len || !is_filled_before(rebuild, at + 1))
    rebuild->at.entities = rebuild->at.left = 0;
  rebuild_next_step(rebuild);
  return true;
}

bool rebuild_in_place(Rebuild *rebuild, Failure *ret_failure) {
  for (guint i = 0; i < rebuild->projections->len; i++)
    if (rebuild->at.step < STEPS * ((int64_t)i + 1) && !rebuild_projection(rebuild, i, ret_failure))
      return false;
  return true;
}

/* --- before anything is written --------------------------------------------------------------- */

/* An aggregate's position is common to all its tables, so all of them need entities. */
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
  return check_tables(rebuild->stores.session, rebuild->config, ret_failure);
}

/* --- the command ---------------------------------------------------------------------------- */

typedef struct Options {
  char *state;
  gint64 rate;
  gboolean resume, as_json, shadow, drop_old;
} Options;

/* Without a file it goes on, but cannot be resumed. */
static bool open_journal(Rebuild *rebuild, const Options *options, const char *table,
                         Failure *ret_failure) {
  g_autofree char *path =
      options->state ? g_strdup(options->state) : journal_path(rebuild->config->name, "rebuild");
  json_t *header = journal_header(rebuild->config, "rebuild"), *found = NULL;
  Failure failure = {0};
  json_object_set_new(header, "table", table ? json_string(table) : json_null());
  json_object_set_new(header, "shadow", json_boolean(options->shadow));
  rebuild->journal =
      journal_open(path, header, options->resume, show_line, rebuild, &found, &failure);
  if (!rebuild->journal && options->resume) {
    *ret_failure = failure;
    return false;
  }
  if (!rebuild->journal)
    fprintf(stderr, "projector: cannot be resumed if interrupted: %s\n", failure.message);
  else if (options->resume && !found)
    fprintf(stderr, "projector: nothing to resume in %s; from the beginning\n", path);
  if (found)
    rebuild->at = mark_from(found);
  json_decref(found);
  return true;
}

static int rebuild_all(Rebuild *rebuild, const Options *options, const char *table) {
  Failure failure = {0};
  if (!stores_open(rebuild->config, &rebuild->stores, &failure))
    return command_fail(&failure);
  bool good = check(rebuild, &failure) &&
              (!options->shadow || rebuild_shadow_check(rebuild, &failure)) &&
              open_journal(rebuild, options, table, &failure);
  if (good) {
    good = (options->shadow ? rebuild_shadow : rebuild_in_place)(rebuild, &failure) &&
           resolve_report(rebuild->config, rebuild->stores.store, "rebuild", &failure);
    journal_close(g_steal_pointer(&rebuild->journal), !good);
    if (!good)
      failure_prefix(&failure, "interrupted (--resume goes on)");
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
  Options options = {0};
  const GOptionEntry entries[] = {
      {"rate", 0, 0, G_OPTION_ARG_INT64, &options.rate, "At most that many entities a second", "N"},
      {"shadow", 0, 0, G_OPTION_ARG_NONE, &options.shadow,
       "Build TABLE__new beside the live table and swap the two; the old one stays as TABLE__old",
       NULL},
      {"drop-old", 0, 0, G_OPTION_ARG_NONE, &options.drop_old,
       "Drop a TABLE__old of an earlier rebuild", NULL},
      {"resume", 0, 0, G_OPTION_ARG_NONE, &options.resume, "Go on where an interrupted one stood",
       NULL},
      {"state", 0, 0, G_OPTION_ARG_FILENAME, &state,
       "Where it is kept how far it has come (default: in the user's state folder)", "FILE"},
      {"json", 0, 0, G_OPTION_ARG_NONE, &options.as_json, "One JSON object a line", NULL},
      G_OPTION_ENTRY_NULL};
  g_autoptr(Config) config = NULL;
  int status;
  if (!command_begin(
          &argc, &argv, "[TABLE] - fill tables from their entities",
          "Writes the row of each entity, as `refresh` does, and deletes rows that no entity has, "
          "while `run` goes on; then compares them. Without TABLE: all projections with entities. "
          "Exit status 1 when an entity could not be taken, or a row stays different.",
          entries, &config, &status))
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
                     .drop_old = options.drop_old};
  if (!command_projections(config, table, "rebuild from", projections, &failure))
    return command_fail(&failure);
  rebuild.left_ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  status = rebuild_all(&rebuild, &options, table);
  g_hash_table_unref(rebuild.left_ids);
  return status;
}

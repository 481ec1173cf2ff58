/* rebuild.c - fills tables from the entities in place, while `run` continues.
 *
 * Entities are refreshed in batches (refresh.h), so that no event that the entity already contains
 * is applied afterwards; then rows without an entity are deleted, and the rest is compared with the
 * entities. */
#include "projector/app/rebuild/rebuild.h"

#include "projector/app/rebuild/fill.h"
#include "projector/app/reconcile/compare.h"
#include "projector/app/reconcile/emptied.h"
#include "projector/app/reconcile/repair.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/progress.h"
#include "projector/infra/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 3 }; /* in each projection */

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

void rebuild_show_line(const json_t *line, void *data) {
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
  rebuild_show_line(line, rebuild);
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
  RebuildCheckpoint *at = &rebuild->at;
  add_line(rebuild, json_pack("{s:s, s:I, s:I, s:I, s:f}", "rebuilt", projection->table, "entities",
                              (json_int_t)at->entities, "deleted", (json_int_t)at->deleted, "left",
                              (json_int_t)at->left, "seconds",
                              (double)(clock_us() - rebuild->started_us) / 1e6));
}

/* --- checkpoints ---------------------------------------------------------------------------- */

void rebuild_checkpoint(Rebuild *rebuild) {
  const RebuildCheckpoint *at = &rebuild->at;
  char *text = at->entity ? bson_as_canonical_extended_json(at->entity, NULL) : NULL;
  journal_checkpoint(rebuild->journal,
                     json_pack("{s:I, s:s?, s:I, s:I, s:I}", "step", (json_int_t)at->step, "entity",
                               text, "entities", (json_int_t)at->entities, "deleted",
                               (json_int_t)at->deleted, "left", (json_int_t)at->left));
  bson_free(text);
}

RebuildCheckpoint rebuild_checkpoint_from(const json_t *json) {
  const char *text = json_string_value(json_object_get(json, "entity"));
  bson_error_t error;
  return (RebuildCheckpoint){.step = number_of(json, "step"),
                             .entity = text ? bson_new_from_json((const uint8_t *)text, -1, &error)
                                            : NULL,
                             .entities = number_of(json, "entities"),
                             .deleted = number_of(json, "deleted"),
                             .left = number_of(json, "left")};
}

void rebuild_next_step(Rebuild *rebuild) {
  rebuild->at.step++;
  if (rebuild->at.entity)
    bson_destroy(g_steal_pointer(&rebuild->at.entity));
  rebuild_checkpoint(rebuild);
}

/* --- in place ------------------------------------------------------------------------------- */

typedef struct Filler {
  Rebuild *rebuild;
  const Projection *projection;
  Reads *reads;
} Filler;

/* An entity that disappeared since its page was read needs no row. */
static bool is_gone(const Refresh *refresh) {
  return refresh->prefetched && !refresh->entity;
}

/* If an entity turns out to be gone, it is read once more: events written between the reading of
 * its events and of the entity itself, such as a last deposit and the closing, are then among those
 * that go with it, or that a row which stays is left to. */
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
      refreshes[again++] = (Refresh){.aggregate = refreshes[i].aggregate, .leave_waiting = true};
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

/* Writes the rows of all tables of the aggregate type, so that what its events change stays
 * consistent. */
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
      rebuild_checkpoint(rebuild);
    progress_show(&progress, rebuild->at.entities);
  }
  progress_end(&progress);
  return good;
}

bool rebuild_check_emptied(Rebuild *rebuild, const Projection *projection, Failure *ret_failure) {
  return rebuild->force ||
         emptied_refuse(&rebuild->stores, projection->aggregate_type, ret_failure);
}

static bool delete_rows(Difference *differences, size_t count, void *data, Failure *ret_failure) {
  Filler *filler = data;
  g_autoptr(Arena) arena = arena_new();
  if (!rebuild_check_emptied(filler->rebuild, filler->projection, ret_failure) ||
      !repair_differences(&filler->rebuild->stores, differences, count, arena, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (differences[i].repaired)
      filler->rebuild->at.deleted++;
    else
      rebuild_leave(filler->rebuild, filler->projection, differences[i].aggregate,
                    differences[i].outcome);
  return true;
}

static bool delete_rows_without_entity(Rebuild *rebuild, const Projection *projection,
                                       Compare *compare, int64_t total, Failure *ret_failure) {
  Filler filler = {rebuild, projection, NULL};
  return compare_rows(compare, delete_rows, &filler, total, ret_failure);
}

static bool delete_children_without_entity(Rebuild *rebuild, const Projection *projection,
                                           int64_t total, Failure *ret_failure) {
  const CompareRange all = {0};
  for (unsigned i = 0; i < projection->child_count; i++) {
    const Projection *child = projection->children[i];
    g_autoptr(Compare) compare = compare_new_child(&rebuild->stores, child, &all, ret_failure);
    if (!compare || !delete_rows_without_entity(rebuild, child, compare, total, ret_failure))
      return false;
  }
  return true;
}

/* Whether the filling of an earlier projection writes this one's rows too. */
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

/* Rows are verified before they are reported as correct. */
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
      rebuild_checkpoint(rebuild);
    progress_show(&progress, compare_counts(compare)->entities);
  }
  progress_end(&progress);
  return good;
}

/* Three steps: entities, rows without an entity, comparison. */
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
    if (!delete_rows_without_entity(rebuild, projection, compare, total, ret_failure) ||
        !delete_children_without_entity(rebuild, projection, total, ret_failure))
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

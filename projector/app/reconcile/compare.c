/* compare.c - pages of entities against their rows, windows of rows against all entities. */
#include "projector/app/reconcile/compare.h"

#include "projector/app/reconcile/child_check.h"
#include "projector/app/reconcile/draw.h"
#include "projector/app/reconcile/repair_check.h"
#include "projector/app/reconcile/window.h"
#include "projector/app/shared/progress.h"
#include "projector/domain/entity.h"
#include "projector/infra/mongo/entities.h"
#include "projector/infra/mongo/selection.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

enum {
  PAGE = 1000,          /* entities compared at a time */
  KEY_PAGE = 5000,      /* keys read at a time */
  WINDOW = 1000 * 1000, /* rows whose keys are in memory at a time, 8 bytes each */
  SUSPECTS_AT_ONCE = 500,
};

struct Compare {
  Stores *stores;
  Layout layout;
  Layout child; /* with compare_new_child: whole rows of the child table */
  CompareRange range;
  bool positions;
  Entities *entities, *keys; /* whole documents, and only the key's fields */
  Arena *arena;              /* lives as long as the comparison */
  Pool page;
  CompareCounts counts;
  KeyCursor *ahead, *behind; /* of the rows: at the end and at the start of the window */
  int64_t keys_read;
  int64_t nameless;  /* entities in the last pass over all of them whose `_id` no event can name */
  Progress progress; /* of the pass over the rows */
};

static Compare *make(Stores *stores, const CompareRange *range) {
  Compare *compare = g_new0(Compare, 1);
  compare->stores = stores;
  compare->range = *range;
  compare->arena = arena_new();
  compare->page = pool_new();
  compare->ahead = key_cursor_new();
  compare->behind = key_cursor_new();
  return compare;
}

static void open_entities(Compare *compare, const Projection *projection) {
  bson_t *fields = layout_key_fields(&compare->layout);
  compare->layout.json_slack = compare->stores->json_slack;
  compare->entities = entities_open(compare->stores->store, projection->entities, NULL);
  compare->keys = entities_open(compare->stores->store, projection->entities, fields);
  if (fields)
    bson_destroy(fields);
}

Compare *compare_new(Stores *stores, const Projection *projection, const CompareRange *range,
                     bool positions, Failure *ret_failure) {
  g_autoptr(Compare) compare = make(stores, range);
  compare->positions = positions;
  if (!layout_init(projection, compare->arena, &compare->layout, ret_failure))
    return NULL;
  open_entities(compare, projection);
  return g_steal_pointer(&compare);
}

Compare *compare_new_child(Stores *stores, const Projection *child, const CompareRange *range,
                           Failure *ret_failure) {
  g_autoptr(Compare) compare = make(stores, range);
  if (!layout_init(child, compare->arena, &compare->child, ret_failure))
    return NULL;
  compare->layout = child_layout_by_parent(child, compare->arena);
  open_entities(compare, child);
  return g_steal_pointer(&compare);
}

void compare_free(Compare *compare) {
  if (!compare)
    return;
  entities_close(compare->entities);
  entities_close(compare->keys);
  pool_free(&compare->page);
  key_cursor_free(compare->ahead);
  key_cursor_free(compare->behind);
  arena_free(compare->arena);
  g_free(compare);
}

void compare_restore(Compare *compare, const CompareCounts *counts) {
  compare->counts = *counts;
}

const CompareCounts *compare_counts(const Compare *compare) {
  return &compare->counts;
}

const Layout *compare_layout(const Compare *compare) {
  return &compare->layout;
}

bool compare_estimate(Compare *compare, int64_t *ret_entities, Failure *ret_failure) {
  return entities_estimate(compare->entities, ret_entities, ret_failure);
}

static bool in_range(const Compare *compare, const Value *key) {
  const CompareRange *range = &compare->range;
  return (!range->from || value_compare(&key[0], range->from) >= 0) &&
         (!range->to || value_compare(&key[0], range->to) <= 0);
}

/* A row may belong to an entity whose `_id` cannot be read as the row's aggregate: a repair must
 * not delete it. */
static void keep_doubtful(const Compare *compare, GArray *differences) {
  static const char keep[] = "left: the row may belong to an entity whose _id cannot be an "
                             "aggregate's id (\"unmappable entity\"); correct those first";
  for (guint i = 0; compare->nameless > 0 && i < differences->len; i++)
    g_array_index(differences, Difference, i).keep = keep;
}

/* Checks suspects of one origin again, and hands over those that are certain. Of a row's entity
 * only the key counts. */
static bool settle(Compare *compare, const GArray *suspects, DifferenceSink sink, void *data,
                   Failure *ret_failure) {
  bool by_row = suspects->len > 0 && g_array_index(suspects, Suspect, 0).by_row;
  Recheck recheck = {compare->stores, by_row ? compare->keys : compare->entities, &compare->layout,
                     compare->positions};
  for (guint i = 0; i < suspects->len; i += SUSPECTS_AT_ONCE) {
    g_autoptr(GArray) differences = g_array_new(FALSE, TRUE, sizeof(Difference));
    Pool pool = pool_new();
    bool good = recheck_confirm(&recheck, &g_array_index(suspects, Suspect, i),
                                MIN(suspects->len - i, SUSPECTS_AT_ONCE), &pool, differences,
                                &compare->counts.lagging, ret_failure);
    if (good && compare->layout.by_parent)
      good = child_rows_of_each(compare->stores, &compare->child, differences, pool.arena,
                                ret_failure);
    if (good && by_row)
      keep_doubtful(compare, differences);
    good = good && (differences->len == 0 || sink((Difference *)(void *)differences->data,
                                                  differences->len, data, ret_failure));
    pool_free(&pool);
    if (!good)
      return false;
  }
  return true;
}

bool compare_verify(Compare *compare, Difference *differences, size_t count, Arena *arena,
                    Failure *ret_failure) {
  const Recheck recheck = {compare->stores, compare->entities, &compare->layout,
                           compare->positions};
  return repair_check_rows(&recheck, differences, count, arena, ret_failure);
}

/* --- entities ------------------------------------------------------------------------------- */

typedef struct Candidate {
  Event *event; /* the entity */
  Expected expected;
  bool mapped, equal;
  Sight sight;
} Candidate;

static Event *read_entity(Compare *compare, const bson_t *document) {
  const char *type = compare->layout.projection->aggregate_type;
  Aggregate aggregate = {.type = type, .type_length = (uint32_t)strlen(type)};
  if (!entity_id(document, &aggregate.id))
    return NULL;
  return pool_keep(&compare->page, entity_as_event(document, &aggregate, entity_version(document),
                                                   entity_time(document, INT64_MIN)));
}

/* An entity whose `_id` no event can name: another look would change nothing. */
static void add_nameless(Compare *compare, const bson_t *document, GArray *nameless) {
  Arena *arena = compare->page.arena;
  Failure failure;
  entity_misfit(document, &failure);
  g_autofree char *id = entity_id_text(document);
  Difference difference = {.kind = DIFFERENCE_UNMAPPABLE,
                           .layout = &compare->layout,
                           .entity_id = arena_copy(arena, id, strlen(id)),
                           .version = entity_version(document),
                           .reason = arena_copy(arena, failure.message, strlen(failure.message))};
  g_array_append_val(nameless, difference);
}

/* Maps the entities of the page; those outside the range are left out. */
static size_t map_page(Compare *compare, const GPtrArray *documents, Candidate *candidates,
                       GArray *nameless) {
  size_t count = 0;
  for (guint i = 0; i < documents->len; i++) {
    Candidate candidate = {.event = read_entity(compare, documents->pdata[i])};
    Failure failure;
    if (!candidate.event) {
      add_nameless(compare, documents->pdata[i], nameless);
      continue;
    }
    candidate.mapped = layout_map(&compare->layout, candidate.event, compare->page.arena,
                                  &candidate.expected, &failure);
    bson_t view;
    candidate.sight.entity = true;
    candidate.sight.version = entity_version(event_payload(candidate.event, &view));
    if (!candidate.mapped || in_range(compare, candidate.expected.values))
      candidates[count++] = candidate;
  }
  return count;
}

/* Rows of a child table count together with their parent's row. */
static bool compare_with_children(Compare *compare, Candidate *candidates, size_t count,
                                  const RowSet *set, Failure *ret_failure) {
  const Layout *layout = &compare->layout;
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  for (size_t i = 0; i < count; i++)
    if (candidates[i].mapped && !row_set_refusal(set, candidates[i].expected.values))
      g_ptr_array_add(keys, candidates[i].expected.values);
  g_autoptr(ChildTables) tables =
      child_tables_read(compare->stores, layout, (const Value *const *)keys->pdata, keys->len,
                        compare->page.arena, ret_failure);
  for (size_t i = 0; tables && i < count; i++)
    if (candidates[i].mapped)
      child_tables_judge(tables, layout, &candidates[i].expected, &candidates[i].sight);
  return tables != NULL;
}

static bool compare_with_rows(Compare *compare, Candidate *candidates, size_t count,
                              Failure *ret_failure) {
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  g_autoptr(RowSet) set = row_set_new(compare->page.arena);
  for (size_t i = 0; i < count; i++)
    if (candidates[i].mapped)
      g_ptr_array_add(keys, candidates[i].expected.values);
  if (!rows_find(compare->stores->session, &compare->layout, (const Value *const *)keys->pdata,
                 keys->len, set, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    Candidate *candidate = &candidates[i];
    const Value *row = candidate->mapped ? row_set_find(set, candidate->expected.values) : NULL;
    candidate->sight.row = row != NULL;
    candidate->sight.absent = candidate->mapped && candidate->expected.absent;
    candidate->sight.equal = row && layout_equal(&compare->layout, &candidate->expected, row);
  }
  return compare->layout.projection->child_count == 0 ||
         compare_with_children(compare, candidates, count, set, ret_failure);
}

static bool read_positions(Compare *compare, Candidate *candidates, size_t count,
                           Failure *ret_failure) {
  g_autoptr(AggregateSet) set = aggregate_set_new(compare->page.arena);
  for (size_t i = 0; i < count; i++)
    aggregate_set_open(set, &candidates[i].event->aggregate);
  if (!ledger_look_at_positions(compare->stores->session, &compare->stores->ledger, set,
                                compare->page.arena, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    candidates[i].sight.position =
        aggregate_set_find(set, &candidates[i].event->aggregate)->position;
  return true;
}

static bool is_suspect(const Candidate *candidate) {
  Decision decision = difference_decide(&candidate->sight);
  return !candidate->mapped || decision.row != DIFFERENCE_NONE ||
         decision.position != DIFFERENCE_NONE;
}

static bool compare_page(Compare *compare, const GPtrArray *documents, DifferenceSink sink,
                         void *data, Failure *ret_failure) {
  g_autofree Candidate *candidates = g_new(Candidate, documents->len + 1);
  g_autoptr(GArray) suspects = g_array_new(FALSE, TRUE, sizeof(Suspect));
  g_autoptr(GArray) nameless = g_array_new(FALSE, TRUE, sizeof(Difference));
  pool_reset(&compare->page);
  size_t count = map_page(compare, documents, candidates, nameless);
  if (!stores_wake(compare->stores, ret_failure) ||
      !compare_with_rows(compare, candidates, count, ret_failure) ||
      (compare->positions && !read_positions(compare, candidates, count, ret_failure)))
    return false;
  for (size_t i = 0; i < count; i++) {
    const Candidate *candidate = &candidates[i];
    if (!is_suspect(candidate))
      continue;
    Suspect suspect = {.ids = {candidate->event->aggregate},
                       .id_count = 1,
                       .key = candidate->mapped ? candidate->expected.values : NULL};
    g_array_append_val(suspects, suspect);
  }
  compare->counts.entities += (int64_t)count + nameless->len;
  return (nameless->len == 0 ||
          sink((Difference *)(void *)nameless->data, nameless->len, data, ret_failure)) &&
         settle(compare, suspects, sink, data, ret_failure);
}

bool compare_entities(Compare *compare, bson_t **after, DifferenceSink sink, void *data,
                      bool *ret_end, Failure *ret_failure) {
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  if (!entities_page(compare->entities, *after, PAGE, documents, ret_failure))
    return false;
  *ret_end = documents->len == 0;
  if (*ret_end)
    return true;
  if (!compare_page(compare, documents, sink, data, ret_failure))
    return false;
  if (*after)
    bson_destroy(*after);
  *after = entity_mark(documents->pdata[documents->len - 1]);
  return true;
}

bool compare_sample(Compare *compare, int64_t size, DifferenceSink sink, void *data,
                    Failure *ret_failure) {
  g_autoptr(Draw) draw = draw_new(compare->entities, size);
  for (;;) {
    g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
    if (!draw_page(draw, PAGE, documents, ret_failure))
      return false;
    if (documents->len == 0)
      return true;
    if (!compare_page(compare, documents, sink, data, ret_failure))
      return false;
  }
}

/* --- rows ----------------------------------------------------------------------------------- */

static uint64_t hash_of(const Compare *compare, const Value *key) {
  return values_hash(key, compare->layout.key_count);
}

static bool next_keys(Compare *compare, KeyCursor *cursor, Failure *ret_failure) {
  return stores_wake(compare->stores, ret_failure) &&
         key_cursor_next(cursor, compare->stores->session, &compare->layout, KEY_PAGE, ret_failure);
}

static void count_keys(Compare *compare, guint count) {
  compare->keys_read += count;
  progress_show(&compare->progress, compare->keys_read);
}

/* Reads up to a window of rows; if the window stays empty, none are left. */
static bool fill_window(Compare *compare, Window *window, Failure *ret_failure) {
  do {
    if (!next_keys(compare, compare->ahead, ret_failure))
      return false;
    for (guint i = 0; i < compare->ahead->keys->len; i++) {
      const Value *key = compare->ahead->keys->pdata[i];
      uint64_t hash = hash_of(compare, key);
      if (in_range(compare, key))
        window_add(window, hash);
    }
    count_keys(compare, compare->ahead->keys->len);
  } while (compare->ahead->keys->len > 0 && window->hashes->len < WINDOW);
  window_close(window);
  return true;
}

static void claim_page(Compare *compare, Window *window, const GPtrArray *documents) {
  Arena *arena = compare->page.arena;
  for (guint i = 0; i < documents->len; i++) {
    const Event *entity = read_entity(compare, documents->pdata[i]);
    Value *key = arena_alloc(arena, compare->layout.key_count, sizeof *key);
    Failure failure;
    compare->nameless += !entity;
    if (entity && layout_map_key(&compare->layout, entity, arena, key, &failure))
      window_claim(window, hash_of(compare, key));
  }
}

/* Reads all entities after the rows: whatever a row was made from is there by then. */
static bool claim_rows(Compare *compare, Window *window, Failure *ret_failure) {
  g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)bson_destroy);
  bson_t *after = NULL;
  bool good;
  compare->nameless = 0;
  do {
    g_ptr_array_set_size(documents, 0);
    good = entities_page(compare->keys, after, KEY_PAGE, documents, ret_failure);
    if (!good || documents->len == 0)
      break;
    pool_reset(&compare->page);
    claim_page(compare, window, documents);
    count_keys(compare, documents->len);
    if (after)
      bson_destroy(after);
    after = entity_mark(documents->pdata[documents->len - 1]);
  } while (window->unclaimed > 0);
  if (after)
    bson_destroy(after);
  return good;
}

/* --- rows whose key does not identify their aggregate ---------------------------------------- */

typedef struct Unowned {
  GPtrArray *keys;    /* of ValueKey */
  GHashTable *by_key; /* those that no event in the outbox explains */
} Unowned;

/* If an event that changes such a row is still to be applied, the row merely lags. */
static bool strike_out_pending(Compare *compare, Unowned *unowned, Failure *ret_failure) {
  const Projection *own = compare->layout.projection;
  const Projection *projection = own->parent ? own->parent : own;
  Selection selection = {.aggregate_type = projection->aggregate_type};
  g_autoptr(EventCursor) cursor = selection_find(compare->stores->outbox, &selection);
  g_autoptr(Arena) arena = arena_new();
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    ChangeList changes = {0};
    Failure failure;
    arena_reset(arena);
    if (!change_list_map(compare->stores->config->mapping, event, arena, &changes, &failure))
      continue;
    for (unsigned i = 0; i < changes.count; i++) {
      const Change *change = &changes.changes[i];
      ValueKey key = {change->key, projection->key_count};
      if (change->rule->projection == projection && change->key &&
          g_hash_table_remove(unowned->by_key, &key))
        compare->counts.lagging++;
    }
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool settle_unowned(Compare *compare, const GPtrArray *keys, DifferenceSink sink, void *data,
                           Failure *ret_failure) {
  Pool pool = pool_new();
  Unowned unowned = {.by_key = g_hash_table_new(value_key_hash, value_key_equal)};
  g_autoptr(GPtrArray) left = g_ptr_array_new();
  g_autoptr(RowSet) set = row_set_new(pool.arena);
  g_autoptr(GArray) differences = g_array_new(FALSE, TRUE, sizeof(Difference));
  for (guint i = 0; i < keys->len; i++) {
    ValueKey *key = arena_alloc(pool.arena, 1, sizeof *key);
    *key = (ValueKey){keys->pdata[i], compare->layout.key_count};
    g_hash_table_add(unowned.by_key, key);
  }
  bool good = keys->len == 0 || strike_out_pending(compare, &unowned, ret_failure);
  GHashTableIter iter;
  gpointer key;
  g_hash_table_iter_init(&iter, unowned.by_key);
  while (g_hash_table_iter_next(&iter, &key, NULL))
    g_ptr_array_add(left, (gpointer)((const ValueKey *)key)->values);
  good = good && rows_find(compare->stores->session, &compare->layout,
                           (const Value *const *)left->pdata, left->len, set, ret_failure);
  for (guint i = 0; good && i < set->rows->len;
       i++) { /* still there: no event in the outbox explains it */
    if (layout_is_marked(&compare->layout, set->rows->pdata[i]))
      continue;
    Difference difference = {
        .kind = DIFFERENCE_EXTRA_ROW, .layout = &compare->layout, .key = set->rows->pdata[i]};
    g_array_append_val(differences, difference);
  }
  if (good && compare->layout.by_parent)
    good =
        child_rows_of_each(compare->stores, &compare->child, differences, pool.arena, ret_failure);
  keep_doubtful(compare, differences);
  good = good && (differences->len == 0 || sink((Difference *)(void *)differences->data,
                                                differences->len, data, ret_failure));
  g_hash_table_unref(unowned.by_key);
  pool_free(&pool);
  return good;
}

/* --- rows without an entity ------------------------------------------------------------------- */

/* Suspects a row without an entity; with its aggregate, if the key identifies it. */
static void suspect_row(Compare *compare, const Value *key, GArray *suspects, GPtrArray *unowned) {
  const char *type = compare->layout.projection->aggregate_type;
  Suspect suspect = {.key = key, .by_row = true};
  Id ids[AGGREGATE_IDS];
  suspect.id_count = aggregate_ids_of(&compare->layout, key, compare->behind->page, ids);
  for (unsigned i = 0; i < suspect.id_count; i++)
    suspect.ids[i] = (Aggregate){.type = type, .type_length = (uint32_t)strlen(type), .id = ids[i]};
  if (suspect.id_count)
    g_array_append_val(suspects, suspect);
  else
    g_ptr_array_add(unowned, (gpointer)key);
}

/* Reads the window again and checks the rows whose hash no entity claimed. */
static bool settle_window(Compare *compare, const Window *window, DifferenceSink sink, void *data,
                          Failure *ret_failure) {
  const Value *end = compare->ahead->after;
  bool done = false;
  while (!done) {
    g_autoptr(GArray) suspects = g_array_new(FALSE, TRUE, sizeof(Suspect));
    g_autoptr(GPtrArray) unowned = g_ptr_array_new();
    if (!next_keys(compare, compare->behind, ret_failure))
      return false;
    const GPtrArray *keys = compare->behind->keys;
    done = keys->len == 0;
    for (guint i = 0; i < keys->len && !done; i++) {
      const Value *key = keys->pdata[i];
      if (window_is_unclaimed(window, hash_of(compare, key)))
        suspect_row(compare, key, suspects, unowned);
      done = values_equal(key, end, compare->layout.key_count);
    }
    if (!settle(compare, suspects, sink, data, ret_failure) ||
        !settle_unowned(compare, unowned, sink, data, ret_failure))
      return false;
  }
  return true;
}

static void catch_up(Compare *compare) {
  const Value *end = compare->ahead->after;
  KeyCursor *behind = compare->behind;
  unsigned count = compare->layout.key_count;
  Arena *page = behind->page;
  arena_reset(page);
  Value *after = arena_alloc(page, count, sizeof *after);
  for (unsigned i = 0; i < count; i++)
    after[i] = value_copy(&end[i], page);
  behind->after = after;
}

/* The next window of rows: those that no entity has. */
static bool compare_window(Compare *compare, DifferenceSink sink, void *data, bool *ret_end,
                           Failure *ret_failure) {
  g_auto(Window) window;
  window_init(&window);
  if (!fill_window(compare, &window, ret_failure))
    return false;
  *ret_end = compare->ahead->keys->len == 0;
  if (window.hashes->len > 0) {
    if (!claim_rows(compare, &window, ret_failure) ||
        (window.unclaimed > 0 && !settle_window(compare, &window, sink, data, ret_failure)))
      return false;
    compare->counts.rows += window.hashes->len;
  }
  if (compare->ahead->after)
    catch_up(compare);
  return true;
}

bool compare_rows(Compare *compare, DifferenceSink sink, void *data, int64_t entities,
                  Failure *ret_failure) {
  g_autofree char *what = g_strdup_printf("%s, keys", compare->layout.projection->table);
  progress_begin(&compare->progress, what, 0, 2 * entities);
  bool good = true;
  for (bool end = false; good && !end;)
    good = compare_window(compare, sink, data, &end, ret_failure);
  progress_end(&compare->progress);
  return good;
}

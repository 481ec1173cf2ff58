/* repair_check.c - verifies repaired rows. */
#include "projector/app/reconcile/repair_check.h"

#include "projector/domain/entity.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

/* --- in words ------------------------------------------------------------------------------- */

static void append_columns(GString *text, const Difference *difference) {
  const Layout *layout = difference->layout;
  for (unsigned i = 0; i < layout->count; i++) {
    const Value *expected = &difference->expected->values[i], *found = &difference->row[i];
    if (!layout_differs(layout, difference->expected, difference->row, i))
      continue;
    g_string_append_printf(text, ", %s: entity ", layout->columns[i]->name);
    value_append_text(text, expected);
    g_string_append(text, ", row ");
    value_append_text(text, found);
  }
}

char *difference_text(const Difference *difference) {
  g_autoptr(GString) text = g_string_new(difference->layout->projection->table);
  g_string_append_printf(text, ": %s", difference_name(difference->kind));
  if (difference->kind == DIFFERENCE_COLUMNS)
    append_columns(text, difference);
  if (difference->reason)
    g_string_append_printf(text, ", %s", difference->reason);
  return g_utf8_make_valid(text->str, (gssize)text->len);
}

/* --- after a repair ------------------------------------------------------------------------- */

static Suspect suspect_of(const Recheck *recheck, const Difference *difference, Arena *arena) {
  const char *type = recheck->layout->projection->aggregate_type;
  Suspect suspect = {.ids = {*difference->aggregate}, .id_count = 1, .key = difference->key};
  Id ids[AGGREGATE_IDS];
  bool of_child = difference->layout->projection->parent != NULL;
  if (of_child && !difference->orphan)
    suspect.key = NULL; /* its parent's row is the entity's */
  if (difference->kind != DIFFERENCE_EXTRA_ROW || (of_child && !difference->orphan) ||
      difference_is_excluded(difference))
    return suspect;
  suspect.by_row = true;
  suspect.id_count = aggregate_ids_of(recheck->layout, difference->key, arena, ids);
  for (unsigned i = 0; i < suspect.id_count; i++)
    suspect.ids[i] = (Aggregate){.type = type, .type_length = (uint32_t)strlen(type), .id = ids[i]};
  return suspect;
}

/* Whether it was repaired, and a look settles it: at its row, or at its parent's. */
static bool is_repaired(const Recheck *recheck, const Difference *difference) {
  const Projection *projection = difference->layout ? difference->layout->projection : NULL;
  return difference->repaired && projection &&
         (projection == recheck->layout->projection ||
          projection->parent == recheck->layout->projection);
}

static void take_back(Difference *difference, const char *still, Arena *arena) {
  g_autofree char *outcome =
      g_strdup_printf("%s, but it is still different (a trigger, a generated column, or a key "
                      "whose collation considers two ids equal?): %s",
                      difference->outcome, still);
  difference->repaired = false;
  difference->outcome = arena_copy(arena, outcome, strlen(outcome));
}

/* A row of a table. */
typedef struct RowOf {
  const Projection *projection;
  ValueKey key;
} RowOf;

static guint row_of_hash(gconstpointer row) {
  const RowOf *of = row;
  return value_key_hash(&of->key) ^ g_direct_hash(of->projection);
}

static gboolean row_of_equal(gconstpointer a, gconstpointer b) {
  const RowOf *x = a, *y = b;
  return x->projection == y->projection && value_key_equal(&x->key, &y->key);
}

/* What is still different. One parent may have any number of children, so all is found by hash. */
typedef struct Still {
  GHashTable *by_row;       /* RowOf → Difference */
  GHashTable *by_aggregate; /* Aggregate → Difference, of the parent table */
} Still;

static Still still_index(const GArray *differences, Arena *arena) {
  Still still = {g_hash_table_new(row_of_hash, row_of_equal),
                 g_hash_table_new(aggregate_hash_key, aggregate_equal_key)};
  for (guint i = differences->len; i-- > 0;) { /* the first of several is the one that is told */
    Difference *difference = &g_array_index(differences, Difference, i);
    const Projection *projection = difference->layout->projection;
    RowOf *row = arena_alloc(arena, 1, sizeof *row);
    *row = (RowOf){projection, {difference->key, difference->layout->key_count}};
    if (difference->key)
      g_hash_table_replace(still.by_row, row, difference);
    if (difference->aggregate && !projection->parent)
      g_hash_table_replace(still.by_aggregate, (gpointer)difference->aggregate, difference);
  }
  return still;
}

/* A look by the parent's key alone says the same of all rows under it. */
static const Difference *find_still(const Still *still, const Difference *difference) {
  const Projection *projection = difference->layout->projection;
  RowOf row = {projection, {difference->key, difference->layout->key_count}};
  if (!projection->parent && difference->kind != DIFFERENCE_EXTRA_ROW)
    return difference->aggregate ? g_hash_table_lookup(still->by_aggregate, difference->aggregate)
                                 : NULL;
  const Difference *found = difference->key ? g_hash_table_lookup(still->by_row, &row) : NULL;
  if (found || !projection->parent || !difference->key)
    return found;
  row.key.count = projection->parent->key_count;
  return g_hash_table_lookup(still->by_row, &row);
}

static void take_back_different(const Recheck *recheck, Difference *differences, size_t count,
                                const GArray *still, Pool *pool, Arena *arena) {
  const Still index = still_index(still, pool->arena);
  for (size_t i = 0; i < count; i++) {
    const Difference *other =
        is_repaired(recheck, &differences[i]) ? find_still(&index, &differences[i]) : NULL;
    if (!other)
      continue;
    g_autofree char *what = difference_text(other);
    take_back(&differences[i], what, arena);
  }
  g_hash_table_unref(index.by_row);
  g_hash_table_unref(index.by_aggregate);
}

/* One look for each aggregate or row, since it shows all the children. */
static size_t collect_suspects(const Recheck *recheck, const Difference *differences, size_t count,
                               Arena *arena, Suspect *suspects) {
  g_autoptr(GHashTable) aggregates = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  g_autoptr(GHashTable) rows = g_hash_table_new(value_key_hash, value_key_equal);
  size_t found = 0;
  for (size_t i = 0; i < count; i++) {
    if (!is_repaired(recheck, &differences[i]))
      continue;
    const Suspect suspect = suspect_of(recheck, &differences[i], arena);
    ValueKey *row = arena_alloc(arena, 1, sizeof *row);
    *row = (ValueKey){suspect.key, recheck->layout->key_count};
    if (suspect.by_row ? g_hash_table_add(rows, row)
                       : g_hash_table_add(aggregates, (gpointer)differences[i].aggregate))
      suspects[found++] = suspect;
  }
  return found;
}

bool repair_check_rows(const Recheck *recheck, Difference *differences, size_t count, Arena *arena,
                       Failure *ret_failure) {
  g_autofree Suspect *suspects = g_new(Suspect, count + 1);
  g_autoptr(GArray) still = g_array_new(FALSE, TRUE, sizeof(Difference));
  int64_t lagging = 0;
  size_t repaired = collect_suspects(recheck, differences, count, arena, suspects);
  if (repaired == 0)
    return true;
  Pool pool = pool_new();
  bool good = recheck_confirm(recheck, suspects, repaired, &pool, still, &lagging, ret_failure);
  if (good)
    take_back_different(recheck, differences, count, still, &pool, arena);
  pool_free(&pool);
  return good;
}

/* --- one aggregate -------------------------------------------------------------------------- */

static bool look_at(Stores *stores, const Projection *projection, const Aggregate *aggregate,
                    char **ret_still, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GArray) still = g_array_new(FALSE, TRUE, sizeof(Difference));
  Layout layout;
  Failure not_comparable;
  int64_t lagging = 0;
  if (!layout_init(projection, arena, &layout, &not_comparable))
    return true;
  layout.json_slack = stores->json_slack;
  Entities *entities = entities_open(stores->store, projection->entities, NULL);
  const Recheck recheck = {.stores = stores, .entities = entities, .layout = &layout};
  const Suspect suspect = {.ids = {*aggregate}, .id_count = 1};
  Pool pool = pool_new();
  bool good = recheck_confirm(&recheck, &suspect, 1, &pool, still, &lagging, ret_failure);
  if (good && still->len > 0)
    *ret_still = difference_text(&g_array_index(still, Difference, 0));
  pool_free(&pool);
  entities_close(entities);
  return good;
}

bool repair_check_aggregate(Stores *stores, const Aggregate *aggregate, char **ret_still,
                            Failure *ret_failure) {
  *ret_still = NULL;
  for (unsigned i = 0; i < mapping_projection_count(stores->config->mapping) && !*ret_still; i++) {
    const Projection *projection = mapping_projection(stores->config->mapping, i);
    if (projection->entities &&
        projection_is_of(projection, aggregate->type, aggregate->type_length) &&
        !look_at(stores, projection, aggregate, ret_still, ret_failure))
      return false;
  }
  return true;
}

bool repair_check_events(Stores *stores, Difference *differences, size_t count, Arena *arena,
                         Failure *ret_failure) {
  for (size_t i = 0; i < count; i++) {
    g_autofree char *still = NULL;
    Difference *difference = &differences[i];
    if (difference->kind != DIFFERENCE_DEAD_EVENT || !difference->repaired)
      continue;
    if (!repair_check_aggregate(stores, difference->aggregate, &still, ret_failure))
      return false;
    if (still)
      take_back(difference, still, arena);
  }
  return true;
}

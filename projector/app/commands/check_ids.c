/* check_ids.c - ids that one key column cannot distinguish: their aggregates would share a row. */
#include "projector/app/commands/check_ids.h"

#include "projector/domain/entity.h"
#include "projector/domain/value.h"
#include "projector/infra/mongo/ids.h"
#include "projector/infra/mysql/key_collation.h"
#include "projector/infra/mysql/key_ids.h"

#include <string.h>

enum { LISTED_MAX = 5 }; /* of a column; the others are only counted */

typedef struct Check {
  const Config *config;
  MongoStore *store;
  Session *session;
  GPtrArray *findings;
  Failure *failure;
} Check;

static bool read_ids(const Check *check, const Projection *projection, GHashTable *ids) {
  return mongo_ids_add(check->store, check->config->mongodb.outbox, projection->aggregate_type,
                       CHECK_IDS, ids, check->failure) &&
         (!projection->entities || mongo_ids_add(check->store, projection->entities, NULL,
                                                 CHECK_IDS, ids, check->failure)) &&
         key_ids_add_positions(check->session, check->config->name, projection->aggregate_type,
                               CHECK_IDS, ids, check->failure);
}

/* Whether ids that are one value of the column are one row: not if the key has a part that is not
 * the aggregate's. */
static bool is_whole_key(const Projection *projection) {
  for (unsigned i = 0; i < projection->key_count; i++)
    if (!source_is_of_aggregate(&projection->columns[i].from))
      return false;
  return true;
}

/* An id and the key that it gives. */
typedef struct KeyOfId {
  ValueKey key;
  Value value;
  IdKind kind;
  const char *text;
} KeyOfId;

static bool map_id(const Projection *projection, const Column *column, KeyOfId *of, Arena *arena) {
  const char *type = projection->aggregate_type;
  const bson_t nothing = BSON_INITIALIZER;
  Aggregate aggregate = {.type = type, .type_length = (uint32_t)strlen(type)};
  Failure unfit;
  if (!id_from_text(of->kind, of->text, strlen(of->text), arena_alloc(arena, 16, 1), &aggregate.id))
    return false;
  g_autoptr(Event) event = entity_as_event(&nothing, &aggregate, 0, INT64_MIN);
  Value value;
  if (!value_for_column(event, &column->from, column, arena, &value, &unfit))
    return false;
  of->value = value_copy(&value, arena); /* the event goes */
  of->key = (ValueKey){&of->value, 1};
  return true;
}

/* Ids that become the same value, such as the string "7" and the int 7, or two writings of one
 * UUID. */
static void add_same_values(const Check *check, const Projection *projection, const Column *column,
                            GHashTable *ids, unsigned *found) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GHashTable) by_key = g_hash_table_new(value_key_hash, value_key_equal);
  GHashTableIter iter;
  gpointer text, bits;
  g_hash_table_iter_init(&iter, ids);
  while (g_hash_table_iter_next(&iter, &text, &bits))
    for (IdKind kind = 0; kind < ID_KINDS; kind++) {
      KeyOfId *of = arena_alloc(arena, 1, sizeof *of);
      *of = (KeyOfId){.kind = kind, .text = text};
      if (!(GPOINTER_TO_UINT(bits) & 1U << kind) || !map_id(projection, column, of, arena))
        continue;
      const KeyOfId *other = g_hash_table_lookup(by_key, &of->key);
      if (!other)
        g_hash_table_insert(by_key, &of->key, of);
      else if ((*found)++ < LISTED_MAX)
        finding_add(check->findings, is_whole_key(projection),
                    "%s.key.%s: the ids \"%s\" (%s) and \"%s\" (%s) of %s are one value of %s.%s: "
                    "their aggregates would share a row; give each an id of its own, or write all "
                    "in one way",
                    projection->path, column->name, other->text, id_kind_name(other->kind),
                    of->text, id_kind_name(of->kind), projection->aggregate_type, projection->table,
                    column->name);
    }
}

/* `of` is the projection, or one of its child tables, which has its own collations. */
static bool add_same_texts(const Check *check, const Projection *of, const Column *column,
                           GHashTable *ids, unsigned *found) {
  const Projection *projection = of->parent ? of->parent : of;
  g_autoptr(GArray) same = g_array_new(FALSE, FALSE, sizeof(SameKey));
  guint count;
  g_autofree gpointer *texts = g_hash_table_get_keys_as_array(ids, &count);
  if (!key_ids_compare(check->session, of, column, (const char *const *)texts, count, same,
                       check->failure))
    return false;
  for (guint i = 0; i < same->len && i < LISTED_MAX; i++) {
    const SameKey *pair = &g_array_index(same, SameKey, i);
    finding_add(check->findings, is_whole_key(projection),
                "%s.key.%s: the collation of %s.%s considers the ids \"%s\" and \"%s\" equal, so "
                "the events of the second fail; give the column %s",
                projection->path, column->name, of->table, column->name, pair->one, pair->other,
                session_is_mariadb(check->session) ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin");
  }
  *found += same->len;
  return true;
}

static void add_count(const Check *check, const Projection *projection, const Column *column,
                      const Projection *of, unsigned found) {
  if (found > LISTED_MAX)
    finding_add(check->findings, is_whole_key(projection), "%s.key.%s: %u such ids in all in %s",
                projection->path, column->name, found, of->table);
}

/* In the table of the projection, and in those of its children, which begin with the same key. */
static bool check_column(const Check *check, const Projection *projection, unsigned index,
                         GHashTable *ids) {
  const Column *column = &projection->columns[index];
  bool text = type_is_text(column->type.kind);
  unsigned found = 0;
  add_same_values(check, projection, column, ids, &found);
  if (text && !add_same_texts(check, projection, column, ids, &found))
    return false;
  add_count(check, projection, column, projection, found);
  for (unsigned i = 0; text && i < projection->child_count; i++) {
    const Projection *child = projection->children[i];
    found = 0;
    if (!add_same_texts(check, child, &child->columns[index], ids, &found))
      return false;
    add_count(check, projection, column, child, found);
  }
  return true;
}

static bool check_projection(const Check *check, const Projection *projection) {
  for (unsigned i = 0; i < projection->key_count; i++) {
    if (!source_is_aggregate_id(&projection->columns[i].from))
      continue;
    g_autoptr(GHashTable) ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return read_ids(check, projection, ids) && check_column(check, projection, i, ids);
  }
  return true;
}

GPtrArray *check_ids(const Config *config, Failure *ret_failure) {
  g_autoptr(MongoStore) store = mongo_store_open_single(&config->mongodb, ret_failure);
  g_autoptr(Session) session = store ? session_open(&config->mysql, ret_failure) : NULL;
  g_autoptr(GPtrArray) findings = findings_new();
  const Check check = {config, store, session, findings, ret_failure};
  if (!session)
    return NULL;
  for (unsigned i = 0; i < mapping_projection_count(config->mapping); i++)
    if (!check_projection(&check, mapping_projection(config->mapping, i)))
      return NULL;
  return g_steal_pointer(&findings);
}

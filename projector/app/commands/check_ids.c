/* check_ids.c - ids that one key column cannot tell apart: their aggregates would share a row. */
#include "projector/app/commands/check_ids.h"

#include "projector/infra/mongo/ids.h"
#include "projector/infra/mysql/key_collation.h"
#include "projector/infra/mysql/key_ids.h"

#include <string.h>

enum { TOLD = 5 }; /* of a column; the others are only counted */

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

/* Ids of different kinds with the same text, such as "the string "7" and the int 7". */
static unsigned tell_kinds(const Check *check, const Projection *projection, const Column *column,
                           GHashTable *ids) {
  GHashTableIter iter;
  gpointer text, bits;
  unsigned found = 0;
  g_hash_table_iter_init(&iter, ids);
  while (g_hash_table_iter_next(&iter, &text, &bits)) {
    g_autoptr(GString) names = g_string_new(NULL);
    unsigned count = 0;
    for (IdKind kind = 0; kind < ID_KINDS; kind++)
      if (GPOINTER_TO_UINT(bits) & 1U << kind)
        g_string_append_printf(names, "%s%s", count++ ? " and " : "", id_kind_name(kind));
    if (count > 1 && found++ < TOLD)
      finding_add(check->findings, true,
                  "%s.key.%s: \"%s\" is the id of several aggregates of %s (%s), which would share "
                  "a row of %s; give each an id of its own, or ids of one kind to all",
                  projection->path, column->name, (char *)text, projection->aggregate_type,
                  names->str, projection->table);
  }
  return found;
}

static bool tell_texts(const Check *check, const Projection *projection, const Column *column,
                       GHashTable *ids, unsigned *ret_found) {
  g_autoptr(GArray) same = g_array_new(FALSE, FALSE, sizeof(SameKey));
  guint count;
  g_autofree gpointer *texts = g_hash_table_get_keys_as_array(ids, &count);
  if (!key_ids_compare(check->session, projection, column, (const char *const *)texts, count, same,
                       check->failure))
    return false;
  for (guint i = 0; i < same->len && i < TOLD; i++) {
    const SameKey *pair = &g_array_index(same, SameKey, i);
    finding_add(check->findings, true,
                "%s.key.%s: the collation of %s.%s takes the ids \"%s\" and \"%s\" for one, so the "
                "events of the second fail; give the column %s",
                projection->path, column->name, projection->table, column->name, pair->one,
                pair->other,
                session_is_mariadb(check->session) ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin");
  }
  *ret_found += same->len;
  return true;
}

static bool check_column(const Check *check, const Projection *projection, const Column *column,
                         GHashTable *ids) {
  unsigned found = tell_kinds(check, projection, column, ids);
  if (!tell_texts(check, projection, column, ids, &found))
    return false;
  if (found > TOLD)
    finding_add(check->findings, true, "%s.key.%s: %u such ids in all", projection->path,
                column->name, found);
  return true;
}

static bool check_projection(const Check *check, const Projection *projection) {
  for (unsigned i = 0; i < projection->key_count; i++) {
    const Column *column = &projection->columns[i];
    if (!key_is_text_of_id(column))
      continue;
    g_autoptr(GHashTable) ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return read_ids(check, projection, ids) && check_column(check, projection, column, ids);
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

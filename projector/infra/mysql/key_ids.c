/* key_ids.c - compares ids as the collation of a key compares them. */
#include "projector/infra/mysql/key_ids.h"

#include "projector/infra/mysql/key_collation.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

enum { AT_ONCE = 200 };

static guint kind_bit(const char *name) {
  IdKind kind;
  return id_kind_from_name(name, &kind) ? 1U << kind : 0;
}

bool key_ids_add_positions(Session *session, const char *projector, const char *aggregate_type,
                           unsigned limit, GHashTable *ids, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(
      "SELECT aggregate_id, aggregate_id_kind FROM projector_position WHERE projector = ");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append(sql, " AND aggregate_type = ");
  literal_append_bytes(sql, aggregate_type, strlen(aggregate_type));
  g_string_append_printf(sql, " LIMIT %u", limit);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result))) {
    guint bits = GPOINTER_TO_UINT(g_hash_table_lookup(ids, row[0])) | kind_bit(row[1]);
    if (strlen(row[0]) == mysql_fetch_lengths(result)[0])
      g_hash_table_insert(ids, g_strdup(row[0]), GUINT_TO_POINTER(bits));
  }
  return true;
}

/* The collation's weight of each text: texts that it considers equal have the same. For a collation
 * that pads, the weights of blanks at the end differ although it ignores them. */
static char *begin_query(const KeyCollation *of) {
  return g_strdup_printf("SELECT v.id, HEX(WEIGHT_STRING(CONVERT(%s USING %s) COLLATE %s)) FROM (",
                         of->pads ? "TRIM(TRAILING ' ' FROM v.id)" : "v.id", of->charset,
                         of->collation);
}

static bool weigh(Session *session, const KeyCollation *of, const char *const *texts, size_t count,
                  GHashTable *seen, GArray *same, Failure *ret_failure) {
  g_autofree char *begin = begin_query(of);
  g_autoptr(GString) sql = g_string_new(begin);
  for (size_t i = 0; i < count; i++) {
    g_string_append(sql, i ? " UNION ALL SELECT " : "SELECT ");
    literal_append_text(sql, texts[i], strlen(texts[i]));
    g_string_append(sql, " COLLATE utf8mb4_bin AS id");
  }
  g_string_append(sql, ") AS v");
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  g_autoptr(GHashTable) asked = g_hash_table_new(g_str_hash, g_str_equal);
  for (size_t i = 0; i < count; i++)
    g_hash_table_add(asked, (gpointer)texts[i]);
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result))) {
    const char *text = g_hash_table_lookup(asked, row[0]);
    if (!text || !row[1])
      continue;
    const SameKey pair = {g_hash_table_lookup(seen, row[1]), text};
    if (pair.one)
      g_array_append_val(same, pair);
    else
      g_hash_table_insert(seen, g_strdup(row[1]), (gpointer)text);
  }
  return true;
}

bool key_ids_compare(Session *session, const Projection *projection, const Column *column,
                     const char *const *texts, size_t count, GArray *same, Failure *ret_failure) {
  g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  KeyCollation of;
  if (!key_collation_read(session, projection, column, &of, ret_failure))
    return false;
  for (size_t at = 0; of.loose && at < count; at += AT_ONCE)
    if (!weigh(session, &of, texts + at, MIN(count - at, AT_ONCE), seen, same, ret_failure))
      return false;
  return true;
}

/* key_collation.c - asks for the collations of a table's key columns. */
#include "projector/infra/mysql/key_collation.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

bool collation_pads(const char *collation) {
  return !strstr(collation, "_0900_") && !strstr(collation, "_nopad_");
}

bool key_is_text_of_id(const Column *column) {
  return type_is_text(column->type.kind) && source_is_aggregate_id(&column->from);
}

bool key_collation_read(Session *session, const Projection *projection, const Column *key,
                        KeyCollation *ret_collation, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(
      "SELECT COALESCE(CHARACTER_SET_NAME, ''), COALESCE(COLLATION_NAME, '')"
      " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ");
  literal_append_text(sql, projection->table, strlen(projection->table));
  g_string_append(sql, " AND COLUMN_NAME = ");
  literal_append_text(sql, key->name, strlen(key->name));
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  KeyCollation found = {0};
  if (row && *row[1]) {
    g_strlcpy(found.charset, row[0], sizeof found.charset);
    g_strlcpy(found.collation, row[1], sizeof found.collation);
    found.pads = collation_pads(row[1]);
    found.loose = found.pads || !g_str_has_suffix(row[1], "_bin");
  }
  *ret_collation = found;
  return true;
}

/* The hint's name contains a blank, which no table's name does. */
const char *key_collation_loose(Session *session, const Projection *projection,
                                Failure *ret_failure) {
  bool any = false;
  for (unsigned i = 0; i < projection->key_count; i++)
    any |= key_is_text_of_id(&projection->columns[i]);
  if (!any)
    return "";
  g_autofree char *name = g_strconcat(projection->table, " keys", NULL);
  const char *kept = session_hint(session, name);
  if (kept)
    return kept;
  g_autoptr(GString) loose = g_string_new(NULL);
  for (unsigned i = 0; i < projection->key_count; i++) {
    const Column *key = &projection->columns[i];
    KeyCollation of = {0};
    if (key_is_text_of_id(key) && !key_collation_read(session, projection, key, &of, ret_failure))
      return NULL;
    g_string_append_c(loose, of.loose ? '1' : '0');
  }
  session_keep_hint(session, name, strchr(loose->str, '1') ? loose->str : "");
  return session_hint(session, name);
}

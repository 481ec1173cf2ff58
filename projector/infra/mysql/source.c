/* source.c - statements on projector_source. */
#include "projector/infra/mysql/source.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

/* The table is newer than the others, so an installation without it continues. If a user may not
 * see a table, the server says the same whether it exists or not. */
static bool is_not_kept(const Failure *failure) {
  /* Denied on table, denied on column, no such table. */
  static const int codes[] = {1142, 1143, 1146};
  for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
    if (failure->source == SOURCE_MYSQL && failure->code == codes[i])
      return true;
  return false;
}

static bool pass_over(const Failure *failure, KeptSource *ret_source, Failure *ret_failure) {
  if (is_not_kept(failure)) {
    *ret_source = (KeptSource){0};
    return true;
  }
  *ret_failure = *failure;
  return false;
}

bool source_read(Session *session, const char *projector, KeptSource *ret_source,
                 Failure *ret_failure) {
  Failure failure = {0};
  g_autoptr(GString) sql = g_string_new("SELECT source FROM projector_source WHERE projector = ");
  literal_append_text(sql, projector, strlen(projector));
  g_autoptr(MYSQL_RES) result = session_query_current(session, sql->str, sql->len, &failure);
  if (!result)
    return pass_over(&failure, ret_source, ret_failure);
  MYSQL_ROW row = mysql_fetch_row(result);
  *ret_source = (KeptSource){.kept = true};
  if (row)
    g_strlcpy(ret_source->text, row[0], sizeof ret_source->text);
  return true;
}

bool source_write(Session *session, const char *projector, const char *source, bool overwrite,
                  KeptSource *ret_source, Failure *ret_failure) {
  Failure failure = {0};
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_source (projector, source) VALUES (");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append(sql, ", ");
  literal_append_text(sql, source, strlen(source));
  g_string_append(sql, ") ON DUPLICATE KEY UPDATE source = ");
  if (overwrite)
    literal_append_text(sql, source, strlen(source));
  else
    g_string_append(sql, "source");
  if (!session_execute(session, sql->str, sql->len, NULL, &failure))
    return pass_over(&failure, ret_source, ret_failure);
  return source_read(session, projector, ret_source, ret_failure);
}

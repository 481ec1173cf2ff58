/* fence.c - the row of projector_fence: the epoch of the owner. */
#include "projector/infra/mysql/fence.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

bool fence_take(Session *session, const char *projector, const char *owner, int64_t *ret_epoch,
                Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_fence (projector, part, epoch, owner)"
                   " VALUES (");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append(sql, ", 0, LAST_INSERT_ID(1), ");
  literal_append_text(sql, owner, strlen(owner));
  g_string_append(sql, ") ON DUPLICATE KEY UPDATE epoch = LAST_INSERT_ID(epoch + 1), owner = ");
  literal_append_text(sql, owner, strlen(owner));
  if (!session_execute(session, sql->str, sql->len, NULL, ret_failure))
    return false;
  *ret_epoch =
      session_insert_id(session); /* of this very answer: a proxy cannot ask another server */
  return *ret_epoch > 0 ||
         failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MYSQL, 0,
                     "the answer to the write that raises the epoch does not tell the epoch, so a "
                     "later owner could not be told from this one: is there a proxy that changes "
                     "answers? Connect to the server itself");
}

/* A column of the projector's row; NULL: there is no row, or it is empty. Free with g_free. */
static bool read_column(Session *session, const char *column, const char *projector,
                        char **ret_text, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(NULL);
  g_string_printf(sql, "SELECT %s FROM projector_fence WHERE part = 0 AND projector = ", column);
  literal_append_text(sql, projector, strlen(projector));
  g_autoptr(MYSQL_RES) result = session_query_current(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  *ret_text = row && row[0] && *row[0] ? g_strdup(row[0]) : NULL;
  return true;
}

bool fence_look(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure) {
  g_autofree char *epoch = NULL;
  if (!read_column(session, "epoch", projector, &epoch, ret_failure))
    return false;
  *ret_epoch = epoch ? g_ascii_strtoll(epoch, NULL, 10) : 0;
  return true;
}

bool fence_lift(Session *session, const char *projector, int64_t epoch, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_fence (projector, part, epoch) VALUES (");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append_printf(sql,
                         ", 0, %" G_GINT64_FORMAT ") ON DUPLICATE KEY UPDATE"
                         " epoch = GREATEST(epoch, %" G_GINT64_FORMAT ")",
                         epoch, epoch);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

bool fence_shut(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("UPDATE projector_fence SET epoch = epoch + 1 WHERE part = 0 AND projector = ");
  literal_append_text(sql, projector, strlen(projector));
  return session_execute(session, sql->str, sql->len, NULL, ret_failure) &&
         fence_look(session, projector, ret_epoch, ret_failure);
}

bool fence_read_owner(Session *session, const char *projector, char **ret_owner,
                      Failure *ret_failure) {
  return read_column(session, "owner", projector, ret_owner, ret_failure);
}

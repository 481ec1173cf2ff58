/* loss.c - the query for the event that was applied last, and the two messages. */
#include "projector/infra/mysql/loss.h"

#include "projector/domain/datetime.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

bool loss_look(Session *session, const char *projector, const LastCommit *last, bool *ret_lost,
               Failure *ret_failure) {
  g_autoptr(GString) name = g_string_new(NULL);
  g_autoptr(GString) sql = g_string_new(NULL);
  literal_append_text(name, projector, strlen(projector));
  g_string_printf(sql,
                  "SELECT EXISTS (SELECT 1 FROM projector_applied WHERE projector = %s"
                  " AND event_id_kind = '%s' AND event_id = ",
                  name->str, id_kind_name(last->kind));
  literal_append_bytes(sql, last->event_id, strlen(last->event_id));
  g_string_append_printf(sql, "), EXISTS (SELECT 1 FROM projector_applied WHERE projector = %s)",
                         name->str);
  g_autoptr(MYSQL_RES) result = session_query_current(session, sql->str, sql->len, ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!row)
    return false;
  bool there = *row[0] == '1', others = *row[1] == '1';
  *ret_lost = !there && others;
  return true;
}

static bool refuse(const char *proof, Failure *ret_failure) {
  return failure_set(
      ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
      "MySQL has lost what was applied: %s. It was restored to an earlier state, or is another "
      "server. See \"After a restore\" in operations.md: `run --adopt` continues with it, then "
      "`reconcile --repair` (from the entities) or `replay` (from the archive) brings back what is "
      "missing",
      proof);
}

bool loss_of_epochs(int64_t found, int64_t reached, Failure *ret_failure) {
  g_autofree char *proof = g_strdup_printf("its fence has epoch %lld, but %lld was reached",
                                           (long long)MAX(found, 0), (long long)reached);
  return refuse(proof, ret_failure);
}

bool loss_of_event(const LastCommit *last, Failure *ret_failure) {
  char at[DATETIME_TEXT_SIZE];
  datetime_format(last->at_ms * 1000, 0, at);
  g_autofree char *proof =
      g_strdup_printf("event %s, committed at %s UTC, is not in its ledger", last->event_id, at);
  return refuse(proof, ret_failure);
}

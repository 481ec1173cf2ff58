/* probe.c - tests a server or a table on a session of its own. */
#include "projector/infra/mysql/probe.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

/* Of the fence; owners have 0. */
enum { PROBE_PART = 65535, LOOK_PART = 65534 };

/* A lock that is not released within a second is an answer too. */
static Session *open_probe(const MysqlSettings *settings, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(settings, ret_failure);
  if (!session || !session_run(session, ret_failure,
                               "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"))
    return NULL;
  return g_steal_pointer(&session);
}

/* The client has given up, but the server has not: its statement keeps the locks until it ends. A
 * user may kill its own sessions; only one that looks like ours is killed, in case this is another
 * server. */
static void end_session(Session *session, unsigned long hung) {
  Failure ignored;
  g_autofree char *query =
      g_strdup_printf("SELECT id FROM information_schema.processlist WHERE id = %lu"
                      " AND user = SUBSTRING_INDEX(USER(), '@', 1) AND db = DATABASE()",
                      hung);
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), &ignored);
  if (result && mysql_fetch_row(result))
    session_run(session, &ignored, "KILL %lu", hung);
}

static bool write_row(Session *session, const char *projector, int part, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_fence (projector, part, epoch, owner) VALUES (");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append_printf(sql, ", %d, 1, 'probe') ON DUPLICATE KEY UPDATE epoch = epoch + 1", part);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

bool probe_server(const MysqlSettings *settings, const Ledger *ledger, unsigned long hung,
                  Failure *ret_failure) {
  g_autoptr(Session) session = open_probe(settings, ret_failure);
  if (!session)
    return false;
  if (hung)
    end_session(session, hung);
  return session_run(session, ret_failure, "START TRANSACTION") &&
         session_run(session, ret_failure,
                     "INSERT INTO projector_applied SELECT * FROM projector_applied WHERE FALSE") &&
         session_run(session, ret_failure,
                     "INSERT INTO projector_position"
                     " SELECT * FROM projector_position WHERE FALSE") &&
         write_row(session, ledger->projector, PROBE_PART, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

bool probe_admits(Session *session, Failure *ret_failure) {
  return session_run(session, ret_failure, "UPDATE projector_fence SET epoch = epoch WHERE FALSE");
}

/* The lock wait of one process for another's COMMIT that hangs is an answer too. */
bool probe_write(Session *session, const char *projector, Failure *ret_failure) {
  return session_run(session, ret_failure, "START TRANSACTION") &&
         write_row(session, projector, LOOK_PART, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

/* Changes nothing, but is admitted only where a statement that changes something would be. */
bool probe_table(const MysqlSettings *settings, const Projection *projection,
                 Failure *ret_failure) {
  g_autoptr(Session) session = open_probe(settings, ret_failure);
  if (!session)
    return false;
  g_autoptr(GString) sql = g_string_new("UPDATE ");
  literal_append_name(sql, projection->table);
  g_string_append(sql, " SET ");
  literal_append_name(sql, projection->columns[0].name);
  g_string_append(sql, " = ");
  literal_append_name(sql, projection->columns[0].name);
  g_string_append(sql, " WHERE FALSE");
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

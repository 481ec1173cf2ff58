/* replica.c - asks a replica how far its ledger has come. */
#include "projector/infra/mysql/replica.h"

#include <string.h>

enum { TEXT_SIZE = 160 };

MysqlSettings replica_settings(const MysqlSettings *primary, const char *address, char **ret_host) {
  MysqlSettings settings = *primary;
  char *colon;
  *ret_host = g_strdup(address);
  colon = strrchr(*ret_host, ':'); /* the file was checked, so there is one */
  *colon = '\0';
  settings.host = *ret_host;
  settings.port = (unsigned)g_ascii_strtoull(colon + 1, NULL, 10);
  settings.socket = NULL;
  return settings;
}

/* The first column of the only row; "": no row. Neither names nor times contain quotes. */
static bool ask(Session *session, char *sql, char ret_text[static TEXT_SIZE],
                Failure *ret_failure) {
  g_autofree char *owned = sql;
  g_autoptr(MYSQL_RES) result = session_query(session, owned, strlen(owned), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  g_strlcpy(ret_text, row && row[0] ? row[0] : "", TEXT_SIZE);
  return result != NULL;
}

bool replica_newest(Session *session, const char *name, char ret_time[static LEDGER_TIME_SIZE],
                    Failure *ret_failure) {
  char text[TEXT_SIZE];
  bool good = ask(session,
                  g_strdup_printf("SELECT applied_at FROM projector_applied WHERE projector = '%s'"
                                  " ORDER BY applied_at DESC LIMIT 1",
                                  name),
                  text, ret_failure);
  g_strlcpy(ret_time, text, LEDGER_TIME_SIZE);
  return good;
}

bool replica_inspect(Session *primary, Session *replica, const char *name, ReplicaFacts *ret_facts,
                     Failure *ret_failure) {
  char ids[2][TEXT_SIZE], newest[2][LEDGER_TIME_SIZE], known[TEXT_SIZE];
  static const char identity[] = "SELECT CONCAT(@@hostname, ' ', @@port, ' ', @@server_id)";
  /* The replica first: whatever it has, the primary had before. */
  if (!ask(primary, g_strdup(identity), ids[0], ret_failure) ||
      !ask(replica, g_strdup(identity), ids[1], ret_failure) ||
      !replica_newest(replica, name, newest[1], ret_failure) ||
      !replica_newest(primary, name, newest[0], ret_failure) ||
      !ask(primary,
           g_strdup_printf("SELECT 1 FROM projector_applied WHERE projector = '%s' AND applied_at ="
                           " '%s' LIMIT 1",
                           name, *newest[1] ? newest[1] : "1000-01-01"),
           known, ret_failure))
    return false;
  *ret_facts = (ReplicaFacts){.is_primary = !strcmp(ids[0], ids[1]),
                              .is_behind = strcmp(newest[0], newest[1]) > 0,
                              .is_empty = !*newest[1] && *newest[0],
                              .is_stranger = *newest[1] && !*known};
  return true;
}

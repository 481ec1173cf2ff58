/* inspect.c - clock, encryption, modes: for `check`. */
#include "projector/infra/mysql/inspect.h"

#include <string.h>

static bool ask_tls(Session *session, MysqlFacts *facts, Failure *ret_failure) {
  static const char query[] = "SHOW SESSION STATUS LIKE 'Ssl_version'";
  g_autoptr(MYSQL_RES) result = session_query(session, query, sizeof query - 1, ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (*session_cipher(session)) /* of a proxy, perhaps, which may say nothing else */
    g_snprintf(facts->tls, sizeof facts->tls, "%s, %s", row && *row[1] ? row[1] : "TLS",
               session_cipher(session));
  return result != NULL;
}

bool mysql_inspect(Session *session, MysqlFacts *ret_facts, Failure *ret_failure) {
  static const char query[] =
      "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), @@SESSION.sql_mode, @@read_only";
  int64_t before = g_get_real_time();
  g_autoptr(MYSQL_RES) result = session_query(session, query, sizeof query - 1, ret_failure);
  int64_t ours_ms = (before + (g_get_real_time() - before) / 2) / 1000;
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!row)
    return false;
  MysqlFacts facts = {.clock_ahead_ms = g_ascii_strtoll(row[0], NULL, 10) - ours_ms,
                      .strict = strstr(row[1], "STRICT_ALL_TABLES") != NULL,
                      .read_only = strcmp(row[2], "0") != 0 && strcmp(row[2], "OFF") != 0};
  if (!ask_tls(session, &facts, ret_failure))
    return false;
  *ret_facts = facts;
  return true;
}

/* inspect.c - clock, encryption, modes: for `check`. */
#include "projector/infra/mysql/inspect.h"

#include "projector/domain/real.h"

#include <string.h>

static bool ask_tls(Session *session, MysqlFacts *facts, Failure *ret_failure) {
  static const char query[] = "SHOW SESSION STATUS LIKE 'Ssl_version'";
  g_autoptr(MYSQL_RES) result = session_query(session, query, sizeof query - 1, ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (*session_cipher(session)) /* of a proxy, perhaps, which may reveal nothing else */
    g_snprintf(facts->tls, sizeof facts->tls, "%s, %s", row && *row[1] ? row[1] : "TLS",
               session_cipher(session));
  return result != NULL;
}

/* The variables exist only with the plugin; a group name means that it is in use. */
static bool ask_group(Session *session, MysqlFacts *facts, Failure *ret_failure) {
  static const char query[] =
      "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('group_replication_group_name',"
      " 'group_replication_single_primary_mode', 'group_replication_consistency')";
  g_autoptr(MYSQL_RES) result = session_query(session, query, sizeof query - 1, ret_failure);
  for (MYSQL_ROW row; result && (row = mysql_fetch_row(result));) {
    if (g_str_has_suffix(row[0], "group_name"))
      facts->in_group = *row[1] != '\0';
    else if (g_str_has_suffix(row[0], "primary_mode"))
      facts->group_has_one_primary = !strcmp(row[1], "ON");
    else
      g_strlcpy(facts->group_consistency, row[1], sizeof facts->group_consistency);
  }
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
  if (!ask_tls(session, &facts, ret_failure) || !ask_group(session, &facts, ret_failure))
    return false;
  *ret_facts = facts;
  return true;
}

bool mysql_json_slack(Session *session, unsigned *ret_slack, Failure *ret_failure) {
  *ret_slack = 0;
  if (session_is_mariadb(session)) /* its json is a text, which stays as written */
    return true;
  g_autofree char *query =
      g_strdup_printf("SELECT CAST(CAST('%s' AS JSON) AS CHAR CHARACTER SET utf8mb4)", json_probe);
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!result)
    return false;
  return (row && row[0] && json_probe_judge(row[0], strlen(row[0]), ret_slack)) ||
         failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_MYSQL, 0,
                     "the server does not give back an array of numbers as JSON");
}

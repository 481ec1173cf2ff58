/* server_check.c - version, binary log, durability. */
#include "projector/infra/mysql/server_check.h"

#include <stdio.h>
#include <string.h>

typedef struct Version {
  int major, minor, patch;
} Version;

static bool is_before(const Version *version, int major, int minor, int patch) {
  if (version->major != major)
    return version->major < major;
  return version->minor != minor ? version->minor < minor : version->patch < patch;
}

/* "8.0.33-log": missing parts count as 0. */
static bool read_version(const char *text, Version *ret_version) {
  int *const parts[] = {&ret_version->major, &ret_version->minor, &ret_version->patch};
  char *end = (char *)text;
  for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
    *parts[i] = (int)g_ascii_strtoull(end, &end, 10);
    if (*end != '.')
      break;
    end++;
  }
  return ret_version->major > 0;
}

static void check_version(const Session *session, GPtrArray *findings) {
  Version version = {0};
  const char *server = session_server(session), *number = strchr(server, ' ');
  if (!number || !read_version(number, &version))
    return;
  if (!session_is_mariadb(session)) {
    if (is_before(&version, 8, 0, 19))
      finding_add(findings, true,
                  "%s is too old: it does not know INSERT … AS new ON DUPLICATE KEY UPDATE; 8.0.19 "
                  "is the first that does",
                  server);
  } else if (is_before(&version, 10, 11, 0)) {
    finding_add(findings, false, "%s is older than 10.11, the oldest that is tested", server);
  }
}

static void check_settings(char **row, GPtrArray *findings) {
  if (!strcmp(row[0], "1") && !g_ascii_strcasecmp(row[1], "STATEMENT"))
    finding_add(findings, true,
                "binlog_format is STATEMENT: the server refuses every change under READ COMMITTED "
                "(1665); SET GLOBAL binlog_format = ROW, also in its configuration file");
  if (!strcmp(row[2], "0"))
    finding_add(findings, false,
                "innodb_flush_log_at_trx_commit is 0: a crash of the server loses the commits of "
                "the last second, whose events have left the outbox; set it to 1");
  if (!strcmp(row[0], "1") && !strcmp(row[3], "0"))
    finding_add(findings, false,
                "sync_binlog is 0: after a crash of the machine replicas can have other rows than "
                "the server; set it to 1");
  if (!strcmp(row[4], "0") || !g_ascii_strcasecmp(row[4], "OFF"))
    finding_add(findings, false,
                "innodb_doublewrite is off: a crash of the machine can leave half-written pages");
}

/* The number of shards of this session's keyspace; 0: it could not be asked. Vitess calls the
 * database "bank", "bank@primary", or, for a single shard, "bank:-80". */
static unsigned count_shards(Session *session, char **ret_keyspace) {
  static const char query[] = "SELECT DATABASE()", list[] = "SHOW VITESS_SHARDS";
  Failure ignored;
  g_autoptr(MYSQL_RES) of = session_query(session, query, strlen(query), &ignored);
  MYSQL_ROW row = of ? mysql_fetch_row(of) : NULL;
  if (!row || !row[0])
    return 0;
  g_autofree char *keyspace = g_strndup(row[0], strcspn(row[0], ":@/"));
  g_autofree char *prefix = g_strconcat(keyspace, "/", NULL);
  g_autoptr(MYSQL_RES) shards = session_query(session, list, strlen(list), &ignored);
  unsigned count = 0;
  while (shards && (row = mysql_fetch_row(shards)))
    count += row[0] && g_str_has_prefix(row[0], prefix);
  *ret_keyspace = g_steal_pointer(&keyspace);
  return count;
}

/* The shards of a transaction commit one after the other. */
static void check_shards(Session *session, GPtrArray *findings) {
  if (!strstr(session_server(session), "itess"))
    return;
  g_autofree char *keyspace = NULL;
  unsigned shards = count_shards(session, &keyspace);
  if (shards > 1)
    finding_add(findings, true,
                "Vitess keeps the keyspace %s on %u shards: a transaction over several of them is "
                "not atomic, so events would count twice or not at all; use a keyspace with one "
                "shard",
                keyspace, shards);
  else if (shards == 0)
    finding_add(findings, false,
                "Vitess does not say on how many shards the keyspace is (SHOW VITESS_SHARDS): with "
                "more than one, transactions are not atomic, and events would count twice or not "
                "at all");
}

bool server_check(Session *session, GPtrArray *findings, Failure *ret_failure) {
  static const char query[] =
      "SELECT @@log_bin, @@SESSION.binlog_format, @@innodb_flush_log_at_trx_commit, @@sync_binlog,"
      " @@innodb_doublewrite";
  check_version(session, findings);
  check_shards(session, findings);
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (row)
    check_settings(row, findings);
  else if (result || ret_failure->class == FAILURE_UNAVAILABLE)
    return false;
  *ret_failure = (Failure){0}; /* a proxy or a later server may not know one of the variables */
  return true;
}

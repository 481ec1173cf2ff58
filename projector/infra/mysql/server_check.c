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

/* "" : the server does not know it. */
static const char *value_of(GHashTable *settings, const char *name) {
  const char *value = g_hash_table_lookup(settings, name);
  return value ? value : "";
}

static bool is_off(const char *value) {
  return !g_ascii_strcasecmp(value, "OFF") || !strcmp(value, "0");
}

static bool is_on(const char *value) {
  return *value && !is_off(value);
}

static void check_log(GHashTable *settings, GPtrArray *findings) {
  const char *flush = value_of(settings, "innodb_flush_log_at_trx_commit");
  if (!strcmp(flush, "0") || !strcmp(flush, "2"))
    finding_add(findings, false,
                "innodb_flush_log_at_trx_commit is %s: a crash of %s loses the commits of "
                "the last second, whose events have left the outbox; set it to 1",
                flush, *flush == '0' ? "the server" : "the machine");
  if (is_off(value_of(settings, "Innodb_redo_log_enabled")))
    finding_add(findings, false,
                "the redo log is disabled: a crash of the server loses all of its data; ALTER "
                "INSTANCE ENABLE INNODB REDO_LOG");
}

static void check_settings(GHashTable *settings, GPtrArray *findings) {
  const char *doublewrite = value_of(settings, "innodb_doublewrite");
  bool binlog = is_on(value_of(settings, "log_bin"));
  if (binlog && !g_ascii_strcasecmp(value_of(settings, "binlog_format"), "STATEMENT"))
    finding_add(findings, true,
                "binlog_format is STATEMENT: the server refuses every change under READ COMMITTED "
                "(1665); SET GLOBAL binlog_format = ROW, also in its configuration file");
  check_log(settings, findings);
  if (binlog && !strcmp(value_of(settings, "sync_binlog"), "0"))
    finding_add(findings, false,
                "sync_binlog is 0: after a crash of the machine replicas can have other rows than "
                "the server; set it to 1");
  if (is_off(doublewrite) || !g_ascii_strcasecmp(doublewrite, "DETECT_ONLY"))
    finding_add(findings, false,
                "innodb_doublewrite is %s: a crash of the machine can leave half-written pages%s",
                is_off(doublewrite) ? "off" : "DETECT_ONLY",
                is_off(doublewrite) ? "" : ", which are found but not repaired");
}

/* Adds name → value. A server that does not know one of the names leaves it out. */
static bool read_settings(Session *session, const char *query, GHashTable *settings,
                          Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  MYSQL_ROW row;
  while (result && (row = mysql_fetch_row(result)))
    if (row[0] && row[1])
      g_hash_table_replace(settings, g_strdup(row[0]), g_strdup(row[1]));
  return result != NULL;
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
  static const char variables[] =
      "SHOW SESSION VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format',"
      " 'innodb_flush_log_at_trx_commit', 'sync_binlog', 'innodb_doublewrite')";
  static const char redo[] = "SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'";
  g_autoptr(GHashTable) settings = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  check_version(session, findings);
  check_shards(session, findings);
  bool good = read_settings(session, variables, settings, ret_failure) &&
              read_settings(session, redo, settings, ret_failure);
  if (!good && ret_failure->class == FAILURE_UNAVAILABLE)
    return false;
  if (!good) /* a proxy may refuse to be asked */
    finding_add(findings, false,
                "the server does not say how durable its commits are, and whether its binary log "
                "has rows: %s",
                ret_failure->message);
  *ret_failure = (Failure){0};
  check_settings(settings, findings);
  return true;
}

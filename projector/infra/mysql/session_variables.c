/* session_variables.c - the table of session variables, and the statements made from it. */
#include "projector/infra/mysql/session_variables.h"

#include <string.h>

/* Servers that have the variable. */
typedef enum VariableServers {
  EVERYBODY,
  NOT_VITESS, /* MySQL and MariaDB */
  MYSQL_ONLY, /* including Vitess */
  MYSQL_ITSELF,
  MARIADB_ONLY,
  MARIADB_10_6, /* and later */
} VariableServers;

typedef enum How {
  PINNED, /* set, and refused if it then has another value */
  SET,    /* only set: it limits how long something may take, or cannot be compared */
  SEEN,   /* only read: an ordinary user lacks the privilege to set it */
} How;

typedef struct Variable {
  const char *name, *value; /* as SELECT @@name shows it */
  VariableServers servers;
  How how;
  const char *reason; /* with any other value, ... */
} Variable;

/* Given by the caller. */
#define LOCK_WAIT "lock wait"

/* Every variable of a session in MySQL 8.0 and 9.7 and in MariaDB 10.11 and 11.8 was considered.
 * These are inherited although they mean something to statements of users:
 *   auto_increment_increment, _offset: how several primaries share the numbers
 *   block_encryption_mode: the server's policy, in which its data is encrypted
 *   default_collation_for_utf8mb4, character_set_collations: to set the first takes a privilege;
 *     they apply to texts with an introducer or CONVERT, and differ between servers anyway
 *   enable_cascade_triggers: belongs to the tables' triggers
 *   cte_max_recursion_depth, max_sp_recursion_depth, max_points_in_geometry, limits of memory: what
 *     reaches them fails, and nothing is cut
 *   innodb_snapshot_isolation: means nothing under READ COMMITTED
 *   wsrep_..., group_replication_consistency: the cluster's
 *   system_versioning_alter_history, _insert_history, sql_require_primary_key, innodb_strict_mode
 *     and others of DDL: a statement of ours says what it needs, or fails
 *   optimizer_..., buffers, logs, statistics, SHOW, session_track_...: no row becomes another
 *
 * "DEFAULT" is the server's keyword. Values of global variables must not count, and DEFAULT of most
 * others would be the global value. */
static const Variable variables[] = {
    /* Transactions. */
    {"autocommit", "1", EVERYBODY, PINNED,
     "statements outside of a transaction are never committed"},
    {"completion_type", "NO_CHAIN", EVERYBODY, PINNED,
     "COMMIT opens another transaction, or ends the connection"},
    {"transaction_isolation", "READ-COMMITTED", MYSQL_ONLY, PINNED,
     "positions are read as they were, or gaps between rows are locked"},
    {"tx_isolation", "READ-COMMITTED", MARIADB_ONLY, PINNED,
     "positions are read as they were, or gaps between rows are locked"},
    {"transaction_read_only", "0", MYSQL_ONLY, PINNED, "nothing can be written"},
    {"tx_read_only", "0", MARIADB_ONLY, PINNED, "nothing can be written"},
    {"sql_log_bin", "1", NOT_VITESS, SEEN, "replicas never get the rows"},
    {"skip_replication", "0", MARIADB_ONLY, PINNED, "replicas may leave the rows out"},

    /* What a statement means. */
    {"sql_mode",
     "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
     "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO",
     EVERYBODY, PINNED,
     "values are changed to fit, 0 becomes the next number, or quotes and "
     "backslashes mean something else"},
    {"character_set_client", "utf8mb4", EVERYBODY, PINNED, "texts are stored mangled"},
    {"character_set_connection", "utf8mb4", EVERYBODY, PINNED, "texts are stored mangled"},
    {"character_set_results", "utf8mb4", EVERYBODY, PINNED, "texts are read mangled"},
    {"collation_connection", "utf8mb4_general_ci", EVERYBODY, PINNED,
     "texts that are no columns compare in another way"},
    {"time_zone", "+00:00", EVERYBODY, PINNED, "times are stored shifted"},
    {"timestamp", "DEFAULT", NOT_VITESS, SET, "the clock stands still"},
    {"insert_id", "0", NOT_VITESS, SEEN, "the next AUTO_INCREMENT value is not the table's"},
    {"foreign_key_checks", "1", EVERYBODY, PINNED, "rows may refer to rows that are not there"},
    {"unique_checks", "1", EVERYBODY, PINNED, "a unique key may have duplicates"},
    {"check_constraint_checks", "1", MARIADB_ONLY, PINNED, "CHECK constraints are not enforced"},
    {"explicit_defaults_for_timestamp", "1", EVERYBODY, PINNED,
     "a timestamp column that is made may change by itself, and NULL becomes the current time"},
    {"sql_if_exists", "0", MARIADB_ONLY, PINNED, "DDL succeeds on tables that are not there"},
    {"sql_auto_is_null", "0", EVERYBODY, PINNED, "IS NULL finds the row inserted last"},
    {"sql_safe_updates", "0", EVERYBODY, PINNED, "UPDATE and DELETE that join are refused"},
    /* Results of users' own `sql` statements: the same on every server. */
    {"div_precision_increment", "4", EVERYBODY, PINNED, "divisions have another scale"},
    {"group_concat_max_len", "16777216", EVERYBODY, PINNED, "GROUP_CONCAT is cut"},
    {"lc_time_names", "en_US", EVERYBODY, PINNED, "DATE_FORMAT speaks another language"},
    {"default_week_format", "0", EVERYBODY, PINNED, "WEEK counts in another way"},
    {"windowing_use_high_precision", "1", MYSQL_ITSELF, PINNED, "window functions lose digits"},
    {"old_mode", "UTF8_IS_UTF8MB3", MARIADB_10_6, PINNED,
     "a time becomes a date and time without a date, or utf8 is another character set"},
    {"lc_messages", "en_US", NOT_VITESS, PINNED,
     "a full disk is reported in a language that is not understood here"},
    {"default_regex_flags", "", MARIADB_ONLY, PINNED, "REGEXP matches something else"},
    {"max_recursive_iterations", "4294967295", MARIADB_ONLY, PINNED,
     "recursive queries are cut without an error"},

    /* Which rows a query returns. */
    {"sql_select_limit", "18446744073709551615", EVERYBODY, PINNED, "rows are left out"},
    {"sql_big_selects", "1", EVERYBODY, PINNED, "large joins are refused"},
    {"max_sort_length", "4096", EVERYBODY, PINNED, "long keys are not sorted to their end"},
    {"use_secondary_engine", "OFF", MYSQL_ITSELF, PINNED, "rows come from a copy that lags"},
    {"system_versioning_asof", "DEFAULT", MARIADB_ONLY, PINNED, "rows of the past are read"},

    /* Patience: other values make nothing wrong. */
    {"innodb_lock_wait_timeout", LOCK_WAIT, EVERYBODY, SET, "for rows; then 1205, and a retry"},
    {"lock_wait_timeout", LOCK_WAIT, EVERYBODY, SET, "for tables, which DDL has"},
    {"wait_timeout", "60", EVERYBODY, SET, "then a session without a client gives its locks back"},
    {"net_read_timeout", "60", EVERYBODY, SET, "large statements over slow lines break"},
    {"net_write_timeout", "60", EVERYBODY, SET, "large results over slow lines break"},
    {"max_execution_time", "0", MYSQL_ONLY, SET, "long comparisons break"},
    {"max_statement_time", "0", MARIADB_ONLY, SET, "long comparisons break"},
    {"idle_transaction_timeout", "0", MARIADB_ONLY, SET,
     "transactions that wait for MongoDB break"},
    {"idle_readonly_transaction_timeout", "0", MARIADB_ONLY, SET, "the same"},
    {"idle_write_transaction_timeout", "0", MARIADB_ONLY, SET, "the same"},
};

/* An executable comment: each server reads what it understands, even behind a proxy, whose own
 * version says nothing. MariaDB skips those for MySQL 8.0, MySQL all that begin with M. */
static const char *comment_for(const Variable *variable, Variant variant) {
  if (variant == VARIANT_VITESS)
    return "";
  switch (variable->servers) {
  case MYSQL_ONLY:
  case MYSQL_ITSELF: return "/*!80000 ";
  case MARIADB_ONLY: return "/*M!100000 ";
  case MARIADB_10_6: return "/*M!100601 ";
  case EVERYBODY:
  case NOT_VITESS: break;
  }
  return "";
}

static bool is_known(const Variable *variable, Variant variant) {
  return variant != VARIANT_VITESS || variable->servers == EVERYBODY ||
         variable->servers == MYSQL_ONLY;
}

static bool is_number(const char *value) {
  return *value && strspn(value, "0123456789") == strlen(value);
}

char *session_variables_set(Variant variant, unsigned lock_wait_s, bool clock) {
  char lock_wait[16];
  g_snprintf(lock_wait, sizeof lock_wait, "%u", lock_wait_s);
  GString *sql = g_string_new("SET SESSION ");
  for (size_t i = 0; i < G_N_ELEMENTS(variables); i++) {
    const Variable *variable = &variables[i];
    if (variable->how == SEEN || !is_known(variable, variant) ||
        (!clock && !strcmp(variable->name, "timestamp")))
      continue;
    const char *comment = comment_for(variable, variant);
    const char *value = strcmp(variable->value, LOCK_WAIT) ? variable->value : lock_wait;
    bool bare = is_number(value) || !strcmp(value, "DEFAULT");
    const char *quote = bare ? "" : "'";
    g_string_append_printf(sql, "%s%s%s = %s%s%s%s", comment, i ? ", " : "", variable->name, quote,
                           value, quote, *comment ? " */" : "");
  }
  return g_string_free(sql, FALSE);
}

char *session_variables_query(Variant variant) {
  GString *sql = g_string_new("SELECT VERSION(), @@max_allowed_packet, CONNECTION_ID()");
  for (size_t i = 0; i < G_N_ELEMENTS(variables); i++) {
    const Variable *variable = &variables[i];
    if (variable->how == SET || !is_known(variable, variant))
      continue;
    const char *comment = comment_for(variable, variant);
    g_string_append_printf(sql, "%s, @@SESSION.%s AS %s%s", comment, variable->name, variable->name,
                           *comment ? " */" : "");
  }
  return g_string_free(sql, FALSE);
}

/* Both are lists, in any order. */
static bool equal_sets(const char *a, const char *b) {
  g_auto(GStrv) left = g_strsplit(a, ",", -1);
  g_auto(GStrv) right = g_strsplit(b, ",", -1);
  bool equal = g_strv_length(left) == g_strv_length(right);
  for (char **name = left; *name && equal; name++)
    equal = g_strv_contains((const char *const *)right, *name);
  return equal;
}

static const Variable *find(const char *name) {
  for (size_t i = 0; i < G_N_ELEMENTS(variables); i++)
    if (!strcmp(variables[i].name, name))
      return &variables[i];
  return NULL;
}

bool session_variables_check(MYSQL_RES *result, MYSQL_ROW row, Failure *ret_failure) {
  const MYSQL_FIELD *fields = mysql_fetch_fields(result);
  for (unsigned i = 0; i < mysql_num_fields(result); i++) {
    const Variable *variable = find(fields[i].name);
    const char *value = row[i] ? row[i] : "NULL";
    if (variable && !equal_sets(value, variable->value))
      return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MYSQL, 0,
                         "the session's %s is %s, not %s, although it was %s: %s; is there a proxy "
                         "or `init_connect` that changes it?",
                         variable->name, value, variable->value,
                         variable->how == SEEN ? "left as it is" : "set", variable->reason);
  }
  return true;
}

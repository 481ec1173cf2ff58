/* session.c - connects to MySQL or MariaDB and runs statements. */
#include "projector/infra/mysql/session.h"

#include "projector/infra/host.h"
#include "projector/infra/mysql/session_variables.h"
#include "projector/infra/pulse.h"

#include <stdlib.h>
#include <string.h>

enum {
  WAKE_AFTER_MS = 20000, /* well before the server ends a silent session */
  HINT_MS = 5000,        /* a table may have been changed since */
  OLD_MS = 10000,        /* of a session that must not stay with a server that was replaced */
};

enum { PRIVILEGE_MISSING = 1227, OPTION_PREVENTS = 1290 };
enum { ACCESS_DENIED = 1045, PACKET_TOO_LARGE = 1153, TLS_FAILED = 2026, TLS_REQUIRED = 3159 };

enum {
  CONNECT_SECONDS = 5,
  ANSWER_SECONDS = 20, /* for an answer, beyond all waiting for locks */
};

enum {
  CLIENT_PACKET =
      1024 * 1024 * 1024, /* more than any server accepts, so only the server's limit counts */
  PACKET_RESERVE = 64,    /* what the clients add to a statement */
  PARAMETER_RESERVE = 16, /* of a bound value: its type, flag, and length or number */
};

struct Session {
  MYSQL *mysql;
  bool mariadb;
  char *server;
  unsigned long id;
  size_t packet_limit;
  int64_t opened_at, used_at; /* monotonic, us */
  GHashTable *statements;     /* text → MYSQL_STMT */
  GHashTable *hints;          /* table → text */
  int64_t hints_since;        /* the oldest of them; monotonic, us */
};

static bool fail_code(Failure *ret_failure, unsigned code, const char *message) {
  return failure_set(ret_failure, failure_class_of_mysql_text((int)code, message), SOURCE_MYSQL,
                     (int)code, "%s", message);
}

static bool fail(const Session *session, Failure *ret_failure) {
  return fail_code(ret_failure, mysql_errno(session->mysql), mysql_error(session->mysql));
}

static void statement_close(gpointer statement) {
  mysql_stmt_close(statement);
}

void session_close(Session *session) {
  if (!session)
    return;
  g_hash_table_unref(session->statements);
  g_hash_table_unref(session->hints);
  mysql_close(session->mysql);
  g_free(session->server);
  g_free(session);
}

bool mysql_is_local(const MysqlSettings *settings) {
  return settings->socket || host_is_local(settings->host);
}

const char *mysql_weakness(const MysqlSettings *settings) {
  if (settings->tls == TLS_INSECURE)
    return "mysql.tls: \"insecure\" does not verify the server's certificate: any server that "
           "answers gets the password and all rows";
  if (settings->tls == TLS_OFF && !mysql_is_local(settings))
    return "mysql.tls: \"off\" sends all rows to another host in plain text, and a man in the "
           "middle can obtain the password";
  return NULL;
}

/* Every mode is set explicitly: the defaults differ between clients and versions (Oracle's encrypts
 * if it can, without verification; MariaDB's 3.4 verifies). */
static void set_tls(MYSQL *mysql, const MysqlSettings *settings) {
#ifdef MARIADB_BASE_VERSION
  my_bool enforce = settings->tls != TLS_OFF, verify = settings->tls == TLS_VERIFY;
  mysql_optionsv(mysql, MYSQL_OPT_SSL_ENFORCE, &enforce);
  mysql_optionsv(mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
  if (verify && settings->tls_ca)
    mysql_optionsv(mysql, MYSQL_OPT_SSL_CA, settings->tls_ca);
#if MARIADB_PACKAGE_VERSION_ID < 30400
  /* Without verification these clients log in to a server without TLS in plain text, unless there
   * is a fingerprint. An empty one is not compared with anything; later clients do compare it. */
  if (settings->tls == TLS_INSECURE)
    mysql_optionsv(mysql, MARIADB_OPT_TLS_PEER_FP, "");
#endif
#else
  static const unsigned modes[] = {[TLS_OFF] = SSL_MODE_DISABLED,
                                   [TLS_VERIFY] = SSL_MODE_VERIFY_IDENTITY,
                                   [TLS_INSECURE] = SSL_MODE_REQUIRED};
  /* caching_sha2_password without TLS: the password is encrypted with a key that the server sends.
   * MariaDB's client always asks for that key. */
  bool get_key = settings->tls == TLS_OFF;
  mysql_options(mysql, MYSQL_OPT_SSL_MODE, &modes[settings->tls]);
  mysql_options(mysql, MYSQL_OPT_GET_SERVER_PUBLIC_KEY, &get_key);
  /* This client has no list of authorities; MariaDB's asks OpenSSL, which takes this variable. With
   * an authority it would verify even where it need not. */
  const char *ca = settings->tls_ca ? settings->tls_ca : g_getenv("SSL_CERT_FILE");
  if (settings->tls == TLS_VERIFY)
    mysql_options(mysql, ca ? MYSQL_OPT_SSL_CA : MYSQL_OPT_SSL_CAPATH, ca ? ca : "/etc/ssl/certs");
#endif
}

static unsigned answer_seconds_of(const MysqlSettings *settings) {
  return settings->answer_s ? settings->answer_s : settings->lock_wait_s + ANSWER_SECONDS;
}

static void set_options(MYSQL *mysql, const MysqlSettings *settings) {
  unsigned connect_seconds = settings->answer_s ? settings->answer_s : CONNECT_SECONDS, off = 0;
  unsigned answer_seconds = answer_seconds_of(settings);
  unsigned long packet = CLIENT_PACKET;
  mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &connect_seconds);
  mysql_options(mysql, MYSQL_OPT_READ_TIMEOUT, &answer_seconds);
  mysql_options(mysql, MYSQL_OPT_WRITE_TIMEOUT, &answer_seconds);
  mysql_options(mysql, MYSQL_OPT_MAX_ALLOWED_PACKET, &packet);
  mysql_options(mysql, MYSQL_OPT_LOCAL_INFILE, &off);
  mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
  set_tls(mysql, settings);
}

/* What the server says about itself when it greets; a proxy may say something else. */
static Variant variant_of(const Session *session) {
  return strstr(mysql_get_server_info(session->mysql), "itess") ? VARIANT_VITESS
                                                                : VARIANT_MYSQL_OR_MARIADB;
}

static bool is_in_transaction(const Session *session) {
  return session->mysql->server_status & SERVER_STATUS_IN_TRANS;
}

/* Any other number comes from a server, or a proxy, that refuses to work for now. */
static bool refuses_variable(int code) {
  return code == 1064 || code == 1193 || (code >= 1228 && code <= 1238) || code == 1568;
}

static bool try_variables(Session *session, const MysqlSettings *settings, bool clock,
                          Failure *ret_failure) {
  g_autofree char *sql = session_variables_set(variant_of(session), settings->lock_wait_s, clock);
  *ret_failure = (Failure){0};
  return session_execute(session, sql, strlen(sql), NULL, ret_failure);
}

static bool forbids_clock(const Failure *failure) {
  return failure->code == OPTION_PREVENTS || failure->code == PRIVILEGE_MISSING;
}

/* Some variables cannot be set within a transaction, which only `init_connect` can have begun. A
 * server that refuses a value names the variable, and no event can succeed. */
static bool set_variables(Session *session, const MysqlSettings *settings, Failure *ret_failure) {
  bool good = try_variables(session, settings, true, ret_failure);
  if (!good) {
    session_rollback(session);
    good = try_variables(session, settings, !forbids_clock(ret_failure), ret_failure);
  }
  if (good && is_in_transaction(session))
    session_rollback(session);
  if (!good && refuses_variable(ret_failure->code))
    ret_failure->class = FAILURE_CONFIG;
  return good || failure_prefix(ret_failure, "cannot set up the session");
}

static bool set_up(Session *session, const MysqlSettings *settings, Failure *ret_failure) {
  if (!set_variables(session, settings, ret_failure))
    return false;
  g_autofree char *query = session_variables_query(variant_of(session));
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!row)
    return result ? fail_code(ret_failure, 2013, "no answer to SELECT VERSION()") : false;
  session->mariadb = strstr(row[0], "MariaDB") != NULL;
  session->server = g_strdup_printf("%s %s", session->mariadb ? "MariaDB" : "MySQL", row[0]);
  session->packet_limit = g_ascii_strtoull(row[1], NULL, 10);
  session->id = strtoul(row[2], NULL, 10);
  if (!session_variables_check(result, row, ret_failure))
    return false;
  /* again: `init_connect` may have chosen another one */
  return mysql_select_db(session->mysql, settings->database) == 0 || fail(session, ret_failure);
}

/* MySQL's own message never says enough to solve the problem. */
static void explain_tls(const MysqlSettings *settings, Failure *failure) {
  static const char *const advice[] = {
      [TLS_OFF] = "mysql.tls is \"off\": if the user has REQUIRE SSL, or the server "
                  "require_secure_transport, it wants \"verify\"",
      [TLS_VERIFY] =
          "mysql.tls is \"verify\", the default outside of this machine: the server needs a "
          "certificate for this host name, and mysql.tls_ca the file of its authority",
      [TLS_INSECURE] = "mysql.tls is \"insecure\": the server needs some certificate"};
  bool wanted = failure->code == ACCESS_DENIED || failure->code == TLS_REQUIRED;
  if (settings->tls == TLS_OFF ? !wanted : failure->code != TLS_FAILED)
    return;
  char cause[sizeof failure->message];
  g_strlcpy(cause, failure->message, sizeof cause);
  failure_set(failure, failure->class, SOURCE_MYSQL, failure->code, "%s; %s", cause,
              advice[settings->tls]);
}

/* A session that cannot even log in has run no statement of an event, so an error that no table
 * lists is an outage. */
static Session *refuse(const MysqlSettings *settings, Failure *failure) {
  if (failure->class == FAILURE_UNKNOWN)
    failure->class = FAILURE_UNAVAILABLE;
  explain_tls(settings, failure);
  failure_prefix(failure, "%s:%u", settings->host, settings->port);
  return NULL;
}

Session *session_open(const MysqlSettings *settings, Failure *ret_failure) {
  g_autoptr(Session) session = g_new0(Session, 1);
  session->statements = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, statement_close);
  session->hints = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  session->opened_at = g_get_monotonic_time();
  session->mysql = mysql_init(NULL);
  if (!session->mysql)
    g_error("out of memory");
  set_options(session->mysql, settings);
  /* the clients use the socket only when the host has this name */
  const char *host = settings->socket ? "localhost" : settings->host;
  bool connected = mysql_real_connect(session->mysql, host, settings->user, settings->password,
                                      settings->database, settings->port, settings->socket,
                                      CLIENT_FOUND_ROWS) != NULL;
  pulse_move();
  if (!connected) {
    fail(session, ret_failure);
    return refuse(settings, ret_failure);
  }
  if (settings->tls != TLS_OFF && !mysql_get_ssl_cipher(session->mysql)) {
    fail_code(ret_failure, TLS_FAILED, "the connection is not encrypted");
    return refuse(settings, ret_failure);
  }
  if (!set_up(session, settings, ret_failure))
    return refuse(settings, ret_failure);
  return g_steal_pointer(&session);
}

bool session_is_mariadb(const Session *session) {
  return session->mariadb;
}

const char *session_server(const Session *session) {
  return session->server;
}

size_t session_packet_limit(const Session *session) {
  return session->packet_limit;
}

const char *session_cipher(const Session *session) {
  const char *cipher = mysql_get_ssl_cipher(session->mysql);
  return cipher ? cipher : "";
}

int64_t session_idle_ms(const Session *session) {
  return (g_get_monotonic_time() - session->used_at) / 1000;
}

static bool replace(Session **session, const MysqlSettings *settings, Failure *ret_failure) {
  Session *fresh = session_open(settings, ret_failure);
  if (!fresh)
    return false;
  session_close(*session);
  *session = fresh;
  return true;
}

int64_t session_answer_ms(const MysqlSettings *settings) {
  return answer_seconds_of(settings) * (int64_t)1000;
}

bool session_wake(Session **session, const MysqlSettings *settings, Failure *ret_failure) {
  return session_idle_ms(*session) < WAKE_AFTER_MS || replace(session, settings, ret_failure);
}

bool session_follow(Session **session, const MysqlSettings *settings, Failure *ret_failure) {
  if (*session && g_get_monotonic_time() - (*session)->opened_at < (int64_t)OLD_MS * 1000)
    return true;
  g_clear_pointer(session, session_close);
  *session = session_open(settings, ret_failure);
  return *session != NULL;
}

/* The server answers a packet that reaches its limit by cutting the connection, which looks like an
 * outage, so such a packet is never sent. While the session is set up, the limit is not known
 * yet. */
static bool fits_packet(const Session *session, size_t bytes, Failure *ret_failure) {
  if (session->packet_limit == 0 || bytes + PACKET_RESERVE <= session->packet_limit)
    return true;
  return failure_set(ret_failure, FAILURE_SIZE, SOURCE_MYSQL, PACKET_TOO_LARGE,
                     "needs a statement of %zu bytes; the server's max_allowed_packet is %zu",
                     bytes, session->packet_limit);
}

static size_t bytes_of(const MYSQL_BIND *parameters, unsigned count) {
  size_t bytes = 0;
  for (unsigned i = 0; i < count; i++)
    bytes += PARAMETER_RESERVE + (parameters[i].length ? *parameters[i].length : 0);
  return bytes;
}

static bool send_statement(Session *session, const char *sql, size_t length, Failure *ret_failure) {
  if (!fits_packet(session, length, ret_failure))
    return false;
  session->used_at = g_get_monotonic_time();
  bool good = mysql_real_query(session->mysql, sql, length) == 0;
  pulse_move();
  return good || fail(session, ret_failure);
}

bool session_execute(Session *session, const char *sql, size_t length, uint64_t *ret_affected,
                     Failure *ret_failure) {
  if (!send_statement(session, sql, length, ret_failure))
    return false;
  if (mysql_field_count(session->mysql) > 0) { /* an unexpected result */
    MYSQL_RES *result = mysql_store_result(session->mysql);
    if (result)
      mysql_free_result(result);
  }
  if (ret_affected)
    *ret_affected = mysql_affected_rows(session->mysql);
  return true;
}

bool session_run(Session *session, Failure *ret_failure, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *sql = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  return session_execute(session, sql, strlen(sql), NULL, ret_failure);
}

MYSQL_RES *session_query(Session *session, const char *sql, size_t length, Failure *ret_failure) {
  if (!send_statement(session, sql, length, ret_failure))
    return NULL;
  MYSQL_RES *result = mysql_store_result(session->mysql);
  if (!result)
    fail(session, ret_failure);
  return result;
}

MYSQL_RES *session_query_current(Session *session, const char *sql, size_t length,
                                 Failure *ret_failure) {
  if (!session_run(session, ret_failure, "START TRANSACTION"))
    return NULL;
  MYSQL_RES *result = session_query(session, sql, length, ret_failure);
  session_rollback(session);
  return result;
}

int64_t session_insert_id(Session *session) {
  return (int64_t)mysql_insert_id(session->mysql);
}

char *session_ask(Session *session, Failure *ret_failure, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  g_autofree char *sql = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  g_autoptr(MYSQL_RES) result = session_query(session, sql, strlen(sql), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  return row ? g_strdup(row[0] ? row[0] : "") : NULL;
}

bool session_send(Session *session, const char *sql, Failure *ret_failure) {
  session->used_at = g_get_monotonic_time();
  return mysql_send_query(session->mysql, sql, strlen(sql)) == 0 || fail(session, ret_failure);
}

bool session_await(Session *session, Failure *ret_failure) {
  return mysql_read_query_result(session->mysql) == 0 || fail(session, ret_failure);
}

unsigned long session_id(const Session *session) {
  return session->id;
}

void session_rollback(Session *session) {
  mysql_rollback(session->mysql);
}

void session_keep_hint(Session *session, const char *table, const char *hint) {
  if (g_hash_table_size(session->hints) == 0)
    session->hints_since = g_get_monotonic_time();
  g_hash_table_insert(session->hints, g_strdup(table), g_strdup(hint));
}

const char *session_hint(const Session *session, const char *table) {
  return g_hash_table_lookup(session->hints, table);
}

void session_forget_old_hints(Session *session) {
  if (g_get_monotonic_time() - session->hints_since > (int64_t)HINT_MS * 1000)
    session_forget_hints(session);
}

void session_forget_hints(Session *session) {
  g_hash_table_remove_all(session->hints);
}

static MYSQL_STMT *prepare(Session *session, const char *sql, Failure *ret_failure) {
  MYSQL_STMT *statement = g_hash_table_lookup(session->statements, sql);
  if (statement)
    return statement;
  statement = mysql_stmt_init(session->mysql);
  if (!statement)
    g_error("out of memory");
  bool good = mysql_stmt_prepare(statement, sql, strlen(sql)) == 0;
  pulse_move();
  if (!good) {
    fail_code(ret_failure, mysql_stmt_errno(statement), mysql_stmt_error(statement));
    mysql_stmt_close(statement);
    return NULL;
  }
  g_hash_table_insert(session->statements, g_strdup(sql), statement);
  return statement;
}

bool session_can_prepare(Session *session, const char *sql, Failure *ret_failure) {
  MYSQL_STMT *statement = mysql_stmt_init(session->mysql);
  if (!statement)
    g_error("out of memory");
  bool good = !mysql_stmt_prepare(statement, sql, strlen(sql)) ||
              fail_code(ret_failure, mysql_stmt_errno(statement), mysql_stmt_error(statement));
  mysql_stmt_close(statement);
  return good;
}

bool session_execute_bound(Session *session, const char *sql, MYSQL_BIND *parameters,
                           unsigned count, uint64_t *ret_affected, Failure *ret_failure) {
  session->used_at = g_get_monotonic_time();
  MYSQL_STMT *statement = prepare(session, sql, ret_failure);
  if (!statement)
    return false;
  if (mysql_stmt_param_count(statement) != count)
    return failure_set(ret_failure, FAILURE_MAPPING, SOURCE_MYSQL, 0,
                       "the statement has %lu parameters, not %u",
                       mysql_stmt_param_count(statement), count);
  if (!fits_packet(session, bytes_of(parameters, count), ret_failure))
    return false;
  bool good = (count == 0 || !mysql_stmt_bind_param(statement, parameters)) &&
              !mysql_stmt_execute(statement);
  pulse_move();
  if (!good)
    return fail_code(ret_failure, mysql_stmt_errno(statement), mysql_stmt_error(statement));
  *ret_affected = mysql_stmt_affected_rows(statement);
  mysql_stmt_free_result(statement);
  return true;
}

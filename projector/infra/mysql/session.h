/* session.h - a connection to MySQL or MariaDB, always set up in the same way.
 *
 * Every variable that matters is set and read back (session_variables.h: strict sql_mode, utf8mb4,
 * UTC, READ COMMITTED …); found rows instead of changed rows; no multi-statements, no LOCAL INFILE,
 * no silent reconnect. A session belongs to one thread. */
#pragma once

#include "projector/domain/failure.h"

#include <glib.h>
#include <mysql.h>

typedef enum TlsMode {
  TLS_OFF,      /* plain text, never anything else; the default to this machine itself */
  TLS_VERIFY,   /* certificate and host name are verified; the default to any other */
  TLS_INSECURE, /* encrypted, but the server's identity is not verified */
} TlsMode;

typedef struct MysqlSettings {
  const char *host, *user, *password, *database;
  const char *socket; /* NULL: TCP */
  unsigned port;
  TlsMode tls;
  const char *tls_ca;   /* file, NULL: the system's */
  unsigned answer_s;    /* time limit for connecting and for each answer; 0: the defaults */
  unsigned lock_wait_s; /* for a row, or for a table that DDL holds; then 1205 */
} MysqlSettings;

typedef struct Session Session;

/* Whether the connection stays on this machine: a socket, or a loopback address by name or
 * number. */
bool mysql_is_local(const MysqlSettings *settings);
/* The weakness of the settings against a man in the middle, as a message; NULL: none. */
const char *mysql_weakness(const MysqlSettings *settings);

Session *session_open(const MysqlSettings *settings, Failure *ret_failure);
void session_close(Session *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Session, session_close)

bool session_is_mariadb(const Session *session);
/* "MySQL 9.7.4" */
const char *session_server(const Session *session);
/* Longest statement that the server accepts, in bytes. A longer one is refused as FAILURE_SIZE and
 * never sent. */
size_t session_packet_limit(const Session *session);
/* "" when the connection is not encrypted. */
const char *session_cipher(const Session *session);
/* The server ends a session that is silent for long: this replaces it before that happens. Returns
 * false when no new session can be opened; the old one stays. */
bool session_wake(Session **session, const MysqlSettings *settings, Failure *ret_failure);
/* For a session that only looks: opens it, and opens another in place of one that is older than 10
 * s. Behind a router the address may lead to another server by then, and the old session would go
 * on asking the former one, which answers everything that is only a look. */
bool session_follow(Session **session, const MysqlSettings *settings, Failure *ret_failure);
/* How long a statement may take: then the connection counts as broken. */
int64_t session_answer_ms(const MysqlSettings *settings);
/* How long the session has been idle, in ms; the server closes one after a minute. */
int64_t session_idle_ms(const Session *session);

/* Runs a statement without a result. `ret_affected` may be NULL; rows that matched count. */
bool session_execute(Session *session, const char *sql, size_t length, uint64_t *ret_affected,
                     Failure *ret_failure);
/* The same for a NUL-terminated text, formatted with g_strdup_vprintf. Never for data. */
bool session_run(Session *session, Failure *ret_failure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Runs a query and stores its whole result; free with mysql_free_result. */
MYSQL_RES *session_query(Session *session, const char *sql, size_t length, Failure *ret_failure);
/* The same in a transaction of its own, which a proxy that sends reads elsewhere does not send to a
 * replica that lags. For what decides whether something is missing. */
MYSQL_RES *session_query_current(Session *session, const char *sql, size_t length,
                                 Failure *ret_failure);
/* What LAST_INSERT_ID(expression) was in the last statement, as its answer told; 0: it had none. */
int64_t session_insert_id(Session *session);
/* The first column of the first row of a query, formatted as in session_run; "" for NULL. Returns
 * NULL on failure, and with class NONE when there is no row. Free with g_free. */
char *session_ask(Session *session, Failure *ret_failure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Sends a statement without a result and does not wait for the answer; session_await has to be the
 * next call on the session. */
bool session_send(Session *session, const char *sql, Failure *ret_failure);
bool session_await(Session *session, Failure *ret_failure);
/* The number by which the server knows the session; a proxy greets with a number of its own. */
unsigned long session_id(const Session *session);
/* ROLLBACK; a session that cannot even do that is broken and will fail at its next use. */
void session_rollback(Session *session);

/* Cached knowledge about a table's keys, until a statement fails, or for some seconds, because no
 * statement need fail when the table is altered (catalog.h); both texts are copied. NULL: none. */
void session_keep_hint(Session *session, const char *table, const char *hint);
const char *session_hint(const Session *session, const char *table);
void session_forget_hints(Session *session);
/* Call while no hint is in use. */
void session_forget_old_hints(Session *session);

/* Whether the server would run the statement: it is parsed, its tables and columns are looked up
 * and the user's privileges checked. It is not run. */
bool session_can_prepare(Session *session, const char *sql, Failure *ret_failure);

/* Runs a prepared statement, prepared once per text, with `count` bound parameters. */
bool session_execute_bound(Session *session, const char *sql, MYSQL_BIND *parameters,
                           unsigned count, uint64_t *ret_affected, Failure *ret_failure);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(MYSQL_RES, mysql_free_result)

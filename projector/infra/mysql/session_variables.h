/* session_variables.h - sets every session variable that matters, whatever the server's defaults.
 *
 * A server gives a new session the global values, and to users without special privileges whatever
 * `init_connect` sets. Each variable that can change the meaning, the order or the atomicity of
 * statements is set after connecting and read back. The table of them is in the source. */
#pragma once

#include "projector/infra/mysql/session.h"

typedef enum Variant {
  VARIANT_MYSQL_OR_MARIADB, /* executable comments let each server take what it knows */
  VARIANT_VITESS,           /* knows fewer variables, and refuses the others */
} Variant;

/* One statement that sets them all; free with g_free. `lock_wait_s` bounds waits for locks. Without
 * `clock`, the clock's variable is left out: MariaDB's secure_timestamp forbids everybody, or
 * whoever lacks a privilege, to set it, so nobody else can have set it for this session either. */
char *session_variables_set(Variant variant, unsigned lock_wait_s, bool clock);

/* A query for VERSION(), @@max_allowed_packet, CONNECTION_ID() and then the variables; free with
 * g_free. */
char *session_variables_query(Variant variant);

/* Whether the row, the result of that query, has the values that were set. The failure is
 * FAILURE_CONFIG and names the first variable that differs. */
bool session_variables_check(MYSQL_RES *result, MYSQL_ROW row, Failure *ret_failure);

/* inspect.h - what `check` wants to know of the MySQL server. */
#pragma once

#include "projector/infra/mysql/session.h"

typedef struct MysqlFacts {
  char tls[64];           /* "TLSv1.3, " and the cipher; "": the connection is not encrypted */
  int64_t clock_ahead_ms; /* of ours */
  bool strict;            /* our session's sql_mode refuses what does not fit */
  bool read_only;
} MysqlFacts;

bool mysql_inspect(Session *session, MysqlFacts *ret_facts, Failure *ret_failure);

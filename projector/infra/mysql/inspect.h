/* inspect.h - properties of the MySQL server for `check`. */
#pragma once

#include "projector/infra/mysql/session.h"

typedef struct MysqlFacts {
  char tls[64];           /* "TLSv1.3, " and the cipher; "": the connection is not encrypted */
  int64_t clock_ahead_ms; /* of ours */
  bool strict;            /* the session's sql_mode refuses values that do not fit */
  bool read_only;
  bool in_group;              /* a member of MySQL Group Replication, with */
  bool group_has_one_primary; /* single-primary mode, and */
  char group_consistency[40]; /* group_replication_consistency */
} MysqlFacts;

/* How far the server's doubles in json columns may be off (domain/real.h); asked with a probe. */
bool mysql_json_slack(Session *session, unsigned *ret_slack, Failure *ret_failure);

bool mysql_inspect(Session *session, MysqlFacts *ret_facts, Failure *ret_failure);

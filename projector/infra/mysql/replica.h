/* replica.h - how far a replica is, judged by its copy of the ledger: this needs no privilege but
 * to read that table. */
#pragma once

#include "projector/infra/mysql/ledger.h"

/* Settings of a session with the replica "host:port", of the same user; points into `*ret_host`. */
MysqlSettings replica_settings(const MysqlSettings *primary, const char *address, char **ret_host);

/* The time of the newest entry of that projector in the server's ledger; "": it has none. */
bool replica_newest(Session *session, const char *name, char ret_time[static LEDGER_TIME_SIZE],
                    Failure *ret_failure);

typedef struct ReplicaFacts {
  bool is_primary;  /* it is the same server */
  bool is_behind;   /* the primary has newer entries */
  bool is_empty;    /* it has no entry, and the primary has some */
  bool is_stranger; /* its newest entry is none of the primary's */
} ReplicaFacts;

/* For `check`; both sessions are the projector's. */
bool replica_inspect(Session *primary, Session *replica, const char *name, ReplicaFacts *ret_facts,
                     Failure *ret_failure);

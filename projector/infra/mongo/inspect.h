/* inspect.h - properties of the deployment and the user's privileges for `check`. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef struct MongoFacts {
  bool tls;
  bool local;           /* every host of the connection string is this machine */
  const char *weakness; /* as of mongo_uri_weakness; NULL: none */
  bool has_user;        /* false: no login */
  bool pinned;          /* the driver knows one member of several, and finds no other */
  bool is_primary;      /* the member that was asked */
  unsigned members;     /* of the replica set; 0: a sharded cluster */
  char member[256], set[128];
  int64_t clock_ahead_ms;  /* of ours */
  int64_t majority_lag_ms; /* how far a majority is behind the newest write; -1: not told */
  int64_t oplog_ms;        /* how far the oplog reaches back; -1: not visible to this user */
  bool oplog_full;         /* and begins to forget; false also when it is not visible */
} MongoFacts;

bool mongo_inspect(MongoStore *store, MongoFacts *ret_facts, Failure *ret_failure);

/* Those of the actions (NULL-terminated) that no role of the user gives on the collection; empty
 * without access control. Strings are the caller's `actions`. NULL: the server could not be
 * asked. */
GPtrArray *mongo_missing_actions(MongoStore *store, const char *collection,
                                 const char *const *actions, Failure *ret_failure);

/* status.h - what is in the outbox, who works, how far behind: for `status`, HTTP and the log. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/feeds.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox.h"

/* Of one store, for whoever wants to use it now. */
typedef struct StoreState {
  Failure failure;  /* class NONE: it can be used */
  bool reachable;   /* it answers, if only to refuse */
  int64_t since_ms; /* of the failure, ms since 1970; 0: none, or not known */
  char server[128];
} StoreState;

typedef struct Status {
  const char *name;
  OutboxCounts counts;
  LeaseView lease;
  int64_t blocked; /* aggregates behind a failed or dead event */
  unsigned feed_count;
  FeedView feeds[FEEDS_MAX];
  StoreState mongodb, mysql;
  bool knows_lag; /* this process is the owner: */
  int64_t lag_ms; /* how long the oldest event has waited */
} Status;

/* Counts the outbox and looks at the lease. */
bool status_ask_mongodb(Status *status, MongoStore *store, Outbox *outbox, Failure *ret_failure);
/* Whether MySQL takes what is written, tried without writing. The session is opened when there is
 * none, and closed when it is broken. */
void status_ask_mysql(StoreState *state, const MysqlSettings *settings, Session **session);

/* What the owner meets at a store that answers us: a full disk lets a probe through. */
void status_take_trouble(Status *status, const Failure *trouble, int64_t since_ms);

/* How long the oldest event that still has to be applied has been waiting since it could be read,
 * by MongoDB's clock: as the owner knows it, or at most, since the last one told that all was
 * settled. */
int64_t status_lag_ms(const Status *status);
/* The age of the oldest event, by its writer's clock. */
int64_t status_oldest_age_ms(const Status *status);
/* "running", "stopped", or "unknown" when MongoDB does not answer. */
const char *status_state(const Status *status);
/* The object of `status --json`; free it. */
json_t *status_json(const Status *status);

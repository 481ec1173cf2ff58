/* status.h - outbox, owner and lag: for `status`, HTTP and the log. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/feeds.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox_state.h"
#include "projector/infra/mongo/receipts.h"

/* The state of one store. */
typedef struct StoreState {
  Failure failure;  /* class NONE: it can be used */
  bool reachable;   /* it answers, even if it refuses */
  int64_t since_ms; /* of the failure, ms since 1970; 0: none, or not known */
  char server[128];
} StoreState;

typedef struct Status {
  const char *name;
  int64_t future_ms; /* the setting */
  bool counted;      /* MongoDB has answered: what follows is known */
  OutboxCounts counts;
  LeaseView lease;
  int64_t blocked; /* aggregates behind a failed or dead event */
  unsigned feed_count;
  FeedSource source; /* of the outbox, when that is a feed */
  FeedView feeds[FEEDS_MAX];
  int64_t receipts; /* of executed commands; -1: not known */
  StoreState mongodb, mysql;
  bool knows_lag; /* this process is the owner: */
  int64_t lag_ms; /* how long the oldest event has waited */
} Status;

/* Counts the outbox and reads the lease. */
bool status_ask_mongodb(Status *status, MongoStore *store, Outbox *outbox, Failure *ret_failure);
/* Whether MySQL accepts writes. `write`: tested by one that is committed; otherwise without
 * writing, which costs the server less and does not see that a COMMIT hangs. Opens the session if
 * there is none, and closes it when it is old or anything is refused. */
void status_ask_mysql(StoreState *state, const MysqlSettings *settings, const char *projector,
                      bool write, Session **session);

/* The owner's trouble with a store that answers this process: a full disk lets a probe through. */
void status_take_trouble(Status *status, const Failure *trouble, int64_t since_ms);

/* How long the oldest unapplied event has been readable, by MongoDB's clock: as the owner reports
 * it, or at most the time since the last owner reported that everything was settled. */
int64_t status_lag_ms(const Status *status);
/* The age of the oldest event, by its writer's clock. */
int64_t status_oldest_age_ms(const Status *status);
/* "running", "stopped", or "unknown" when MongoDB does not answer. */
const char *status_state(const Status *status);
/* The object of `status --json`; free it. */
json_t *status_json(const Status *status);

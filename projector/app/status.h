/* status.h - what is in the outbox, who works, how far behind: for `status`, HTTP and the log. */
#pragma once

#include "projector/app/config.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/outbox.h"

typedef struct Status {
  const char *name;
  OutboxCounts counts;
  LeaseView lease;
  int64_t blocked;        /* aggregates behind a failed or dead event */
  Failure mongodb, mysql; /* class NONE: reached */
  char mongodb_server[128], mysql_server[128];
} Status;

/* Each fills its part; a failure goes into it too. */
void status_ask_mongodb(Status *status, MongoStore *store, Outbox *outbox);
/* The session says which server it is. */
void status_ask_mysql(Status *status, const Session *session);

/* How long the oldest event that still has to be applied has been waiting. */
int64_t status_lag_ms(const Status *status);
/* "running", "stopped", or "unknown" when MongoDB does not answer. */
const char *status_state(const Status *status);
/* The object of `status --json`; free it. */
json_t *status_json(const Status *status);

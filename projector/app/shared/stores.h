/* stores.h - the two stores as a command reaches them, and the memory of a batch. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

/* Memory of one batch: values, and the events that they point into. */
typedef struct Pool {
  Arena *arena;
  GPtrArray *events; /* of Event, owned */
} Pool;

Pool pool_new(void);
void pool_reset(Pool *pool);
void pool_free(Pool *pool);
Event *pool_keep(Pool *pool, Event *event);

/* The two stores, as one thread reaches them. */
typedef struct Stores {
  const Config *config;
  MongoStore *store;
  Outbox *outbox;
  Session *session;
  Ledger ledger;
  unsigned json_slack; /* of MySQL (domain/real.h) */
} Stores;

/* `command`: as for outbox_new_for_command. */
bool stores_open(const Config *config, const char *command, Stores *ret_stores,
                 Failure *ret_failure);
void stores_close(Stores *stores);
/* The server closes sessions that are idle for long; this opens a new one before that happens. */
bool stores_wake(Stores *stores, Failure *ret_failure);

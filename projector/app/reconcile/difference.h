/* difference.h - what reconcile has found, and where it looks. */
#pragma once

#include "projector/app/config.h"
#include "projector/domain/diff.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Difference {
  DifferenceKind kind;
  const Layout *layout;       /* of the projection; NULL: of an event */
  const Aggregate *aggregate; /* NULL: the row does not tell */
  const char *entity_id;      /* of an entity that can have no aggregate, as text; or NULL */
  const Value *key;           /* of the row, or NULL */
  int64_t version;            /* of the entity; 0: none */
  int64_t applied;            /* highest version applied; 0: none */
  const Expected *expected;   /* with `row`, for different columns */
  const Value *row;
  Event *event;        /* of an event */
  const char *reason;  /* or NULL */
  const char *keep;    /* why --repair must leave it, or NULL */
  const char *outcome; /* what --repair did; NULL: nothing was tried */
  bool mended;
} Difference;

/* Memory of one batch: values, and the events that they point into. */
typedef struct Pool {
  Arena *arena;
  GPtrArray *events; /* of Event, owned */
} Pool;

Pool pool_new(void);
void pool_reset(Pool *pool);
void pool_free(Pool *pool);
Event *pool_keep(Pool *pool, Event *event);

/* Takes a batch of differences as they are settled. False ends the comparison. */
typedef bool (*DifferenceSink)(Difference *differences, size_t count, void *data,
                               Failure *ret_failure);

/* The two stores, as one thread reaches them. */
typedef struct Sides {
  const Config *config;
  MongoStore *store;
  Outbox *outbox;
  Session *session;
  Ledger ledger;
  unsigned json_slack; /* of MySQL (domain/real.h) */
} Sides;

bool sides_open(const Config *config, Sides *ret_sides, Failure *ret_failure);
void sides_close(Sides *sides);
/* The server ends a session that is silent for long; this opens a new one before it does. */
bool sides_wake(Sides *sides, Failure *ret_failure);

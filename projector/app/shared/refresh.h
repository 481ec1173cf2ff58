/* refresh.h - takes aggregates' rows from their current entities: the one repair operation. */
#pragma once

#include "projector/domain/event.h"
#include "projector/domain/mapping.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Refresh {
  const Aggregate *aggregate;
  Event *late;        /* the event that asked for it, or NULL: into the ledger as superseded */
  bool entity_needed; /* fail if the entity does not exist, rather than delete its rows */
  bool leave_waiting; /* while a soft delete of a gone entity waits, nothing is done: the row is
                         left to it, and to what waits before it */
  GPtrArray *remove;  /* of Change: rows that no entity has, deleted before; or NULL */
  GPtrArray *purge;   /* of Change: rows without an entity, whose children are deleted too */
  bool rewind;        /* the position may be ahead of the entity: it is set back */
  int64_t version;    /* the version that the rows show now */
  bool marked;        /* of `remove` at least one row stays, marked as deleted */
  int64_t doubtful;   /* of a late event: others that wait without a version, and count; the row
                         may contain them */
  Failure failure;    /* class NONE, or why this one was not refreshed */
  const Projection *culprit; /* whose rows made all of them fail, or NULL */
  const char *prefetched;    /* the collection that a Prefetch has read, or NULL: */
  GPtrArray *events;         /* of Event: the aggregate's in the outbox */
  const bson_t *entity;      /* NULL: there is none */
} Refresh;

/* Reads what many refreshes need at once. `read` is called when the fence is held; it reads events
 * before entities, and what it reads lives until the transaction is over. It may leave refreshes
 * unchanged. */
typedef struct Prefetch {
  bool (*read)(void *data, Refresh *refreshes, size_t count, Failure *ret_failure);
  void *data;
} Prefetch;

typedef struct RefreshWith {
  Session *session;
  const Ledger *ledger;
  Outbox *outbox;
  const Mapping *mapping;
  const Prefetch *prefetch; /* or NULL */
} RefreshWith;

/* Reads the entities, each at most once, writes the whole row of every projection of the
 * aggregate's type (or deletes it when the entity is gone) and sets the position to the entity's
 * version; events at or below it are superseded from then on. One transaction. Returns false when
 * nothing was written. Needs `entities` in each of these projections. */
bool refresh_aggregates(const RefreshWith *with, Refresh *refreshes, size_t count,
                        Failure *ret_failure);

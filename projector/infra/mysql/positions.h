/* positions.h - walks through the positions of one aggregate type, in small steps.
 *
 * There is a position for every aggregate ever seen, and few of them may be wanted. So each
 * statement scans a range of the primary key that is bounded, however little it finds. */
#pragma once

#include "projector/domain/arena.h"
#include "projector/domain/event.h"
#include "projector/infra/mysql/session.h"

typedef struct PositionQuery {
  const char *projector, *aggregate_type;
  const char *join;      /* SQL: what is joined to the position, `p` */
  const char *condition; /* SQL: which positions are wanted */
  unsigned limit;        /* that many at a time, at most */
} PositionQuery;

typedef struct PositionFound {
  Aggregate aggregate;
  int64_t refreshed_version; /* 0: the row was never refreshed */
} PositionFound;

typedef struct PositionWalk PositionWalk;

/* Copies the query. */
PositionWalk *position_walk_new(const PositionQuery *query);
void position_walk_free(PositionWalk *walk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PositionWalk, position_walk_free)

/* One step: the next positions (of PositionFound) by kind and id, valid until the next call. There
 * may be none, although others follow; NULL is the end. FAILURE_UNKNOWN: an id that is not of its
 * kind. The session may be another one than before. */
bool position_walk_next(PositionWalk *walk, Session *session, const GArray **ret_found,
                        Failure *ret_failure);

/* probe.h - tests the server with a transaction without events: whether the server fails, or only
 * certain statements. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/ledger.h"

/* On a separate connection, writes a row of projector_fence reserved for it and commits, which also
 * shows that none of the projector's tables is locked. `hung`: the id of an own session with an
 * abandoned statement, to be killed first; 0: none. */
bool probe_server(const MysqlSettings *settings, const Ledger *ledger, unsigned long hung,
                  Failure *ret_failure);

/* Whether the server admits a write to the fence, tested without writing: not while it is
 * read-only, a lock on all tables or on this one is held, or the table is missing. */
bool probe_admits(Session *session, Failure *ret_failure);
/* Writes a row of projector_fence reserved for it and commits: a COMMIT may hang where everything
 * else works, in a group without a majority or while a replica's confirmation is waited for. After
 * a failure the session may be in a transaction. */
bool probe_write(Session *session, const char *projector, Failure *ret_failure);

/* Whether the projection's table can be written to, with a timeout of a second. A failure other
 * than a lock wait is inconclusive. */
bool probe_table(const MysqlSettings *settings, const Projection *projection, Failure *ret_failure);

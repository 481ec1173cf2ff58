/* probe.h - asks the server by work that is nobody's event: whether it is the server that fails, or
 * what it was asked for. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/ledger.h"

/* On a connection of its own: writes the one row of projector_fence that is there for it, and
 * commits, while none of our tables is locked. `hung`: the number of a session of ours whose
 * statement nobody waits for any longer, to be ended first; 0: none. */
bool probe_server(const MysqlSettings *settings, const Ledger *ledger, unsigned long hung,
                  Failure *ret_failure);

/* Whether the projection's table can be written to, waiting for a second. False with another
 * failure than a lock wait says nothing. */
bool probe_table(const MysqlSettings *settings, const Projection *projection, Failure *ret_failure);

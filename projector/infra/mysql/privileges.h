/* privileges.h - whether the user may do what the mapping will ask for. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"
#include "projector/infra/mysql/shadow.h"

/* Asks the server to prepare, not to run, a statement of each kind that `run` needs on each table:
 * so roles, grants on columns and partial revokes count as they will then. Gives an array of
 * Finding (catalog.h), empty when nothing is missing; NULL when the server could not be asked. */
GPtrArray *privileges_check(Session *session, const Mapping *mapping, Failure *ret_failure);

/* Whether the user may build tables beside `table`, which exists, and swap one for it. Changes
 * nothing: what cannot be prepared is tried in a way that can only fail. FAILURE_CONFIG names the
 * first privilege that is missing. */
bool privileges_check_swap(const MysqlSettings *settings, const Shadow *shadow,
                           Failure *ret_failure);

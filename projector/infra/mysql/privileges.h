/* privileges.h - whether the user has the privileges that the mapping needs. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"
#include "projector/infra/mysql/shadow.h"

/* Asks the server to prepare, not to run, a statement of each kind that `run` needs on each table:
 * so roles, column grants and partial revokes have the same effect as at run time. Returns an array
 * of Finding (catalog.h), empty when nothing is missing; NULL when the server could not be
 * asked. */
GPtrArray *privileges_check(Session *session, const Mapping *mapping, Failure *ret_failure);

/* Whether the user may build tables beside `table`, which exists, and swap one for it. Changes
 * nothing: statements that cannot be prepared are tried in a form that can only fail.
 * FAILURE_CONFIG names the first missing privilege. */
bool privileges_check_swap(const MysqlSettings *settings, const Shadow *shadow,
                           Failure *ret_failure);

/* privileges.h - whether the user may do what the mapping will ask for. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"

/* Asks the server to prepare, not to run, a statement of each kind that `run` needs on each table:
 * so roles, grants on columns and partial revokes count as they will then. Gives an array of
 * Finding (catalog.h), empty when nothing is missing; NULL when the server could not be asked. */
GPtrArray *privileges_check(Session *session, const Mapping *mapping, Failure *ret_failure);

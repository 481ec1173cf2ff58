/* server_check.h - whether the server's configuration is suitable. */
#pragma once

#include "projector/infra/mysql/catalog.h"

/* Adds errors (events could not be applied, or not exactly once) and warnings (risks). Returns
 * false when the server could not be queried. */
bool server_check(Session *session, GPtrArray *findings, Failure *ret_failure);

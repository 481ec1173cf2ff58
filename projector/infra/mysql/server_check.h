/* server_check.h - whether the server as it is set up can do what is asked of it. */
#pragma once

#include "projector/infra/mysql/catalog.h"

/* Adds what is wrong (an error: no event could be applied, or not exactly once) and what is risky
 * (a warning). False when the server could not be asked. */
bool server_check(Session *session, GPtrArray *findings, Failure *ret_failure);

/* unnamed.h - columns of a table that the mapping does not name: notes, flags and counters of
 * others, which a table that takes its place has to keep. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"

/* Their names (char *), without those that the server computes. NULL when it could not be asked. */
GPtrArray *unnamed_columns(Session *session, const Projection *projection, Failure *ret_failure);

/* Whether a table that takes the projection's place, or a child table's, can have their values:
 * not if each row has its own, such as a number that the server gives. */
bool unnamed_check(Session *session, const Projection *projection, Failure *ret_failure);

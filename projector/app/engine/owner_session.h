/* owner_session.h - the sessions in which an owner writes to MySQL. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mysql/session.h"

/* A session for transactions that hold the fence. A projector that freezes inside one blocks any
 * take-over until the server ends the session, so the server does that after the length of a
 * lease. Fails if MySQL has lost what was committed (last_applied.h). */
Session *owner_session_open(const Config *config, const Lanes *lanes, Failure *ret_failure);

/* fence.h - the owner's epoch in MySQL: whoever raises it shuts every earlier owner out.
 *
 * Every transaction of an owner reads it under a lock (ledger_enter). What is here runs outside of
 * a transaction, each in its own. */
#pragma once

#include "projector/infra/mysql/session.h"

/* Becomes the owner: raises the epoch by one. */
bool fence_take(Session *session, const char *projector, const char *owner, int64_t *ret_epoch,
                Failure *ret_failure);
/* The epoch as it is; 0: there is none. */
bool fence_look(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure);
/* The owner's name; NULL: there is none. Free with g_free. */
bool fence_read_owner(Session *session, const char *projector, char **ret_owner,
                      Failure *ret_failure);
/* Makes the epoch at least that high, without becoming the owner. */
bool fence_lift(Session *session, const char *projector, int64_t epoch, Failure *ret_failure);
/* Shuts that name's owner out, after its open transactions: 0 when there was never one, else the
 * epoch, raised by one. */
bool fence_shut(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure);
/* FAILURE_CONFIG: MySQL has an older epoch than was reached, so it was restored or is another
 * server. Returns false. */
bool fence_fell_back(int64_t found, int64_t reached, Failure *ret_failure);

/* fence.h - the owner's epoch in MySQL: raising it locks out every earlier owner.
 *
 * Every transaction of an owner reads it under a lock (ledger_enter). The functions here run in
 * transactions of their own. */
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
/* Locks out that name's owner, after its open transactions: 0 when there was never one, otherwise
 * the raised epoch. */
bool fence_shut(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure);

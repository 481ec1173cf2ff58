/* loss.h - proves that MySQL has lost what was committed: it was restored, or is another server.
 *
 * Two things prove it: an epoch below one that was reached, and, between two changes of the owner,
 * an event whose commit was answered and that the ledger does not have. */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mysql/session.h"

/* Whether the ledger has lost the event. One without any entry was emptied by hand: a backup has
 * older ones. */
bool loss_look(Session *session, const char *projector, const LastCommit *last, bool *ret_lost,
               Failure *ret_failure);

/* Set FAILURE_CONFIG, with what to do; return false. */
bool loss_of_epochs(int64_t found, int64_t reached, Failure *ret_failure);
bool loss_of_event(const LastCommit *last, Failure *ret_failure);

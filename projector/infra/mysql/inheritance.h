/* inheritance.h - copies ledger and positions of an earlier name to the present one.
 *
 * Without its former ledger, a renamed projector would apply again events that the former name had
 * committed but not yet removed from the outbox, and events that a writer sends twice. */
#pragma once

#include "projector/infra/mysql/session.h"

/* Copies the ledger and the positions of the name `from`, in steps that may be repeated; entries of
 * `to` for the same aggregates are overwritten. `from` is locked out first, so that it cannot
 * commit anything afterwards. The rows of `from` stay. `*ret_events`: the number of ledger entries
 * copied, or -1 when that name never worked with this MySQL. */
bool inherit(Session *session, const char *from, const char *to, int64_t *ret_events,
             Failure *ret_failure);

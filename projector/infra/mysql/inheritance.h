/* inheritance.h - what was applied under an earlier name becomes known under the present one.
 *
 * A renamed projector that did not know its former ledger would apply again what the former name
 * had committed and not yet taken out of the outbox, and what a writer sends twice. */
#pragma once

#include "projector/infra/mysql/session.h"

/* Copies the ledger and the positions of the name `from`, in steps that may be repeated; what `to`
 * has of the same aggregates is overwritten. Before that `from` is shut out, so that nothing of it
 * can be committed afterwards. The rows of `from` stay. `*ret_events`: how many the ledger got, or
 * -1 when that name never worked with this MySQL. */
bool inherit(Session *session, const char *from, const char *to, int64_t *ret_events,
             Failure *ret_failure);

/* pruner.h - deletes old entries from the ledger, a page at a time, with pauses.
 *
 * An entry older than `ledger_retention` goes unless its event is in the outbox, or in memory.
 * Live events come first, so the pruner rests longer than it works, but for less long while many
 * entries come: twice as many go. */
#pragma once

#include "projector/app/engine/lanes.h"
#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

typedef struct Pruner Pruner;

/* For one ownership; what it is given must outlive it. */
Pruner *pruner_new(const Config *config, const Ledger *ledger, Outbox *outbox, const Lanes *lanes);
void pruner_free(Pruner *pruner);

/* Begins a round through all old entries, unless one is under way; call it now and then in a long
 * one. */
void pruner_begin(Pruner *pruner);
/* Ends the round early; a later one starts anew. */
void pruner_end(Pruner *pruner);
/* The ms until the next step; DUE_NEVER outside of a round. */
int64_t pruner_due_in(const Pruner *pruner);
/* One page. A failure ends the round. FAILURE_FENCED: another owner has taken over. */
bool pruner_step(Pruner *pruner, Failure *ret_failure);

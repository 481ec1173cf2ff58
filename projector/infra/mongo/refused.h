/* refused.h - events whose marks MongoDB refuses: they cannot say so themselves, so it stands
 * beside the lease, for `list` and the page. */
#pragma once

#include "projector/domain/event.h" /* Refused */
#include "projector/infra/mongo/store.h"

/* Replaces what was told before. `refused` (of Refused) may be empty. */
bool refused_write(MongoStore *store, const char *name, const GArray *refused,
                   Failure *ret_failure);

/* Id → Refused, as the owner told it last. NULL: a failure. */
GHashTable *refused_read(MongoStore *store, const char *name, Failure *ret_failure);

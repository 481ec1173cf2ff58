/* refused.h - events whose marks MongoDB refuses: their documents cannot show it, so a list beside
 * the lease does, for `list` and the page. */
#pragma once

#include "projector/domain/event.h" /* Refused */
#include "projector/infra/mongo/store.h"

/* Replaces the previous list. `refused` (of Refused) may be empty. */
bool refused_write(MongoStore *store, const char *name, const GArray *refused,
                   Failure *ret_failure);

/* Id → Refused, as last reported by the owner. NULL on failure. */
GHashTable *refused_read(MongoStore *store, const char *name, Failure *ret_failure);

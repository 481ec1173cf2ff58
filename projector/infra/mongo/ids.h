/* ids.h - which ids of aggregates there are. */
#pragma once

#include "projector/infra/mongo/store.h"

/* Adds the texts of ids to `ids`: text (g_free) → bits of the kinds (1 << IdKind) that have it. Of
 * an outbox the aggregates of that type, of a collection of entities (`aggregate_type` NULL) all.
 * At most `limit` documents are read. */
bool mongo_ids_add(MongoStore *store, const char *collection, const char *aggregate_type,
                   int64_t limit, GHashTable *ids, Failure *ret_failure);

/* key_ids.h - whether a table's key distinguishes ids. */
#pragma once

#include "projector/domain/mapping.h"
#include "projector/infra/mysql/session.h"

/* Adds the ids of the aggregates of that type that have a position, as mongo_ids_add does
 * (infra/mongo/ids.h). */
bool key_ids_add_positions(Session *session, const char *projector, const char *aggregate_type,
                           unsigned limit, GHashTable *ids, Failure *ret_failure);

/* Two texts that are one key. */
typedef struct SameKey {
  const char *one, *other; /* of the texts that were asked about */
} SameKey;

/* Asks the server which of the texts the column's collation considers equal. Adds a SameKey for
 * each text whose key an earlier one has. */
bool key_ids_compare(Session *session, const Projection *projection, const Column *column,
                     const char *const *texts, size_t count, GArray *same, Failure *ret_failure);

/* recheck.h - checks suspected differences again until they are certain.
 *
 * One check reads, in this order, position, row, entity, and the outbox's events that the ledger
 * does not contain. A difference with nothing pending in two consecutive checks, and with the same
 * entity, is real: at the first check every event that the entity contains had been applied, and
 * the second check's row is newer. That needs no lock and no clock (docs/adr/0013-reconcile.md). */
#pragma once

#include "projector/app/reconcile/difference.h"
#include "projector/infra/mongo/entities.h"

typedef struct Suspect {
  Aggregate ids[AGGREGATE_IDS]; /* the aggregate, or a candidate when it was found by its row */
  unsigned id_count;
  const Value *key; /* NULL: the entity could not be mapped */
  bool by_row;
} Suspect;

typedef struct Recheck {
  Stores *stores;
  Entities *entities; /* for suspects by row, the key's fields are enough */
  const Layout *layout;
  bool positions; /* whether to check positions too */
} Recheck;

/* Adds confirmed differences to `differences` (of Difference); they live as long as the pool.
 * `*lagging` grows by those that merely lag or changed in every check. */
bool recheck_confirm(const Recheck *recheck, const Suspect *suspects, size_t count, Pool *pool,
                     GArray *differences, int64_t *lagging, Failure *ret_failure);

/* Sets VERDICT_KNOWN on the items whose events the ledger has, however many they are. */
bool recheck_ask_ledger(Stores *stores, Item *items, size_t count, Failure *ret_failure);

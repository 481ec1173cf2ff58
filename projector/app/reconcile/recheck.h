/* recheck.h - looks again at what seems to differ, until it is sure.
 *
 * One look reads, in this order, position, row, entity, and the outbox's events that the ledger
 * does not have. What differs with nothing pending in two looks in a row, and with the same entity,
 * differs for good: at the first look every event that the entity contains had been applied, and
 * the second look's row is younger. No lock and no clock is needed for that
 * (docs/adr/0013-reconcile.md). */
#pragma once

#include "projector/app/reconcile/difference.h"
#include "projector/infra/mongo/entities.h"

typedef struct Suspect {
  Aggregate ids[AGGREGATE_IDS]; /* whose it is, or may be, when it was found by its row */
  unsigned id_count;
  const Value *key; /* NULL: the entity could not be mapped */
  bool by_row;
} Suspect;

typedef struct Looks {
  Stores *stores;
  Entities *entities; /* for suspects by row, the key's fields are enough */
  const Layout *layout;
  bool positions; /* whether positions are judged too */
} Looks;

/* Adds what is sure to `differences` (of Difference); it lives as long as the pool. `*lagging`
 * grows by those that merely lag, or changed at every look. */
bool looks_settle(const Looks *looks, const Suspect *suspects, size_t count, Pool *pool,
                  GArray *differences, int64_t *lagging, Failure *ret_failure);

/* Sets VERDICT_KNOWN on the items whose events the ledger has, however many they are. */
bool looks_ask_ledger(Stores *stores, Item *items, size_t count, Failure *ret_failure);

/* shadow_carry.h - copies into the shadow table what only the live table has: the marked rows of
 * deleted entities (domain/mark.h), and columns that the mapping does not name (unnamed.h). Counts
 * the rows that a swap would lose. */
#pragma once

#include "projector/domain/value.h"
#include "projector/infra/mysql/session.h"

/* For each of the keys whose row in `live` is marked, or is not there, `fresh` shows the same
 * afterwards. The caller has a transaction open. */
bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, Failure *ret_failure);
/* Copies the marked rows of `live` with keys behind `after` (NULL: from the first), to `last`, into
 * `fresh`, which has no rows there yet. */
bool shadow_carry_marked(Session *session, const Projection *live, const Projection *fresh,
                         const Value *after, const Value *last, Failure *ret_failure);
/* For each of the keys whose row in `live` is marked, the row of `fresh` gets what its soft delete
 * set. */
bool shadow_keep_marks(Session *session, const Projection *live, const Projection *fresh,
                       const Value *const *keys, size_t count, Failure *ret_failure);

typedef struct UnnamedCarry {
  const Projection *live, *fresh;
  Session *gate; /* kept awake meanwhile; NULL: none */
  bool replayed; /* `sql` rules have written to `fresh` already: the columns that they name stay */
} UnnamedCarry;

/* Gives each row of `fresh`, and of its child tables, what the row of `live` with the same key has
 * in columns that the mapping does not name. */
bool shadow_carry_unnamed(Session *session, const UnnamedCarry *carry, Failure *ret_failure);

typedef struct ShadowPair {
  const Projection *live, *fresh;
  Session *gate; /* kept awake meanwhile */
} ShadowPair;

typedef struct LostRows {
  int64_t count; /* of the table and its child tables */
  GString *text; /* "3 of account (the first: account_id = a7), …"; empty: none */
} LostRows;

/* Which rows of `live`, and of its child tables, `fresh` has none for. */
bool shadow_find_lost(Session *session, const ShadowPair *pair, LostRows *lost,
                      Failure *ret_failure);

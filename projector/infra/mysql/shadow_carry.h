/* shadow_carry.h - copies into the shadow table what only the live table has: the marked rows of
 * deleted entities (domain/mark.h), and columns that the mapping does not name (unnamed.h). */
#pragma once

#include "projector/domain/value.h"
#include "projector/infra/mysql/session.h"

typedef enum CarriedRows { CARRY_MARKED_ROWS, CARRY_ALL_ROWS } CarriedRows;

/* For each of the keys whose row in `live` is marked, or is not there, `fresh` shows the same
 * afterwards; with CARRY_ALL_ROWS for every key. The caller has a transaction open. */
bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, CarriedRows rows, Failure *ret_failure);
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

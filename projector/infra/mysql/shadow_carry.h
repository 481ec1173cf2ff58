/* shadow_carry.h - copies rows that only the live table has, the marked ones of deleted entities
 * (domain/mark.h), into the shadow table. */
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

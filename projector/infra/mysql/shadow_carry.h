/* shadow_carry.h - copies rows that only the live table has, the marked ones of deleted entities
 * (domain/mark.h), into the shadow table. */
#pragma once

#include "projector/domain/value.h"
#include "projector/infra/mysql/session.h"

/* For each of the keys whose row in `live` is marked, `fresh` shows the same row afterwards. The
 * caller has a transaction open. */
bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, Failure *ret_failure);
/* The same for every marked row of `live` whose key `fresh` does not have. */
bool shadow_carry_unknown(Session *session, const Projection *live, const Projection *fresh,
                          Failure *ret_failure);
/* For each of the keys whose row in `live` is marked, the row of `fresh` gets what its soft delete
 * set. */
bool shadow_keep_marks(Session *session, const Projection *live, const Projection *fresh,
                       const Value *const *keys, size_t count, Failure *ret_failure);

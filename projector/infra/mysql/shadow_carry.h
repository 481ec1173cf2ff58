/* shadow_carry.h - copies rows that only the live table has, the marked ones of deleted entities
 * (domain/mark.h), into the shadow table. */
#pragma once

#include "projector/domain/value.h"
#include "projector/infra/mysql/session.h"

/* For each of the keys whose row in `live` is marked, `fresh` shows the same row afterwards. The
 * caller has a transaction open. */
bool shadow_carry(Session *session, const Projection *live, const Projection *fresh,
                  const Value *const *keys, size_t count, Failure *ret_failure);

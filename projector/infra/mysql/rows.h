/* rows.h - reads rows of a projection as the values that the mapping would write.
 *
 * Plain consistent reads, one statement at a time: no locks, no snapshot that lasts. */
#pragma once

#include "projector/domain/diff.h"
#include "projector/infra/mysql/session.h"

/* The rows with these keys (of `layout->key_count` values each), in no order; those that are not
 * there are left out. `rows` gets arrays of `layout->count` values, which live in the arena. */
bool rows_find(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               Arena *arena, GPtrArray *rows, Failure *ret_failure);

/* Up to `limit` keys after `after` (NULL: from the first), in the order of the table's own key. */
bool rows_list_keys(Session *session, const Layout *layout, const Value *after, unsigned limit,
                    Arena *arena, GPtrArray *keys, Failure *ret_failure);

/* rows.h - reads rows of a projection as the values that the mapping would write.
 *
 * Plain consistent reads, one statement at a time: no locks, no long snapshot. */
#pragma once

#include "projector/domain/change.h"
#include "projector/domain/row_compare.h"
#include "projector/infra/mysql/session.h"

/* Rows that were looked up by key. Results live in the caller's arena. */
typedef struct RowSet {
  Arena *arena;
  GPtrArray *rows;    /* of arrays of `layout->count` values */
  GHashTable *by_key; /* the same, by ValueKey */
  GHashTable
      *refused; /* reasons, by ValueKey: keys that the table cannot hold, so no row has them */
  unsigned key_count;
} RowSet;

RowSet *row_set_new(Arena *arena);
void row_set_free(RowSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(RowSet, row_set_free)
/* NULL: there is none. */
const Value *row_set_find(const RowSet *set, const Value *key);
/* Why the table cannot contain the key; NULL: it can. */
const char *row_set_refusal(const RowSet *set, const Value *key);

/* Adds the rows with these keys (of `layout->key_count` values each), in no order; missing ones are
 * left out. A key that the server refuses to compare with the column, such as an emoji with latin1,
 * is reported separately and does not prevent the others from being found. */
bool rows_find(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               RowSet *set, Failure *ret_failure);

/* Whether there is a row with this key (NULL: any row) that is not marked as deleted. */
bool rows_find_unmarked(Session *session, const Projection *projection, const Value *key,
                        bool *ret_unmarked, Failure *ret_failure);

/* What is there of the row with this key. */
bool rows_look(Session *session, const Projection *projection, const Value *key,
               RowState *ret_state, Failure *ret_failure);

/* The same as rows_find for a key that several rows may have; a key that the server refuses is a
 * failure. */
bool rows_list(Session *session, const Layout *layout, const Value *const *keys, size_t count,
               Arena *arena, GPtrArray *rows, Failure *ret_failure);

/* Up to `limit` keys after `after` (NULL: from the first), in the order of the table's own key. */
bool rows_list_keys(Session *session, const Layout *layout, const Value *after, unsigned limit,
                    Arena *arena, GPtrArray *keys, Failure *ret_failure);

/* Reads all keys of a table page by page. */
typedef struct KeyCursor {
  const Value *after; /* the last key read; NULL: none yet */
  GPtrArray *keys;    /* of the page; none: there are no more */
  Arena *page, *before;
} KeyCursor;

KeyCursor *key_cursor_new(void);
void key_cursor_free(KeyCursor *cursor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(KeyCursor, key_cursor_free)

/* The next page, of at most `limit` keys. The last key of the page before stays until the next
 * call. */
bool key_cursor_next(KeyCursor *cursor, Session *session, const Layout *layout, unsigned limit,
                     Failure *ret_failure);

/* carry.c - goes over the live table in pages, and takes its marked rows over. */
#include "projector/app/rebuild/carry.h"

#include "projector/infra/mysql/rows.h"
#include "projector/infra/mysql/shadow_carry.h"

enum { MARKED_PAGE = 500 }; /* rows that are looked through for marks at a time */

typedef struct Carry {
  const Projection *live, *fresh;
} Carry;

static bool carry_page(Session *session, const Carry *carry, const Value *after, const Value *last,
                       Failure *ret_failure) {
  bool good = session_run(session, ret_failure, "START TRANSACTION") &&
              shadow_carry_marked(session, carry->live, carry->fresh, after, last, ret_failure) &&
              session_run(session, ret_failure, "COMMIT");
  session_rollback(session);
  return good;
}

bool carry_marked(Stores *stores, const Projection *live, const Projection *fresh,
                  Failure *ret_failure) {
  const Carry carry = {live, fresh};
  if (!live->soft_rule)
    return true;
  g_autoptr(Arena) whole = arena_new(), page = arena_new(), before = arena_new();
  g_autoptr(GPtrArray) keys = g_ptr_array_new();
  const Value *after = NULL;
  Layout layout;
  if (!layout_init(live, whole, &layout, ret_failure))
    return false;
  for (;;) {
    Arena *spare = before; /* the last key of the previous page is in the other arena */
    before = page;
    page = spare;
    arena_reset(page);
    g_ptr_array_set_size(keys, 0);
    if (!stores_wake(stores, ret_failure) ||
        !rows_list_keys(stores->session, &layout, after, MARKED_PAGE, page, keys, ret_failure))
      return false;
    if (keys->len == 0)
      return true;
    const Value *last = keys->pdata[keys->len - 1];
    if (!carry_page(stores->session, &carry, after, last, ret_failure))
      return false;
    after = last;
  }
}

/* carry.c - goes over the live table in pages, and takes its marked rows over. */
#include "projector/app/rebuild/carry.h"

#include "projector/infra/mysql/rows.h"
#include "projector/infra/mysql/shadow_carry.h"

enum { MARKED_PAGE = 500 }; /* rows that are looked through for marks at a time */

static bool carry_page(Stores *stores, const Projection *live, const Projection *fresh,
                       const Value *after, const Value *last, Failure *ret_failure) {
  Session *session = stores->session;
  bool good = session_run(session, ret_failure, "START TRANSACTION") &&
              shadow_carry_marked(session, live, fresh, after, last, ret_failure) &&
              session_run(session, ret_failure, "COMMIT");
  session_rollback(session);
  return good;
}

bool carry_marked(Stores *stores, const Projection *live, const Projection *fresh,
                  Failure *ret_failure) {
  if (!live->soft_rule)
    return true;
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(KeyCursor) cursor = key_cursor_new();
  Layout layout;
  if (!layout_init(live, arena, &layout, ret_failure))
    return false;
  for (;;) {
    const Value *after = cursor->after;
    if (!stores_wake(stores, ret_failure) ||
        !key_cursor_next(cursor, stores->session, &layout, MARKED_PAGE, ret_failure))
      return false;
    if (cursor->keys->len == 0)
      return true;
    if (!carry_page(stores, live, fresh, after, cursor->after, ret_failure))
      return false;
  }
}

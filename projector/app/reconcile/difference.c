/* difference.c - the two stores and the memory that a comparison works with. */
#include "projector/app/reconcile/difference.h"

#include "projector/infra/mysql/inspect.h"

#include <unistd.h>

enum { WAKE_AFTER_MS = 20000 };

Pool pool_new(void) {
  return (Pool){arena_new(), g_ptr_array_new_with_free_func((GDestroyNotify)event_free)};
}

void pool_reset(Pool *pool) {
  arena_reset(pool->arena);
  g_ptr_array_set_size(pool->events, 0);
}

void pool_free(Pool *pool) {
  arena_free(pool->arena);
  g_ptr_array_unref(pool->events);
}

Event *pool_keep(Pool *pool, Event *event) {
  g_ptr_array_add(pool->events, event);
  return event;
}

bool sides_open(const Config *config, Sides *ret_sides, Failure *ret_failure) {
  g_autofree char *owner = g_strdup_printf("reconcile:%d:%08x", (int)getpid(), g_random_int());
  Sides sides = {.config = config, .ledger = {.projector = config->name}};
  sides.store = mongo_store_open_single(&config->mongodb, ret_failure);
  sides.session = sides.store ? session_open(&config->mysql, ret_failure) : NULL;
  sides.outbox = sides.session ? outbox_new(sides.store, owner) : NULL;
  if (!sides.outbox || !mysql_json_slack(sides.session, &sides.json_slack, ret_failure)) {
    sides_close(&sides);
    return false;
  }
  *ret_sides = sides;
  return true;
}

void sides_close(Sides *sides) {
  outbox_free(sides->outbox);
  session_close(sides->session);
  mongo_store_close(sides->store);
  *sides = (Sides){0};
}

bool sides_wake(Sides *sides, Failure *ret_failure) {
  if (session_idle_ms(sides->session) < WAKE_AFTER_MS)
    return true;
  Session *fresh = session_open(&sides->config->mysql, ret_failure);
  if (!fresh)
    return false;
  session_close(sides->session);
  sides->session = fresh;
  return true;
}

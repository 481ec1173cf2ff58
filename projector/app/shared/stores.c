/* stores.c - the two stores as a command reaches them, and the memory of a batch. */
#include "projector/app/shared/stores.h"

#include "projector/app/shared/identity.h"
#include "projector/infra/mysql/inspect.h"

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

bool stores_open(const Config *config, const char *command, Stores *ret_stores,
                 Failure *ret_failure) {
  Stores stores = {.config = config, .ledger = {.projector = config->name}};
  stores.store = mongo_store_open_single(&config->mongodb, ret_failure);
  stores.session = stores.store ? session_open(&config->mysql, ret_failure) : NULL;
  stores.outbox = stores.session ? outbox_new_for_command(stores.store, command) : NULL;
  if (!stores.outbox || !identity_verify(config, stores.store, stores.session, ret_failure) ||
      !mysql_json_slack(stores.session, &stores.json_slack, ret_failure)) {
    stores_close(&stores);
    return false;
  }
  *ret_stores = stores;
  return true;
}

void stores_close(Stores *stores) {
  outbox_free(stores->outbox);
  session_close(stores->session);
  mongo_store_close(stores->store);
  *stores = (Stores){0};
}

bool stores_wake(Stores *stores, Failure *ret_failure) {
  return session_wake(&stores->session, &stores->config->mysql, ret_failure);
}

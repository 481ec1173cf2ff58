/* receipts.h - the writers' receipts of executed commands in <outbox>_commands, which the projector
 * does not use: for `check`, and to see that they grow and expire. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef enum ReceiptsState {
  RECEIPTS_NONE,    /* there is no such collection */
  RECEIPTS_HIDDEN,  /* the user may not see its indexes */
  RECEIPTS_EXPIRE,  /* after `ttl_s` */
  RECEIPTS_FOREVER, /* a deliberate index on `at` that removes none */
  RECEIPTS_UNBOUND, /* no index on `at` */
} ReceiptsState;

typedef struct Receipts {
  ReceiptsState state;
  int64_t ttl_s;
} Receipts;

/* Of commands whose events went into that outbox. */
bool mongo_look_at_receipts(MongoStore *store, const char *outbox, Receipts *ret_receipts,
                            Failure *ret_failure);
/* How many there are, by the collection's metadata; -1: the user may not know. */
bool mongo_count_receipts(MongoStore *store, int64_t *ret_count, Failure *ret_failure);

/* outbox_identity.h - the projector that an outbox serves, and a text that identifies the outbox.
 *
 * A document beside the leases, keyed by "outbox:" and the collection's name, which cannot be a
 * projector's name. It never expires. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef struct OutboxIdentity {
  char projector[65]; /* the name that the outbox serves; "": none yet */
  char source[65];    /* made at random when the outbox was first served; "": not yet */
  char mapping[65];   /* digest of the projections at the last start; "": not known */
  /* The name under which its events were applied before, as long as what that name had applied is
   * not known to `projector`; "": there is none. */
  char inherits[65];
} OutboxIdentity;

bool outbox_identity_look(MongoStore *store, OutboxIdentity *ret_identity, Failure *ret_failure);
/* Of another collection of the same database, a feed for example. */
bool outbox_identity_look_at(MongoStore *store, const char *outbox, OutboxIdentity *ret_identity,
                             Failure *ret_failure);

/* Assigns the outbox to `name` if it serves none or, with `adopt`, one that is not working at this
 * moment. Returns the resulting identity, with another name if the assignment was refused.
 * `mapping` is recorded when the outbox is ours; the identity returned has the previous one. */
bool outbox_identity_take(MongoStore *store, const char *name, const char *mapping, bool adopt,
                          OutboxIdentity *ret_identity, Failure *ret_failure);
/* Records that `name`, which the outbox serves, has inherited. */
bool outbox_identity_settle(MongoStore *store, const char *name, Failure *ret_failure);

/* lease.h - which of several projectors of one name works: a document with an expiry.
 *
 * Only the server's clock decides about expiry. The document also carries a counter that other
 * processes raise to ask the owner to look at its failed events again. */
#pragma once

#include "projector/infra/mongo/store.h"

typedef struct Lease Lease;

Lease *lease_new(MongoStore *store, const char *name, const char *owner, int64_t lease_ms);
void lease_free(Lease *lease);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Lease, lease_free)

/* Takes or prolongs the lease. `*ret_owned` tells whether it is ours now, `*ret_nudges` how often
 * the owner was asked to look again. */
bool lease_acquire(Lease *lease, bool *ret_owned, int64_t *ret_nudges, Failure *ret_failure);
/* Lets the next one take over at once. */
bool lease_release(Lease *lease, Failure *ret_failure);

/* Asks the owner, whoever it is, to look at its failed events again. */
bool lease_nudge(MongoStore *store, const char *name, Failure *ret_failure);

typedef struct LeaseView {
  bool held;
  char owner[256];
  int64_t expires_in_ms;
} LeaseView;

bool lease_look(MongoStore *store, const char *name, LeaseView *ret_view, Failure *ret_failure);

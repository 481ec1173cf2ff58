/* probe.h - whether each store can be used now: two threads ask once a second, over connections of
 * their own that give up quickly, so that a store that hangs is known within seconds and holds
 * nothing else up. */
#pragma once

#include "projector/app/commands/status.h"

typedef struct Probe Probe;

/* Starts asking. The configuration must outlive it. */
Probe *probe_start(const Config *config);
/* Waits for a question in hand, which ends within seconds. */
void probe_free(Probe *probe);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Probe, probe_free)

/* Fills in the stores, the lease and the ledger's estimated rows as they are known now. A question
 * that has waited too long for its answer counts as a failure before it ends. Returns false when
 * neither store has been asked yet; nothing is filled in. `counted_at` (monotonic, us) is when the
 * lease in `status` was looked at. */
bool probe_fill(Probe *probe, Status *status, int64_t counted_at, int64_t *ret_ledger_rows);
/* When a store could not be used last, monotonic, us; 0: never. */
int64_t probe_bad_at(Probe *probe);

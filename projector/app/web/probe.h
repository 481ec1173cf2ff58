/* probe.h - whether each store can be used now: two threads test it once a second, on separate
 * connections with short timeouts, so that a hanging store is detected within seconds and delays
 * nothing else. */
#pragma once

#include "projector/app/commands/status.h"

typedef struct Probe Probe;

/* Starts testing; `writes`: by commits, too, for those who ask over HTTP. The configuration must
 * outlive it. */
Probe *probe_start(const Config *config, bool writes);
/* Waits for running tests, which end within seconds. */
void probe_free(Probe *probe);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Probe, probe_free)

/* Fills in the stores, the lease and the ledger's estimated rows as they are known now. A test that
 * has waited too long for its answer counts as a failure before it ends. Returns false, without
 * filling in anything, when neither store has been tested yet. `counted_at` (monotonic, us) is when
 * the lease in `status` was read. */
bool probe_fill(Probe *probe, Status *status, int64_t counted_at, int64_t *ret_ledger_rows);
/* When a store was last unusable, monotonic, us; 0: never. */
int64_t probe_bad_at(Probe *probe);

/* service.h - notifies the service manager: up, working or standing by, alive, stopping. Like the
 * log, there is one per process; without a manager it does nothing.
 *
 * Alive means progress: a worker's batch ends, well or badly. A worker that waits for events or for
 * an unreachable store is alive too. One whose batch does not end in spite of all timeouts is hung:
 * the manager then ends the process, and the next one recovers the batch. Starting, standing by and
 * stopping are not watched. */
#pragma once

#include <stdint.h>

/* Configuration and tables are valid; from now on only outages can happen, and the process survives
 * those. */
void service_is_up(void);
void service_is_stopping(void);

/* A tenure with so many workers begins, which may take `step_ms` for one step; it ends. */
void service_begins_work(unsigned workers, int64_t step_ms);
void service_ends_work(void);
/* The current value of worker_moves(). */
void service_sees(unsigned worker, int moves);
/* How long a worker has had a batch in hand without a move; of several, the longest; in ms. */
int64_t service_stuck_ms(void);

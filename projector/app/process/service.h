/* service.h - what the service manager is told: up, working or standing by, alive, stopping. Like
 * the log, it is one for the process; without a manager that asked, nothing happens.
 *
 * Alive means that the work continues: what a worker has in hand comes to an end, good or bad. A
 * worker that waits for events, or for an unreachable store, is alive too. One whose batch does not
 * end hangs, in spite of all timeouts: the manager then ends the process, and the next one finds
 * what was in hand. Starting, standing by and stopping are not watched. */
#pragma once

#include <stdint.h>

/* Configuration and tables are good; what is left are outages, and these it lives through. */
void service_is_up(void);
void service_is_stopping(void);

/* A tenure with so many workers begins; it ends. */
void service_begins_work(unsigned workers);
void service_ends_work(void);
/* The moves of a worker by now: see worker_moves(). */
void service_sees(unsigned worker, int moves);
/* How long a worker has had a batch in hand without a move; of several, the longest; in ms. */
int64_t service_stuck_ms(void);

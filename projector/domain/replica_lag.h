/* replica_lag.h - how far a replica is behind, by the newest entries of two ledgers: it lags since
 * the moment at which the primary first had a newer entry than the replica has now. */
#pragma once

#include <stdint.h>

enum { REPLICA_LAG_TIME_SIZE = 32 };

typedef struct ReplicaLag ReplicaLag; /* free with replica_lag_free */

ReplicaLag *replica_lag_new(void);
void replica_lag_free(ReplicaLag *lag);

/* The time of the newest entry that the primary had at `now_us` (monotonic), as a text that sorts
 * by time, of less than REPLICA_LAG_TIME_SIZE bytes; "": it has none. */
void replica_lag_note(ReplicaLag *lag, const char *newest, int64_t now_us);

/* Seconds since the primary has had what a replica does not have yet, whose newest entry is
 * `newest`; 0: it has all. A lag of any length is told, the longer it is, the more coarsely. */
double replica_lag_of(const ReplicaLag *lag, const char *newest, int64_t now_us);

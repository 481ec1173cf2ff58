/* replica_lag.c - how far a replica is behind. */
#include "projector/domain/replica_lag.h"

#include <glib.h>
#include <string.h>

enum { SEEN_MAX = 4096 }; /* remembered looks at the primary */

typedef struct Seen {
  int64_t at; /* monotonic, us */
  char newest[REPLICA_LAG_TIME_SIZE];
} Seen;

struct ReplicaLag {
  GArray *seen; /* of Seen, the oldest first */
};

ReplicaLag *replica_lag_new(void) {
  ReplicaLag *lag = g_new0(ReplicaLag, 1);
  lag->seen = g_array_new(FALSE, FALSE, sizeof(Seen));
  return lag;
}

void replica_lag_free(ReplicaLag *lag) {
  if (!lag)
    return;
  g_array_unref(lag->seen);
  g_free(lag);
}

static const Seen *seen_at(const ReplicaLag *lag, guint index) {
  return &g_array_index(lag->seen, Seen, index);
}

/* What is newer than the newest entry is gone: the ledger was pruned, or a failover has lost it. No
 * replica needs to have it. */
static void forget_newer(ReplicaLag *lag, const char *newest) {
  while (lag->seen->len > 0 && strcmp(seen_at(lag, lag->seen->len - 1)->newest, newest) > 0)
    g_array_set_size(lag->seen, lag->seen->len - 1);
}

/* Keeps every other one, so that the oldest stays. */
static void thin_out(GArray *seen) {
  guint kept = 0;
  for (guint i = 0; i < seen->len; i += 2)
    g_array_index(seen, Seen, kept++) = g_array_index(seen, Seen, i);
  g_array_set_size(seen, kept);
}

void replica_lag_note(ReplicaLag *lag, const char *newest, int64_t now_us) {
  Seen seen = {.at = now_us};
  g_strlcpy(seen.newest, newest, sizeof seen.newest);
  forget_newer(lag, newest);
  if (lag->seen->len > 0 && !strcmp(seen_at(lag, lag->seen->len - 1)->newest, newest))
    return; /* what counts is since when it has been so */
  if (lag->seen->len >= SEEN_MAX)
    thin_out(lag->seen);
  g_array_append_val(lag->seen, seen);
}

double replica_lag_of(const ReplicaLag *lag, const char *newest, int64_t now_us) {
  for (guint i = 0; i < lag->seen->len; i++)
    if (strcmp(seen_at(lag, i)->newest, newest) > 0)
      return (double)(now_us - seen_at(lag, i)->at) / 1e6;
  return 0;
}

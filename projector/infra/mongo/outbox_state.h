/* outbox_state.h - what the outbox holds at large, and how it is indexed. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct OutboxCounts {
  int64_t pending, in_progress, failed, dead;
  int64_t future; /* held because their time is more than `future_ms` ahead; not in `failed` */
  int64_t oldest_occurred_at; /* of events not dead, ms since 1970; 0: none */
  int64_t server_time;        /* ms since 1970 */
} OutboxCounts;

/* What is claimed by the batch counts as in progress. */
bool outbox_count(Outbox *outbox, int64_t future_ms, OutboxCounts *ret_counts,
                  Failure *ret_failure);
/* Aggregates with a failed or dead event, but for those whose time is still far ahead: nothing
 * waits behind them. */
bool outbox_count_blocked(Outbox *outbox, int64_t future_ms, int64_t *ret_count,
                          Failure *ret_failure);
/* Failed and dead events by kind, at most `limit`, the most frequent first; `take` receives {_id:
 * {state, event_type, class, message}, count, example} of each, where `example` is an event id. */
bool outbox_count_kinds(Outbox *outbox, int limit, void (*take)(const bson_t *kind, void *data),
                        void *data, Failure *ret_failure);
/* Whether the collection has an index that starts with these fields (a sort document's keys). */
bool outbox_has_index(Outbox *outbox, const char *const *fields, bool *ret_found,
                      Failure *ret_failure);

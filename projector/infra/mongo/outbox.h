/* outbox.h - the outbox collection as the projector sees it: claims, marks, acknowledgement,
 * look-ups.
 *
 * An Outbox belongs to one thread. Every write names events by id and their expected state, so it
 * may be repeated when its answer was lost. */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mongo/outbox_lookup.h"
#include "projector/infra/mongo/store.h"

typedef struct Outbox Outbox;

/* `owner` is written to claimed_by; it differs for each ownership. It is copied; "" for an Outbox
 * that claims nothing. */
Outbox *outbox_new(MongoStore *store, const char *owner);
/* For a command, with an owner of its own: claimed_by holds "command:", its name, and who it is. */
Outbox *outbox_new_for_command(MongoStore *store, const char *command);
/* Another collection of events, as if it were the outbox: a feed, the archive. */
Outbox *outbox_new_on(MongoStore *store, const char *owner, const char *collection);
void outbox_free(Outbox *outbox);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Outbox, outbox_free)

/* The result of claiming an event. */
typedef enum Claim {
  CLAIM_GONE,  /* no longer in the outbox */
  CLAIM_TAKEN, /* dead, or in progress at another's */
  CLAIM_OURS,
  CLAIM_REFUSED, /* MongoDB refuses the mark; outbox_claim fails, and its caller finds the event */
} Claim;

/* Claims the events: in_progress, claimed_by, claimed_at by the server's clock, attempts + 1. */
bool outbox_claim(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                  Failure *ret_failure);

/* Removes applied events from the outbox: deletes them or moves them to the archive, once every
 * feed has them. Those that are `skipped` go to the archive in any case, with a mark. */
bool outbox_acknowledge(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);
/* The same for events that were read whole, as feeds_copy_whole has it. */
bool outbox_acknowledge_whole(Outbox *outbox, Event *const *events, size_t count,
                              Failure *ret_failure);

/* Whether the user may write to the archive, as a skipped event needs it. */
bool outbox_can_keep(Outbox *outbox, Failure *ret_failure);

/* Releases claimed events to their state before the claim. */
bool outbox_release(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);

typedef struct FailedMark {
  const Failure *failure;
  bool dead;
  bool counts;      /* the attempt that the claim counted stays counted */
  int64_t delay_ms; /* not dead: until the next attempt */
} FailedMark;

bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const FailedMark *mark,
                        Failure *ret_failure);

/* The sweeper's operations on abandoned events. */
typedef enum SweepAction { SWEEP_ACKNOWLEDGE, SWEEP_PENDING, SWEEP_DEAD } SweepAction;

/* Only events that are still abandoned, as outbox_find_abandoned says. */
bool outbox_sweep(Outbox *outbox, Event *const *events, size_t count, SweepAction action,
                  int64_t older_than_ms, Failure *ret_failure);

/* --- entities --- */

/* Reads the entity with that `_id` from the collection. True with `*ret_entity` NULL: there is
 * none. */
bool outbox_read_entity(Outbox *outbox, const char *collection, const Id *id, bson_t **ret_entity,
                        Failure *ret_failure);

/* --- state at large --- */

typedef struct OutboxCounts {
  int64_t pending, in_progress, failed, dead;
  int64_t oldest_occurred_at; /* of events not dead, ms since 1970; 0: none */
  int64_t server_time;        /* ms since 1970 */
} OutboxCounts;

/* What is claimed by the batch counts as in progress. */
bool outbox_count(Outbox *outbox, OutboxCounts *ret_counts, Failure *ret_failure);
/* Aggregates with a failed or dead event. */
bool outbox_count_blocked(Outbox *outbox, int64_t *ret_count, Failure *ret_failure);
/* Failed and dead events by kind, at most `limit`, the most frequent first; `take` receives {_id:
 * {state, event_type, class, message}, count, example} of each, where `example` is an event id. */
bool outbox_count_kinds(Outbox *outbox, int limit, void (*take)(const bson_t *kind, void *data),
                        void *data, Failure *ret_failure);
/* Whether the collection has an index that starts with these fields (a sort document's keys). */
bool outbox_has_index(Outbox *outbox, const char *const *fields, bool *ret_found,
                      Failure *ret_failure);

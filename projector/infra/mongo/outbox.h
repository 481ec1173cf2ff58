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

/* Whether this owner has claimed the event, by its document. */
bool outbox_is_ours(const Outbox *outbox, const bson_t *document);
/* Claims the events: in_progress, claimed_by, claimed_at by the server's clock, attempts + 1. */
bool outbox_claim(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                  Failure *ret_failure);

/* Removes applied events from the outbox: deletes them or moves them to the archive, once every
 * feed has them. Those that are `skipped` go to the archive in any case, with a mark. */
bool outbox_acknowledge(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);
/* Keeps an event that will be superseded because somebody decided so, as a skipped one is kept:
 * with a mark in the archive, if applied events do not all go there. */
bool outbox_keep(Outbox *outbox, Event *event, Failure *ret_failure);
/* The same for events that were read whole, as feeds_copy_whole has it. */
bool outbox_acknowledge_whole(Outbox *outbox, Event *const *events, size_t count,
                              Failure *ret_failure);

/* Whether the user may write to the archive, as a skipped event needs it. */
bool outbox_can_keep(Outbox *outbox, Failure *ret_failure);

/* Releases claimed events to their state before the claim, as their `status` has it: one that had
 * failed keeps its reason and the time of its next attempt, unless it was retried by hand since. */
bool outbox_release(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure);

typedef struct FailedMark {
  const Failure *failure;
  bool dead;
  bool counts;      /* the attempt that the claim counted stays counted */
  int64_t delay_ms; /* not dead: until the next attempt */
} FailedMark;

bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const FailedMark *mark,
                        Failure *ret_failure);

/* Seizes one failed or dead event for this owner, so that no other process works on it. */
bool outbox_seize(Outbox *outbox, const Event *event, bool *ret_seized, Failure *ret_failure);
/* Releases a seized event to the state in which it was read. */
bool outbox_unseize(Outbox *outbox, const Event *event, Failure *ret_failure);

/* The sweeper's operations on abandoned events. SWEEP_UNSEIZE concerns only those that a command
 * had seized, and leaves them as failed or dead as they were. */
typedef enum SweepAction {
  SWEEP_ACKNOWLEDGE,
  SWEEP_UNSEIZE,
  SWEEP_PENDING,
  SWEEP_DEAD
} SweepAction;

/* Only events that are still abandoned, as outbox_find_abandoned says. */
bool outbox_sweep(Outbox *outbox, Event *const *events, size_t count, SweepAction action,
                  int64_t older_than_ms, Failure *ret_failure);

/* --- entities --- */

/* Reads the entity with that `_id` from the collection. True with `*ret_entity` NULL: there is
 * none. */
bool outbox_read_entity(Outbox *outbox, const char *collection, const Id *id, bson_t **ret_entity,
                        Failure *ret_failure);
/* The same as entities_exist. */
bool outbox_entities_exist(Outbox *outbox, const char *collection, bool *ret_exist,
                           Failure *ret_failure);

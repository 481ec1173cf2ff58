/* order.h - how an event relates to what was already applied of its aggregate. */
#pragma once

#include "projector/domain/event.h"

/* What was applied last for an aggregate; a row of projector_position. */
typedef struct Position {
  bool known;                /* false: nothing of this aggregate was applied yet */
  OrderKey last;             /* key of the last applied event */
  int64_t max_version;       /* highest version applied so far; 0: none had one */
  int64_t refreshed_version; /* the row was taken from the entity at this version; 0: never */
} Position;

typedef enum Standing {
  STANDING_NEXT,      /* apply it */
  STANDING_LATE,      /* it sorts before the position: section "late events" of operations.md */
  STANDING_CONTAINED, /* a refresh has already taken its effect from the entity */
  STANDING_REPEATED,  /* it is the last applied event itself (its ledger entry was pruned) */
  STANDING_GAP,       /* versions before it are missing: wait for them */
} Standing;

/* `gap_waited`: missing versions before it were waited for in vain. */
Standing order_standing(const Position *position, const Event *event, bool gap_waited);

/* Whether the event is later than the last applied one, and its version is not above that one's:
 * the version was used twice (MongoDB was restored to an earlier state), or writers' clocks differ.
 * The version of a refresh is not evidence: events up to it may still arrive legitimately. */
bool order_reuses_version(const Position *position, const Event *event);

/* How long the event has to wait because its time is more than `future_ms` ahead of `now_ms`; 0: it
 * need not. If it were applied at once, every event of its aggregate with an earlier time would be
 * late. */
int64_t order_early_ms(const Event *event, int64_t now_ms, int64_t future_ms);

/* The position after the event. The event id's bytes stay the event's. */
void order_advance(Position *position, const Event *event);

/* When the last applied event occurred; INT64_MIN: none was applied, although rows may have been
 * taken from the entity, and events ignored or skipped. */
int64_t order_applied_at(const Position *position);

/* The position after an event that changes no row: its version is accounted for, but it does not
 * make earlier events late. */
void order_pass(Position *position, const Event *event);

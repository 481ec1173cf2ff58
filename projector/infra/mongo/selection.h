/* selection.h - events as selected by the operator, for list, retry and skip. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct Selection {
  const char *event_id;                      /* in its usual text form, or NULL */
  const char *aggregate_type, *aggregate_id; /* the id in its usual text form, or NULL */
  int64_t version;                           /* of the aggregate; 0: any */
  const char *event_type;                    /* or NULL */
  const char *error_class, *error_message;   /* as last_error has them, or NULL */
  const char *const *states;                 /* NULL-terminated; NULL: any */
  const GHashTable *in_hand;                 /* of claims_in_hand: in progress; or NULL */
  int limit;                                 /* 0: none */
} Selection;

/* The events, in order. A text that may be an id of several kinds (UUID or string) selects all. */
EventCursor *selection_find(Outbox *outbox, const Selection *selection);

/* Makes the selected events pending with all their attempts before them. */
bool selection_retry(Outbox *outbox, const Selection *selection, int64_t *ret_count,
                     Failure *ret_failure);

/* Seizes one failed or dead event for this owner, so that no other process works on it. */
bool outbox_seize(Outbox *outbox, const Event *event, bool *ret_seized, Failure *ret_failure);
/* Releases a seized event to the state in which it was read. */
bool outbox_unseize(Outbox *outbox, const Event *event, Failure *ret_failure);

/* Events of any of the aggregates, all of one type, in any state and in no order: with
 * nothing in their payloads. */
EventCursor *outbox_find_of_any(Outbox *outbox, const Aggregate *const *aggregates, size_t count);
/* Every event, in no order: the same of each. */
EventCursor *outbox_list_events(Outbox *outbox);

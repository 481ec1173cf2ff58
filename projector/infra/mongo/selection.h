/* selection.h - events as selected by the operator, for list, retry and skip. */
#pragma once

#include "projector/infra/mongo/outbox.h"

typedef struct Selection {
  const char *event_id;                      /* in its usual text form, or NULL */
  const char *aggregate_type, *aggregate_id; /* the id in its usual text form, or NULL */
  const char *id_kind;                       /* of the id named by text (id_kind_name); NULL: any */
  const Id *event;                           /* exactly this event, or NULL */
  const Aggregate *aggregate;                /* exactly this aggregate, or NULL */
  int64_t version;                           /* of the aggregate; 0: any */
  const char *event_type;                    /* or NULL */
  const char *error_class, *error_message;   /* as last_error has them, or NULL */
  const char *const *states;                 /* NULL-terminated; NULL: any */
  const GHashTable *in_hand;                 /* of claims_in_hand: in progress; or NULL */
  bool in_time;                              /* only with a time in [from, to) */
  int64_t from, to;                          /* ms since 1970; INT64_MAX: no end */
  int limit;                                 /* 0: none */
} Selection;

/* As a filter, without the limit; destroy it. */
bson_t *selection_filter(const Outbox *outbox, const Selection *selection);

/* The events, in order. A text that may be an id of several kinds (UUID or string) selects all,
 * unless `id_kind` names one: what a program has read it names by `event` and `aggregate`. */
EventCursor *selection_find(Outbox *outbox, const Selection *selection);

/* Makes the selected events pending with all their attempts before them. */
bool selection_retry(Outbox *outbox, const Selection *selection, int64_t *ret_count,
                     Failure *ret_failure);

/* find.h - finds an aggregate by the text of its id. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"

typedef struct Sought {
  const char *type, *text;
  const char *kind;    /* of the id (id_kind_name); NULL: any that the text may stand for */
  uint8_t bytes[16];   /* of an id that is no text */
  Aggregate aggregate; /* the aggregate; its id points into `text` or `bytes` */
  bool found;          /* in the outbox or among the entities */
  const char *another; /* the kind of another id of that text that is there too; NULL: none */
} Sought;

/* Fills in `aggregate`, `found` and `another`. The text may be an id of several kinds; the first
 * that exists in the outbox, or as `_id` of an entity, counts. */
bool find_aggregate(const Config *config, Outbox *outbox, Sought *sought, Failure *ret_failure);

/* Fails if the text stands for two aggregates that exist: which of them is meant must be said. */
bool find_one_aggregate(const Config *config, Outbox *outbox, Sought *sought, Failure *ret_failure);

/* Whether one of the projections of the aggregate's type has an entity with that `_id`. */
bool find_entity(const Config *config, Outbox *outbox, const Aggregate *aggregate, bool *ret_found,
                 Failure *ret_failure);

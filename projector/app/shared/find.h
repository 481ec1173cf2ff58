/* find.h - an aggregate as a person names it. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/outbox.h"

/* The id as it stands in the outbox or as `_id` of the entity: the text may be of several kinds,
 * the first that exists counts. The id points into `text` or `bytes`. */
bool find_aggregate(const Config *config, Outbox *outbox, const char *type, const char *text,
                    uint8_t bytes[static 16], Aggregate *ret_aggregate, bool *ret_found,
                    Failure *ret_failure);

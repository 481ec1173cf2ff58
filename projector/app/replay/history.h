/* history.h - all events of one aggregate, from outbox and archive. */
#pragma once

#include "projector/infra/mongo/archive.h"

/* Each in order. An event that moves to the archive meanwhile is in the second. */
typedef struct History {
  GPtrArray *waiting, *archived; /* of Event, owned: in the outbox only, and in the archive */
} History;

History *history_read(Outbox *outbox, Archive *archive, const Aggregate *aggregate,
                      Failure *ret_failure);
void history_free(History *history);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(History, history_free)

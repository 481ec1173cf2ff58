/* refresh.h - takes an aggregate's rows from its entity as it is now: the one healing operation. */
#pragma once

#include "projector/domain/event.h"
#include "projector/domain/mapping.h"
#include "projector/infra/mongo/outbox.h"
#include "projector/infra/mysql/ledger.h"

/* Reads the entity, writes the whole row of every projection of the aggregate's type (or deletes it
 * when the entity is gone) and sets the position to the entity's version; events at or below it are
 * superseded from then on. `late`, when given, is the event that asked for it: it goes into the
 * ledger as superseded in the same transaction. `*ret_version` is the version that the rows show.
 * Needs `entities` in each of these projections. */
bool refresh_aggregate(Session *session, const Ledger *ledger, Outbox *outbox,
                       const Mapping *mapping, const Aggregate *aggregate, Event *late,
                       int64_t *ret_version, Failure *ret_failure);

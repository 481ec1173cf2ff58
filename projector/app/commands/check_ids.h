/* check_ids.h - whether the tables' keys distinguish the aggregates' ids. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/finding.h"

/* Looks at the ids in the outbox, in the collections of entities and among the positions, at most
 * CHECK_IDS of each. NULL on failure. */
enum { CHECK_IDS = 200000 };
GPtrArray *check_ids(const Config *config, Failure *ret_failure);

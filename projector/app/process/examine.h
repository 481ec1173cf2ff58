/* examine.h - whether outbox and tables are as `run` needs them. What is only risky is logged. */
#pragma once

#include "projector/app/shared/config.h"

/* At the start, before anything is written. */
bool examine(const Config *config, MongoStore *store, Failure *ret_failure);
/* At a take-over: again, if the last examination was long ago, because a process that stands by for
 * weeks has seen nothing of what was changed meanwhile. What is wrong with the outbox is only
 * logged then, as an error: the owner before worked with it. */
bool examine_again(const Config *config, MongoStore *store, Failure *ret_failure);

/* mend.h - what a person decides about events that failed: the commands and the page share it.
 *
 * Each works beside a running projector and nudges it to look again. */
#pragma once

#include "projector/app/config.h"
#include "projector/infra/mongo/selection.h"

/* Makes failed and dead events pending with all their attempts before them. */
bool mend_retry(const Config *config, MongoStore *store, const Selection *selection,
                int64_t *ret_count, Failure *ret_failure);
/* Takes them out; the ledger keeps that they were skipped. */
bool mend_skip(const Config *config, MongoStore *store, const Selection *selection,
               int64_t *ret_count, Failure *ret_failure);

typedef struct Refreshed {
  bool found;      /* the aggregate, as an entity or in the outbox */
  int64_t version; /* that the rows show now */
  int64_t left;    /* failed and dead events that the entity does not contain */
} Refreshed;

/* Takes an aggregate's rows from its entity as it is now. */
bool mend_refresh(const Config *config, MongoStore *store, const char *type, const char *id,
                  Refreshed *ret_refreshed, Failure *ret_failure);

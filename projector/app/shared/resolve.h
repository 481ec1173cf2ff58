/* resolve.h - what a person decides about events that failed: the core that commands, page and
 * simulation share.
 *
 * Each function works beside a running projector, whichever process calls it, and nudges the owner
 * to look again. */
#pragma once

#include "projector/app/shared/config.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/selection.h"

/* The states that a person decides about, for Selection.states. */
extern const char *const resolve_blocking[];

/* Who asked for what this thread does, for the owner's log ("192.0.2.7 over HTTP"); NULL: the user
 * of this process. The text stays the caller's. */
void resolve_for(const char *person);

/* One event as it is now; NULL and class NONE: it is not there. */
Event *resolve_show(MongoStore *store, const char *event_id, Failure *ret_failure);

/* Makes failed and dead events pending with all their attempts before them. */
bool resolve_retry(const Config *config, MongoStore *store, const Selection *selection,
                   int64_t *ret_count, Failure *ret_failure);
/* Takes them out; the ledger keeps that they were skipped, and <outbox>_archive the events. */
bool resolve_skip(const Config *config, MongoStore *store, const Selection *selection,
                  int64_t *ret_count, Failure *ret_failure);

/* Told of each event as it was before it was skipped. */
typedef void (*SkippedSink)(const Event *event, void *data);

/* The same, and tells what is skipped. */
bool resolve_skip_telling(const Config *config, MongoStore *store, const Selection *selection,
                          SkippedSink sink, void *data, int64_t *ret_count, Failure *ret_failure);

/* Pauses the projector of the name, or lets it continue. */
bool resolve_pause(const Config *config, MongoStore *store, bool pause, PauseChange *ret_change,
                   Failure *ret_failure);

/* Tells the owner's log what was done by hand and by whom, and has it look again. */
bool resolve_report(const Config *config, MongoStore *store, const char *act, Failure *ret_failure);

typedef struct Refreshed {
  bool found;      /* the aggregate, as an entity or in the outbox */
  int64_t version; /* that the rows show now */
  int64_t left;    /* failed and dead events that the entity does not contain */
} Refreshed;

/* Takes an aggregate's rows from its entity as it is now; without an entity, its rows are removed
 * and its events superseded. */
bool resolve_refresh(const Config *config, MongoStore *store, const char *type, const char *id,
                     Refreshed *ret_refreshed, Failure *ret_failure);
/* The same, but an aggregate that has no entity stays as it is: that is a failure. */
bool resolve_refresh_safely(const Config *config, MongoStore *store, const char *type,
                            const char *id, Refreshed *ret_refreshed, Failure *ret_failure);

/* resolve.h - an operator's actions: decisions about failed events, refreshes, pauses. Shared by
 * commands, page and simulation.
 *
 * Each function works while a projector runs, from any process; one that changes something nudges
 * the owner. */
#pragma once

#include "projector/app/shared/find.h"
#include "projector/infra/mongo/lease.h"
#include "projector/infra/mongo/selection.h"

/* The states that an operator can resolve, for Selection.states. */
extern const char *const resolve_blocking[];

/* The originator of this thread's actions, for the owner's log ("192.0.2.7 over HTTP"); NULL: the
 * user of this process. The text is borrowed. */
void resolve_for(const char *person);

/* One event in its current state; NULL with class NONE: it does not exist. `kind`: of its id
 * (id_kind_name), or NULL. */
Event *resolve_show(MongoStore *store, const char *event_id, const char *kind,
                    Failure *ret_failure);

/* Makes failed and dead events pending with all their attempts before them. */
bool resolve_retry(const Config *config, MongoStore *store, const Selection *selection,
                   int64_t *ret_count, Failure *ret_failure);
/* Removes them from the outbox; the ledger records the skip, and <outbox>_archive keeps the
 * events. */
bool resolve_skip(const Config *config, MongoStore *store, const Selection *selection,
                  int64_t *ret_count, Failure *ret_failure);

/* Called with each event as it was before it was skipped. */
typedef void (*SkippedSink)(const Event *event, void *data);

/* The same, and reports each skipped event. */
bool resolve_skip_reporting(const Config *config, MongoStore *store, const Selection *selection,
                            SkippedSink sink, void *data, int64_t *ret_count, Failure *ret_failure);

/* Pauses the projector of the name, or lets it continue. */
bool resolve_pause(const Config *config, MongoStore *store, bool pause, PauseChange *ret_change,
                   Failure *ret_failure);

/* Records an operator's action and its originator for the owner's log, and nudges the owner. */
bool resolve_report(const Config *config, MongoStore *store, const char *act, Failure *ret_failure);

typedef struct Refreshed {
  bool found;      /* whether the aggregate exists, as an entity or in the outbox */
  int64_t version; /* the version that the rows show now */
  int64_t left;    /* failed and dead events that the entity does not contain */
  int64_t freed; /* those that it contains: superseded from now on, and kept in <outbox>_archive */
  /* Events in the outbox without a version: applied on top, whether the entity contains them or
   * not. */
  int64_t unversioned;
} Refreshed;

/* Takes an aggregate's rows from its entity as it is now; without an entity, its rows are removed
 * and its events superseded. Fails without changes if the text names two aggregates. */
bool resolve_refresh(const Config *config, MongoStore *store, Sought *sought,
                     Refreshed *ret_refreshed, Failure *ret_failure);
/* The same, but fails without changes if the aggregate has no entity. */
bool resolve_refresh_safely(const Config *config, MongoStore *store, Sought *sought,
                            Refreshed *ret_refreshed, Failure *ret_failure);

/* shape.h - whether the outbox, a feed, the archive, or entities are a suitable collection. */
#pragma once

#include "projector/infra/finding.h"
#include "projector/infra/mongo/store.h"

/* Adds an error for what loses events or stops all of them (a view, a time series, a capped
 * collection, a TTL index, a validator that refuses the projector's fields), and a warning for what
 * is only risky. Writes nothing. An outbox that is not there has no findings. False when the server
 * could not be asked. `*ret_seen` (NULL allowed): whether the user may see the collection's
 * options; if not, there may be a validator, or it may be capped. */
bool mongo_check_outbox(MongoStore *store, GPtrArray *findings, bool *ret_seen,
                        Failure *ret_failure);
/* The same for a feed, which is its reader's outbox. */
bool mongo_check_feed(MongoStore *store, const char *feed, GPtrArray *findings,
                      Failure *ret_failure);
/* The same for the archive, into which applied events are moved. */
bool mongo_check_archive(MongoStore *store, GPtrArray *findings, Failure *ret_failure);
/* Adds an error for entities that are no ordinary collection. */
bool mongo_check_entities(MongoStore *store, const char *collection, GPtrArray *findings,
                          Failure *ret_failure);
/* Whether events can be copied into all feeds and, if it is used for all of them, the archive. */
bool mongo_check_copies(MongoStore *store, GPtrArray *findings, Failure *ret_failure);

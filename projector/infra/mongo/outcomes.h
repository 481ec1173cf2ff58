/* outcomes.h - the newest versions that were accounted for without being applied, for a wait whose
 * event has left the outbox.
 *
 * Stored in one document of projector_leases, "<name>:outcomes". */
#pragma once

#include "projector/domain/event.h"
#include "projector/infra/mongo/store.h"

/* As many notes of missing versions are kept, and as many others. */
enum { OUTCOMES_MAX = 256 };

typedef struct VersionOutcome {
  const Aggregate *aggregate;
  int64_t first, last; /* versions */
  const char *outcome; /* "applied" too: of what was missing first, and came late */
} VersionOutcome;

/* Notes them; the oldest notes make room, the missing versions' apart. `count` is at least 1. */
bool outcomes_note(MongoStore *store, const char *name, const VersionOutcome *list, size_t count,
                   Failure *ret_failure);
typedef void (*OutcomeSink)(const VersionOutcome *outcome, void *data);

/* Calls the sink with each note of missing versions, the oldest first. */
bool outcomes_each_missing(MongoStore *store, const char *name, OutcomeSink sink, void *data,
                           Failure *ret_failure);
/* The newest note of that version; NULL: there is none. Free with g_free. */
bool outcomes_find(MongoStore *store, const char *name, const Aggregate *aggregate, int64_t version,
                   char **ret_outcome, Failure *ret_failure);

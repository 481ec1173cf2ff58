/* rebuild.h - the state of `projector rebuild`, shared by its ways to fill a table. */
#pragma once

#include "projector/app/rebuild/prefetch.h"
#include "projector/app/reconcile/difference.h"
#include "projector/app/shared/journal.h"
#include "projector/app/shared/stores.h"

/* Where a rebuild stands: every step is one reading of entities or rows. */
typedef struct RebuildCheckpoint {
  int64_t step;
  bson_t *entity; /* `_id` of the last entity of the step, or NULL */
  int64_t entities, deleted, left;
} RebuildCheckpoint;

typedef struct Rebuild {
  const Config *config;
  GPtrArray *projections; /* of Projection: those to fill */
  Stores stores;
  Journal *journal;
  RebuildCheckpoint at;
  int64_t rate;         /* entities a second; 0: as fast as it goes */
  int64_t left;         /* in all */
  GHashTable *left_ids; /* "TABLE ID" of those that were left */
  bool as_json, drop_old;
  bool force;         /* even if a collection of entities is missing */
  int64_t started_us; /* the table at hand */
} Rebuild;

/* Prints a line of the journal and remembers entities that were left. `data` is the Rebuild. */
void rebuild_show_line(const json_t *line, void *data);
/* Restores the progress of an interrupted rebuild from the journal's checkpoint. */
RebuildCheckpoint rebuild_checkpoint_from(const json_t *json);
/* Records the progress. */
void rebuild_checkpoint(Rebuild *rebuild);
/* Begins the next step. */
void rebuild_next_step(Rebuild *rebuild);
/* Reports that an aggregate's row does not match its entity, and why. */
void rebuild_leave(Rebuild *rebuild, const Projection *projection, const Aggregate *aggregate,
                   const char *reason);
/* The same for a difference found at the end, unless it was reported before. */
void rebuild_leave_different(Rebuild *rebuild, const Projection *projection,
                             const Difference *difference, const char *reason);
/* Reports that the table is done, and resets the counts. */
void rebuild_done(Rebuild *rebuild, const Projection *projection);

/* Refreshes aggregates of the projection's type; those that cannot be are left. */
bool rebuild_refresh(Rebuild *rebuild, Stores *stores, Reads *reads, const Projection *projection,
                     const Aggregate *aggregates, size_t count, Failure *ret_failure);
/* Refuses to delete or replace rows while their collection of entities is missing, unless
 * forced. */
bool rebuild_check_emptied(Rebuild *rebuild, const Projection *projection, Failure *ret_failure);
/* About how many entities there are. */
bool rebuild_estimate(Rebuild *rebuild, const Projection *projection, int64_t *ret_total,
                      Failure *ret_failure);
/* Fills the tables in place. */
bool rebuild_in_place(Rebuild *rebuild, Failure *ret_failure);
/* Whether shadow tables can be built. */
bool rebuild_shadow_check(Rebuild *rebuild, Failure *ret_failure);
/* Builds the shadow tables and swaps them in. */
bool rebuild_shadow(Rebuild *rebuild, Failure *ret_failure);

/* watch.h - what is remembered of events and tables: suspects, which failed alone; marks that
 * MongoDB refuses; what was logged lately; missing versions; projections whose table is locked.
 *
 * In memory, for one tenure: a later owner starts from zero, counts the attempts that the claims
 * have used up, and reads the notes of missing versions. Bounded. All functions may be called from
 * any thread. */
#pragma once

#include "projector/domain/plan.h"

typedef struct Watch Watch;

Watch *watch_new(void);
void watch_free(Watch *watch);

/* --- events --- */

/* From now on the event is tried alone, because its wait would delay others too. */
void watch_suspect(Watch *watch, const Id *event);
/* The same, and a failure counts against it. */
void watch_count(Watch *watch, const Id *event);
bool watch_suspects(Watch *watch, const Id *event);
/* The failures that count. */
int watch_breaks(Watch *watch, const Id *event);
/* It was applied. */
void watch_acquit(Watch *watch, const Id *event);

/* Whether to log this about the event now: once in ten seconds. `*ret_suppressed`: how often it was
 * suppressed since. */
bool watch_may_log(Watch *watch, const Id *event, const char *message, const Failure *failure,
                   int64_t *ret_suppressed);

/* MongoDB refuses the event's mark, so its document cannot show why it waits. Forgotten when it is
 * acquitted, or was not refused again for a while. */
void watch_refuse(Watch *watch, const Id *event, const Failure *failure);
/* Rises when the set of refused events changes. */
uint64_t watch_refusals(Watch *watch);
/* Those that are refused now; of Refused. */
GArray *watch_list_refused(Watch *watch);

/* Whether this is the first report about the aggregate, as far as is remembered. */
bool watch_is_first(Watch *watch, uint64_t aggregate_hash);

enum { WATCH_MISSED_MAX = 256 }; /* ranges of missing versions: as many as MongoDB keeps notes */

/* Those versions of the aggregate are about to be noted as missing, or are: if one of them is
 * applied after all, its note has to be corrected. The latest are remembered. */
void watch_miss(Watch *watch, uint64_t aggregate_hash, int64_t first, int64_t last);
/* Sets `was_missing` of each item: whether its version is one of them, as far as the hash tells. */
void watch_recall_missing(Watch *watch, Item *items, size_t count);

/* --- projections, by index --- */

typedef enum Gate {
  GATE_OPEN,
  GATE_TRIAL,  /* was closed; the caller examines the table and lets one event try */
  GATE_CLOSED, /* its events wait */
} Gate;

/* `*ret_why`, for a gate that is not open. `rows`: a lock of the rows, which only an event
 * meets. */
Gate watch_gate(Watch *watch, unsigned projection, Failure *ret_why, bool *ret_rows);
/* For some seconds. */
void watch_close(Watch *watch, unsigned projection, const Failure *why, bool rows);
/* The trial is over. If it was inconclusive, because the event was not yet due or failed before the
 * rows, the next one may try. */
void watch_end_trial(Watch *watch, unsigned projection);
/* Something of it was written. */
void watch_open(Watch *watch, unsigned projection);
/* An event of that aggregate failed, alone, at the rows, and perhaps not by its own fault: it
 * waited for a lock, got an unknown error, or one of the table's. Returns true when events of
 * several aggregates did, none was written in between, and they all still wait; otherwise a gate
 * that was closed for that reason is open again. */
bool watch_tally(Watch *watch, unsigned projection, uint64_t aggregate_hash);
/* Whether the aggregate is one of those. */
bool watch_tallied(Watch *watch, unsigned projection, uint64_t aggregate_hash);
/* An event of the aggregate waits at the gate. An aggregate of which none has waited for more than
 * a minute is settled and no longer counts, so that the last one does not wait forever. */
void watch_still_waits(Watch *watch, unsigned projection, uint64_t aggregate_hash);

/* fake_mongo.h - what the files of the outbox in memory share: fake_mongo.c writes, fake_cursor.c
 * reads, fake_selection.c does what a person asks for. */
#pragma once

#include "projector/infra/mongo/outbox_private.h" /* of struct Outbox there is only the owner */
#include "tests/sim/sim.h"

extern const char *const status_names[], *const feed_names[];

/* --- fake_mongo.c --- */

SimEvent as_known_to_majority(const SimEvent *event);
/* Before a write that waits for a majority; what came before it on the document is then known
 * too. */
void write_by_majority(SimEvent *event);
void set_status(SimEvent *event, EventStatus status);
/* How many of the documents a write reaches before it fails. */
size_t reach(size_t count, bool *ret_whole);
bool broken_off(const char *what, Failure *ret_failure);
/* An instance that is to freeze as soon as it has claimed something does. */
void spring_trap(void);
/* How old an abandoned claim has to be for the filter; negative: it says nothing of that. */
int64_t abandoned_ms(const bson_t *filter);
/* Claims the event in its own document. */
void mark_in_progress(SimEvent *event, const char *owner);
bool is_ours(const Outbox *outbox, const SimEvent *event);
/* Before a write that does not wait for a majority. */
void write_quickly(SimEvent *event);
void take_out(SimEvent *event, const char *how);
bool is_abandoned(const Outbox *outbox, const SimEvent *event, int64_t older_than_ms);

/* --- fake_claims.c --- */

/* Pending and never attempted, as what is claimed by the batch was read. */
bool is_untouched(const SimEvent *event);
/* Whether a claim of that owner names the event. */
bool claims_name(const char *owner, const SimEvent *event);
void claims_roll_back(void);

/* --- fake_cursor.c --- */

typedef enum Query {
  ALL,
  ABANDONED,
  OF_AGGREGATE,
  VERSIONS,
  OF_IDS,
  SELECTED,
  FILTERED,
  UNFED,
  UNNUMBERED
} Query;

/* The documents are those of the moment in which the first one is asked for: what the code sees
 * later is old, as in a batch of a real cursor. */
struct EventCursor {
  Query query;
  const Outbox *outbox;
  int64_t older_than_ms, first, last;
  const OrderKey *after;
  unsigned aggregate, limit;
  const Selection *selection; /* outlives the cursor */
  bool wanted[EVENTS_MAX];    /* OF_IDS */
  bson_t *filter;             /* FILTERED */
  int64_t moment_us;          /* UNFED */
  bool open;
  GPtrArray *found; /* of bson_t */
  unsigned next;
};

EventCursor *cursor_new(const Outbox *outbox, Query query);

/* --- fake_selection.c --- */

bool is_selected(const Selection *selection, const SimEvent *event);

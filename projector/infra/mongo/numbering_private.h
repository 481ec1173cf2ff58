/* numbering_private.h - what numbering.c decides is done by numbering_commands.c. */
#pragma once

#include "projector/infra/mongo/numbering.h"

enum { NUMBERING_PAGE = 1000 }; /* events read at a time, and numbered in a transaction */

/* The ids of events of the archive that have no number, in order, as a majority knows them. */
EventCursor *numbers_find_missing(Outbox *archive);

typedef struct NumberTransaction NumberTransaction;

NumberTransaction *numbers_begin(MongoStore *store, Failure *ret_failure);

typedef struct NumberClaim {
  int64_t epoch;
  uint32_t count;  /* of numbers */
  int64_t highest; /* number in the archive; the counter may be older */
} NumberClaim;

/* The highest number in the archive; 0: none. */
bool numbers_find_highest(Outbox *archive, int64_t *ret_highest, Failure *ret_failure);

/* Raises the counter; `*ret_before` is the number before the first of them. FAILURE_FENCED: an
 * owner of a later epoch has raised it. */
bool numbers_take(NumberTransaction *transaction, const NumberClaim *claim, int64_t *ret_before,
                  Failure *ret_failure);
/* Numbers the events of {"0": id, "1": id …} that have no number; `*ret_written` counts them. */
bool numbers_write(NumberTransaction *transaction, const bson_t *ids, int64_t before,
                   int64_t *ret_written, Failure *ret_failure);
/* For a majority. */
bool numbers_commit(NumberTransaction *transaction, Failure *ret_failure);
/* What is not committed is rolled back. */
void numbers_end(NumberTransaction *transaction);

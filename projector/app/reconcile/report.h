/* report.h - what reconcile prints: differences and sums on stdout, progress on stderr.
 *
 * A line is a JSON object; people get the same as a table. Lines are also what is kept for
 * --resume, so that a comparison which was interrupted prints what an uninterrupted one would have.
 */
#pragma once

#include "projector/app/reconcile/compare.h"

#include <jansson.h>

/* A difference as a line. */
json_t *report_difference(const Difference *difference);

/* The sums of one projection, or of the outbox's events (`table` NULL). */
typedef struct ReportSums {
  const char *table;
  CompareCounts counts;
  int64_t found[DIFFERENCE_KINDS], mended;
  bool rows_too;           /* a sample has no pass over the rows */
  double seconds, mending; /* in all, and spent on mending */
} ReportSums;

json_t *report_sums(const ReportSums *sums);

/* Prints a line; on a terminal the progress bar makes way. */
void report_print(const json_t *line, bool as_json);

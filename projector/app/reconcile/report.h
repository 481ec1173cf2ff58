/* report.h - the output of reconcile: differences and totals on stdout, progress on stderr.
 *
 * A line is a JSON object, or the same as a table row. Lines are also stored for --resume, so that
 * an interrupted comparison prints the same as an uninterrupted one. */
#pragma once

#include "projector/app/reconcile/compare.h"

#include <jansson.h>

/* A difference as a line. */
json_t *report_difference(const Difference *difference);

/* The totals of one projection, or of the outbox's events (`table` NULL). */
typedef struct ReportSums {
  const char *table;
  CompareCounts counts;
  int64_t found[DIFFERENCE_KINDS], repaired;
  bool rows_too;             /* a sample has no pass over the rows */
  double seconds, repairing; /* in total, and spent on repairs */
} ReportSums;

json_t *report_sums(const ReportSums *sums);

/* Prints a line; on a terminal, clears the progress bar first. */
void report_print(const json_t *line, bool as_json);

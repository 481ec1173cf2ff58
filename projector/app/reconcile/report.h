/* report.h - what reconcile prints: differences and sums on stdout, progress on stderr.
 *
 * A line is a JSON object; people get the same as a table. Lines are also what is kept for
 * --resume, so that a comparison which was interrupted prints what an uninterrupted one would have.
 */
#pragma once

#include "projector/app/reconcile/compare.h"

#include <jansson.h>

/* Texts from outside, made valid UTF-8; NULL of a column is null. */
json_t *text_json(const char *text, size_t length);
json_t *value_json(const Value *value);
/* The same as MySQL shows it in that column: 37.70 of a decimal(18,2). */
json_t *column_json(const Column *column, const Value *value);
json_t *id_json(const Id *id);

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

/* One line on stderr that refreshes, when that is a terminal. `total` is a guess. */
typedef struct Progress {
  const char *what; /* "account, entities" */
  int64_t total, start, started_us, shown_us;
} Progress;

void progress_begin(Progress *progress, const char *what, int64_t done, int64_t total);
void progress_show(Progress *progress, int64_t done);
void progress_end(Progress *progress);

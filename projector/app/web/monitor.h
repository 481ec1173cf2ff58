/* monitor.h - polls both stores and keeps the results, with the figures of the last minutes.
 *
 * What is answered from here never reaches a store: however many requests there are, the stores see
 * one poll every few seconds, and no request waits for a store that does not answer. */
#pragma once

#include "projector/app/commands/status.h"
#include "projector/app/engine/metrics.h"

typedef struct Report {
  Status status;
  int64_t ledger_rows;
  json_t *kinds;     /* array of the kinds of failed and dead events, the most frequent first */
  json_t *troubles;  /* array of the first failed and dead events, as `list --json` shows them */
  int64_t looked_at; /* monotonic, us; of the counts and troubles; 0: not yet */
  bool stores_known; /* whether the stores and the lease have been asked */
} Report;

/* One second. */
typedef struct Sample {
  int64_t at_ms;    /* since 1970 */
  double per_s;     /* events committed */
  double lag_ms;    /* of these, on average; negative: there were none */
  double worst_ms;  /* of these */
  double oldest_ms; /* age of the oldest event that waits */
} Sample;

enum { SAMPLES_MAX = 600 };

typedef struct Monitor Monitor;

/* Everything given must outlive it. */
Monitor *monitor_new(const Config *config, Metrics *metrics);
/* Starts polling: regularly, or only on demand for a line in the log. */
void monitor_start(Monitor *monitor, MongoStore *store, bool by_itself);
void monitor_free(Monitor *monitor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Monitor, monitor_free)

/* Requests a status line in the log. */
void monitor_log(Monitor *monitor);
/* Requests a poll soon, after a change by the operator. */
void monitor_look(Monitor *monitor);

/* Release with report_release. */
Report *monitor_report(Monitor *monitor);
void report_release(Report *report);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Report, report_release)
/* Samples after that time, the oldest first, into room for SAMPLES_MAX. */
unsigned monitor_samples(Monitor *monitor, int64_t after_ms, Sample *ret_samples);

/* exposition.c - `/metrics`. docs/operations.md says what each metric means. */
#include "projector/app/web/exposition.h"

#include "projector/infra/log_writer.h"

#include <dirent.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void number(GString *text, double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  g_string_append(text, g_ascii_formatd(digits, sizeof digits, "%.15g", value));
}

static void family(GString *text, const char *name, const char *type, const char *help) {
  g_string_append_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* `label` NULL: none. The values are names of tables, classes and states, which need no
 * escaping. */
static void sample(GString *text, const char *name, const char *label, const char *value,
                   double figure) {
  g_string_append(text, name);
  if (label)
    g_string_append_printf(text, "{%s=\"%s\"}", label, value);
  g_string_append_c(text, ' ');
  number(text, figure);
  g_string_append_c(text, '\n');
}

static void single(GString *text, const char *name, const char *type, const char *help,
                   double figure) {
  family(text, name, type, help);
  sample(text, name, NULL, NULL, figure);
}

static void histogram(GString *text, const char *name, const char *help, const Histogram *histogram,
                      const Bounds *bounds) {
  int64_t below = 0;
  family(text, name, "histogram", help);
  for (unsigned i = 0; i <= bounds->count; i++) {
    below += histogram->counts[i];
    g_string_append_printf(text, "%s_bucket{le=\"", name);
    if (i < bounds->count)
      number(text, bounds->upper[i]);
    else
      g_string_append(text, "+Inf");
    g_string_append_printf(text, "\"} %" G_GINT64_FORMAT "\n", below);
  }
  g_string_append_printf(text, "%s_sum ", name);
  number(text, histogram->sum);
  g_string_append_printf(text, "\n%s_count %" G_GINT64_FORMAT "\n", name, below);
}

/* --- the families --------------------------------------------------------------------------- */

static void outcomes(GString *text, const Config *config, const Figures *figures) {
  static const char *const families[OUTCOME_COUNT][2] = {
      [OUTCOME_APPLIED] = {"projector_events_applied_total",
                           "Events whose changes were committed."},
      [OUTCOME_SUPERSEDED] = {"projector_events_superseded_total",
                              "Events superseded by a newer state."},
      [OUTCOME_IGNORED] = {"projector_events_ignored_total", "Events that change nothing."},
      [OUTCOME_LATE] = {"projector_events_late_total",
                        "Events that came after a newer one of their aggregate."},
      [OUTCOME_FAILED] = {"projector_events_failed_total",
                          "Attempts to apply an event that failed."},
      [OUTCOME_DEAD] = {"projector_events_dead_total", "Events that used up their attempts."},
      [OUTCOME_GAP] = {"projector_gaps_total", "Waits for a missing version."},
      [OUTCOME_REUSED] = {"projector_reused_versions_total",
                          "Later events with a version that their aggregate had before."},
      [OUTCOME_UNHEALED] = {"projector_events_superseded_without_entity_total",
                            "Superseded events without an entity to take the row from."},
  };
  for (unsigned outcome = 0; outcome < OUTCOME_COUNT; outcome++) {
    family(text, families[outcome][0], "counter", families[outcome][1]);
    for (unsigned i = 0; i < figures->tables; i++)
      sample(text, families[outcome][0], "projection",
             i + 1 < figures->tables ? mapping_projection(config->mapping, i)->table : "",
             (double)figures->outcomes[i][outcome]);
  }
}

static void outbox(GString *text, const Status *status) {
  const OutboxCounts *counts = &status->counts;
  static const char name[] = "projector_outbox_events";
  family(text, name, "gauge", "Events in the outbox by state.");
  sample(text, name, "state", "pending", (double)counts->pending);
  sample(text, name, "state", "in_progress", (double)counts->in_progress);
  sample(text, name, "state", "failed", (double)counts->failed);
  sample(text, name, "state", "dead", (double)counts->dead);
  sample(text, name, "state", "future", (double)counts->future);
  single(text, "projector_oldest_event_age_seconds", "gauge",
         "Age of the oldest event that is not dead, by its writer's clock.",
         (double)status_oldest_age_ms(status) / 1e3);
  single(text, "projector_waiting_seconds", "gauge",
         "How long the oldest event has waited since it could be read, by MongoDB's clock.",
         (double)status_lag_ms(status) / 1e3);
  single(text, "projector_blocked_aggregates", "gauge", "Aggregates behind a failed or dead event.",
         (double)status->blocked);
}

static void feeds(GString *text, const Status *status) {
  static const char events[] = "projector_feed_events", running[] = "projector_feed_reader_running";
  static const char lag[] = "projector_feed_lag_seconds";
  if (status->feed_count == 0)
    return;
  family(text, events, "gauge", "Events in a feed, which its reader has not applied.");
  for (unsigned i = 0; i < status->feed_count; i++)
    sample(text, events, "feed", status->feeds[i].name, (double)status->feeds[i].events);
  family(text, running, "gauge", "1: the projector that reads the feed runs.");
  for (unsigned i = 0; i < status->feed_count; i++)
    sample(text, running, "feed", status->feeds[i].name, status->feeds[i].reader_works);
  family(text, lag, "gauge", "How long a feed's oldest event has waited, as its reader reports.");
  for (unsigned i = 0; i < status->feed_count; i++)
    if (status->feeds[i].reader_lag_ms >= 0)
      sample(text, lag, "feed", status->feeds[i].name,
             (double)status->feeds[i].reader_lag_ms / 1e3);
}

static void source(GString *text, const FeedSource *source) {
  static const char running[] = "projector_source_running", lag[] = "projector_source_lag_seconds";
  if (!*source->name)
    return;
  family(text, running, "gauge", "1: the projector that copies its events into our outbox runs.");
  sample(text, running, "source", source->name, source->works);
  family(text, lag, "gauge", "How long the oldest event has waited there, as it reports.");
  if (source->lag_ms >= 0)
    sample(text, lag, "source", source->name, (double)source->lag_ms / 1e3);
}

static void receipts(GString *text, const Status *status) {
  if (status->counted && status->receipts >= 0)
    single(text, "projector_command_receipts", "gauge",
           "Receipts of executed commands, from which a repeated one is recognized.",
           (double)status->receipts);
}

static void archive(GString *text, const Config *config, const Figures *figures) {
  int64_t since = figures->unnumbered_since;
  if (config->mongodb.archive)
    single(text, "projector_numbering_lag_seconds", "gauge",
           "How long archived events have waited for their number; 0: none waits.",
           since ? (double)(g_get_monotonic_time() - since) / 1e6 : 0);
}

static void stores(GString *text, const Report *report) {
  static const char name[] = "projector_store_up";
  static const char usable[] = "projector_store_usable";
  bool looked = report->looked_at != 0, known = report->stores_known;
  const StoreState *mongodb = &report->status.mongodb, *mysql = &report->status.mysql;
  family(text, name, "gauge", "Whether the store answers.");
  sample(text, name, "store", "mongodb", known && mongodb->reachable);
  sample(text, name, "store", "mysql", known && mysql->reachable);
  family(text, usable, "gauge", "Whether the store answers and accepts work.");
  sample(text, usable, "store", "mongodb", known && mongodb->failure.class == FAILURE_NONE);
  sample(text, usable, "store", "mysql", known && mysql->failure.class == FAILURE_NONE);
  single(text, "projector_ledger_rows", "gauge", "Rows of the ledger, as MySQL estimates them.",
         (double)report->ledger_rows);
  single(text, "projector_last_look_age_seconds", "gauge",
         "Time since the outbox was last counted.",
         looked ? (double)(g_get_monotonic_time() - report->looked_at) / 1e6 : 0);
}

static void tenure(GString *text, const Figures *figures) {
  const TenureView *view = &figures->tenure;
  bool working = figures->role == ROLE_WORKING;
  single(text, "projector_lease_held", "gauge", "1: this process is the owner and works.", working);
  single(text, "projector_epoch", "gauge", "Epoch of this process as owner; 0: it is not.",
         (double)view->epoch);
  single(text, "projector_paused", "gauge", "1: paused; nothing is applied.", view->pause.on);
  single(text, "projector_replica_lag_seconds", "gauge",
         "Lag of the slowest replica, where max_replica_lag_s is set.", figures->replica_lag_s);
  single(text, "projector_throttled", "gauge", "1: nothing is applied because a replica lags.",
         figures->replica_lags);
  single(text, "projector_queue_events", "gauge", "Events queued in memory.", (double)view->queued);
  single(text, "projector_queue_bytes", "gauge", "Memory of queued events.", (double)view->bytes);
  single(text, "projector_in_hand_events", "gauge", "Events claimed and not settled.",
         (double)view->in_hand);
  single(text, "projector_held_aggregates", "gauge",
         "Aggregates on hold in memory: failed, dead, taken or with a gap.", (double)view->held);
  single(text, "projector_future_aggregates", "gauge",
         "Aggregates that wait because an event's time is far ahead of MongoDB's clock.",
         (double)view->future);
  single(text, "projector_workers", "gauge", "Workers that run.", view->workers);
  single(text, "projector_workers_waiting", "gauge",
         "Workers that wait for a store to come back: above 0 the circuit is open.", view->waiting);
  single(text, "projector_change_stream_up", "gauge", "1: the change stream is followed.",
         working && view->reader == READER_STREAMING);
  single(text, "projector_change_stream_restarts_total", "counter",
         "How often the change stream was reopened.", (double)figures->restarts);
}

static void retries(GString *text, const Figures *figures) {
  static const char name[] = "projector_retries_total";
  family(text, name, "counter", "Retries, by failure class.");
  for (unsigned class = FAILURE_NONE + 1; class < CLASS_COUNT; class ++)
    sample(text, name, "class", failure_class_name((FailureClass) class),
           (double)figures->retries[class]);
}

/* --- the process, by the names that every Prometheus client uses ------------------------------ */

static int count_open_files(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = -3; /* ".", "..", and the directory being read */
  while (folder && readdir(folder))
    count++;
  if (folder)
    closedir(folder);
  return MAX(count, 0);
}

enum { STARTED_AT = 19 /* field 22, counted from 0 behind the name */, STAT_FIELDS = 52 };

/* In /proc/self/stat the program's name is in parentheses and may contain anything. */
static double started_at(void) {
  g_autofree char *stat = NULL;
  struct timespec now, up;
  const char *name_end =
      g_file_get_contents("/proc/self/stat", &stat, NULL, NULL) ? strrchr(stat, ')') : NULL;
  if (!name_end)
    return 0;
  g_auto(GStrv) fields = g_strsplit(name_end + strlen(") "), " ", STAT_FIELDS);
  if (g_strv_length(fields) <= STARTED_AT)
    return 0;
  clock_gettime(CLOCK_REALTIME, &now);
  clock_gettime(CLOCK_BOOTTIME, &up);
  return (double)(now.tv_sec - up.tv_sec) +
         (double)g_ascii_strtoull(fields[STARTED_AT], NULL, 10) / (double)sysconf(_SC_CLK_TCK);
}

/* All pages, and the resident ones. */
static void count_pages(double *ret_all, double *ret_resident) {
  g_autofree char *statm = NULL;
  char *rest = NULL;
  *ret_all = *ret_resident = 0;
  if (!g_file_get_contents("/proc/self/statm", &statm, NULL, NULL))
    return;
  *ret_all = (double)g_ascii_strtoull(statm, &rest, 10);
  *ret_resident = (double)g_ascii_strtoull(rest, NULL, 10);
}

static void process(GString *text) {
  single(text, "projector_log_lines_dropped_total", "counter",
         "Log lines dropped because they were not read in time.", (double)log_writer_dropped());
  struct rusage usage;
  struct rlimit files;
  double all, resident, page = (double)sysconf(_SC_PAGESIZE);
  getrusage(RUSAGE_SELF, &usage);
  getrlimit(RLIMIT_NOFILE, &files);
  count_pages(&all, &resident);
  single(text, "process_cpu_seconds_total", "counter", "User and system CPU time.",
         (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
             (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
  single(text, "process_resident_memory_bytes", "gauge", "Resident memory.", resident * page);
  single(text, "process_virtual_memory_bytes", "gauge", "Virtual memory.", all * page);
  single(text, "process_open_fds", "gauge", "Open file descriptors.", count_open_files());
  single(text, "process_max_fds", "gauge", "Limit of open file descriptors.",
         (double)files.rlim_cur);
  single(text, "process_start_time_seconds", "gauge", "Start, in seconds since 1970.",
         started_at());
}

GString *exposition(const Config *config, const Figures *figures, const Report *report,
                    const OpenRequests *open) {
  GString *text = g_string_sized_new(16384);
  family(text, "projector_info", "gauge", "Name and version.");
  g_string_append_printf(text, "projector_info{name=\"%s\",version=\"%s\"} 1\n", config->name,
                         PROJECTOR_VERSION);
  single(text, "projector_events_committed_total", "counter",
         "Events in the ledger since the start, each once.", (double)figures->committed);
  outcomes(text, config, figures);
  histogram(text, "projector_lag_seconds", "From the commit in MongoDB to that in MySQL.",
            &figures->lag_s, &lag_bounds_s);
  histogram(text, "projector_batch_events", "Events in a transaction.", &figures->batch_events,
            &batch_bounds_events);
  histogram(text, "projector_batch_duration_seconds", "Time of a transaction.", &figures->batch_s,
            &batch_bounds_s);
  outbox(text, &report->status);
  source(text, &report->status.source);
  feeds(text, &report->status);
  receipts(text, &report->status);
  archive(text, config, figures);
  tenure(text, figures);
  single(text, "projector_waiters", "gauge", "Requests to /wait that wait for a version.",
         open->waiters);
  single(text, "projector_event_readers", "gauge", "Requests to /events that are being answered.",
         open->event_readers);
  retries(text, figures);
  stores(text, report);
  process(text);
  return text;
}

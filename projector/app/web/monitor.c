/* monitor.c - a thread that queries the stores, and one that records the figures of each second. */
#include "projector/app/web/monitor.h"

#include "projector/app/commands/list.h"
#include "projector/app/web/health.h"
#include "projector/app/web/probe.h"
#include "projector/infra/lock.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/outbox_state.h"
#include "projector/infra/mongo/selection.h"

enum {
  PACE_MS = 2000,  /* between two looks */
  PACE_SHARE = 20, /* the pause is this many times as long as a look took, at most PACE_MAX_MS */
  PACE_MAX_MS = 30000,
  SAMPLE_MS = 1000,
  TROUBLES_MAX = 50,
  KINDS_MAX = 20,
  STORES_KNOWN_MS = 5000, /* a requested line waits this long for the stores */
};

struct Monitor {
  const Config *config;
  Metrics *metrics;
  MongoStore *store;
  bool by_itself;
  GThread *looking, *sampling;
  Probe *probe; /* NULL: not started */
  GMutex lock;
  GCond changed;
  bool ending, wanted, to_log;
  Report *report;
  Sample samples[SAMPLES_MAX]; /* a ring buffer */
  int64_t sampled;
};

/* --- reports -------------------------------------------------------------------------------- */

static void clear_report(gpointer data) {
  Report *report = data;
  json_decref(report->troubles);
  json_decref(report->kinds);
}

void report_release(Report *report) {
  if (report)
    g_atomic_rc_box_release_full(report, clear_report);
}

static Report *new_report(const Config *config) {
  Report *report = g_atomic_rc_box_new0(Report);
  report->status.name = config->name;
  report->status.future_ms = config->settings.future_ms;
  report->troubles = json_array();
  report->kinds = json_array();
  return report;
}

/* What this process has experienced itself, or what a standby hears from the owner. */
static void add_trouble(Status *status, const Figures *figures) {
  if (figures->trouble.class != FAILURE_NONE)
    status_take_trouble(status, &figures->trouble, figures->trouble_since_ms);
  else if (status->lease.held && figures->role != ROLE_WORKING)
    status_take_trouble(status, &status->lease.trouble, status->lease.trouble_since_ms);
}

/* The last counts, and the stores as they are now. */
Report *monitor_report(Monitor *monitor) {
  SCOPED_LOCK(&monitor->lock);
  Report *report = g_atomic_rc_box_new0(Report);
  *report = *monitor->report;
  json_incref(report->troubles);
  json_incref(report->kinds);
  /* While the owner works, it knows how long its events have been waiting. */
  g_auto(Figures) figures = metrics_read(monitor->metrics);
  int64_t silent_us = g_get_monotonic_time() - figures.published_at;
  report->status.knows_lag = figures.role == ROLE_WORKING && figures.tenure.workers > 0;
  report->status.lag_ms = figures.tenure.lag_ms + (silent_us > 1000000 ? silent_us / 1000 : 0);
  report->stores_known = monitor->probe && probe_fill(monitor->probe, &report->status,
                                                      report->looked_at, &report->ledger_rows);
  add_trouble(&report->status, &figures);
  return report;
}

/* --- looking -------------------------------------------------------------------------------- */

static json_t *find_troubles(Outbox *outbox, Failure *ret_failure) {
  static const char *const states[] = {"failed", "dead", NULL};
  const Selection selection = {.states = states, .limit = TROUBLES_MAX};
  g_autoptr(EventCursor) cursor = selection_find(outbox, &selection);
  json_t *troubles = json_array();
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    json_array_append_new(troubles, list_event_json(event));
  }
  return troubles;
}

static char *text_in(const bson_t *document, const char *path) {
  bson_iter_t iter, member;
  return bson_iter_init(&iter, document) && bson_iter_find_descendant(&iter, path, &member) &&
                 BSON_ITER_HOLDS_UTF8(&member)
             ? g_utf8_make_valid(bson_iter_utf8(&member, NULL), -1)
             : g_strdup("");
}

/* One that breaks the contract stays of kind ID_OTHER. */
static void id_of_example(const bson_iter_t *iter, Id *id, char text[static ID_TEXT_SIZE]) {
  bson_t other = BSON_INITIALIZER;
  if (!id_from_iter(iter, id)) {
    bson_append_iter(&other, "", 0, iter);
    *id = (Id){.kind = ID_OTHER, .length = other.len, .bytes = bson_get_data(&other)};
  }
  id_text(id, text);
  id->bytes = NULL;
  bson_destroy(&other);
}

static json_t *kind_json(const bson_t *kind) {
  g_autofree char *state = text_in(kind, "_id.state"), *type = text_in(kind, "_id.event_type");
  g_autofree char *class = text_in(kind, "_id.class"), *message = text_in(kind, "_id.message");
  char example[ID_TEXT_SIZE] = "";
  bson_iter_t iter;
  Id id = {.kind = ID_OTHER};
  int64_t count = bson_iter_init_find(&iter, kind, "count") ? bson_iter_as_int64(&iter) : 0;
  if (bson_iter_init_find(&iter, kind, "example"))
    id_of_example(&iter, &id, example);
  g_autofree char *valid = g_utf8_make_valid(example, -1);
  return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s?}", "state", state, "event_type", type,
                   "class", class, "reason", message, "count", (json_int_t)count, "example", valid,
                   "example_kind", id.kind == ID_OTHER ? NULL : id_kind_name(id.kind));
}

static void add_kind(const bson_t *kind, void *data) {
  json_array_append_new(data, kind_json(kind));
}

static bool add_refused(Monitor *monitor, Outbox *outbox, json_t *troubles, Failure *ret_failure) {
  g_autoptr(GHashTable) refused = refused_read(monitor->store, monitor->config->name, ret_failure);
  GHashTableIter iter;
  gpointer value;
  if (!refused)
    return false;
  g_hash_table_iter_init(&iter, refused);
  while (g_hash_table_iter_next(&iter, NULL, &value) && json_array_size(troubles) < TROUBLES_MAX) {
    const Refused *one = value;
    g_autoptr(EventCursor) cursor = outbox_find_event(outbox, &one->id);
    const bson_t *document = event_cursor_next(cursor, ret_failure);
    g_autoptr(Event) event = document ? event_decode(document) : NULL;
    if (event && event->status == STATUS_PENDING)
      json_array_append_new(troubles, list_refused_json(event, one));
  }
  return ret_failure->class == FAILURE_NONE;
}

static void keep(Monitor *monitor, Report *report) {
  SCOPED_LOCK(&monitor->lock);
  Report *old = monitor->report;
  monitor->report = report;
  report_release(old);
}

/* If MongoDB does not answer a question, the previous answer stays. */
static bool look(Monitor *monitor, Outbox *outbox) {
  Report *report = new_report(monitor->config);
  Failure failure = {0};
  if (!status_ask_mongodb(&report->status, monitor->store, outbox, &failure)) {
    report_release(report);
    return false;
  }
  json_t *troubles = find_troubles(outbox, &failure);
  if (failure.class == FAILURE_NONE)
    add_refused(monitor, outbox, troubles, &failure);
  if (failure.class == FAILURE_NONE && json_array_size(troubles) > 0)
    outbox_count_kinds(outbox, KINDS_MAX, add_kind, report->kinds, &failure);
  json_array_extend(report->troubles, troubles);
  json_decref(troubles);
  report->looked_at = g_get_monotonic_time();
  keep(monitor, report);
  return failure.class == FAILURE_NONE;
}

static const char *reached(const StoreState *state) {
  return state->failure.class == FAILURE_NONE ? state->server : state->failure.message;
}

static void log_status(const Status *status) {
  const OutboxCounts *counts = &status->counts;
  if (!status->counted) {
    log_info("status",
             LOG_FIELDS(LOG_TEXT("name", status->name), LOG_TEXT("state", status_state(status)),
                        LOG_TEXT("mongodb", reached(&status->mongodb)),
                        LOG_TEXT("mysql", reached(&status->mysql))));
    return;
  }
  log_info("status",
           LOG_FIELDS(LOG_TEXT("name", status->name), LOG_TEXT("state", status_state(status)),
                      LOG_TEXT("owner", status->lease.held ? status->lease.owner : ""),
                      LOG_NUMBER("pending", counts->pending),
                      LOG_NUMBER("in_progress", counts->in_progress),
                      LOG_NUMBER("failed", counts->failed), LOG_NUMBER("dead", counts->dead),
                      LOG_NUMBER("future", counts->future),
                      LOG_NUMBER("lag_ms", status_lag_ms(status)),
                      LOG_NUMBER("blocked_aggregates", status->blocked),
                      LOG_TEXT("mongodb", reached(&status->mongodb)),
                      LOG_TEXT("mysql", reached(&status->mysql))));
}

/* Waits for the next look. Returns false at the end. */
static bool wait(Monitor *monitor, int64_t pause_ms, bool *ret_to_log) {
  int64_t until = g_get_monotonic_time() + pause_ms * 1000;
  SCOPED_LOCK(&monitor->lock);
  while (!monitor->ending && !monitor->wanted) {
    if (!monitor->by_itself)
      g_cond_wait(&monitor->changed, &monitor->lock);
    else if (!g_cond_wait_until(&monitor->changed, &monitor->lock, until))
      break;
  }
  *ret_to_log = monitor->to_log;
  monitor->wanted = monitor->to_log = false;
  return !monitor->ending;
}

/* By now the stores have been queried, so the first line can be logged. */
static void log_now(Monitor *monitor) {
  for (int waited_ms = 0; waited_ms < STORES_KNOWN_MS; waited_ms += STORES_KNOWN_MS / 50) {
    g_autoptr(Report) report = monitor_report(monitor);
    if (report->stores_known) {
      log_status(&report->status);
      return;
    }
    g_usleep(STORES_KNOWN_MS / 50 * 1000);
  }
}

static gpointer run_looking(gpointer data) {
  Monitor *monitor = data;
  Outbox *outbox = outbox_new(monitor->store, "");
  int64_t pause_ms = 0;
  bool is_to_log;
  while (wait(monitor, pause_ms, &is_to_log)) {
    int64_t begun = g_get_monotonic_time();
    bool good = look(monitor, outbox);
    if (is_to_log)
      log_now(monitor);
    int64_t took_ms = (g_get_monotonic_time() - begun) / 1000;
    pause_ms = CLAMP(took_ms * PACE_SHARE, PACE_MS, PACE_MAX_MS);
    if (!good || probe_bad_at(monitor->probe) >= begun)
      pause_ms = PACE_MS; /* it only waited */
  }
  outbox_free(outbox);
  return NULL;
}

static void want(Monitor *monitor, bool is_to_log) {
  SCOPED_LOCK(&monitor->lock);
  monitor->wanted = true;
  monitor->to_log |= is_to_log;
  g_cond_broadcast(&monitor->changed);
}

void monitor_log(Monitor *monitor) {
  want(monitor, true);
}

void monitor_look(Monitor *monitor) {
  want(monitor, false);
}

/* --- sampling ------------------------------------------------------------------------------- */

/* Time passes even while MongoDB cannot be asked. */
static double oldest_ms(const Report *report) {
  int64_t lag_ms = status_lag_ms(&report->status);
  bool grows = report->status.mongodb.failure.class != FAILURE_NONE && !report->status.knows_lag;
  return (double)(lag_ms + (grows ? (g_get_monotonic_time() - report->looked_at) / 1000 : 0));
}

static void sample(Monitor *monitor, int64_t *last_count, double *last_sum, double seconds) {
  g_auto(Figures) figures = metrics_read(monitor->metrics);
  g_autoptr(Report) report = monitor_report(monitor);
  int64_t committed = figures.committed - *last_count;
  double worst_s = metrics_take_worst_lag(monitor->metrics);
  Sample sample = {
      .at_ms = g_get_real_time() / 1000,
      .per_s = (double)committed / seconds,
      .lag_ms = committed > 0 ? (figures.lag_s.sum - *last_sum) / (double)committed * 1e3 : -1,
      .worst_ms = worst_s * 1e3,
      .oldest_ms = report->looked_at ? oldest_ms(report) : 0,
  };
  *last_count = figures.committed;
  *last_sum = figures.lag_s.sum;
  SCOPED_LOCK(&monitor->lock);
  monitor->samples[monitor->sampled++ % SAMPLES_MAX] = sample;
}

static bool is_ending(Monitor *monitor, int64_t until) {
  SCOPED_LOCK(&monitor->lock);
  while (!monitor->ending)
    if (!g_cond_wait_until(&monitor->changed, &monitor->lock, until))
      break;
  return monitor->ending;
}

static gpointer run_sampling(gpointer data) {
  Monitor *monitor = data;
  int64_t last_count = 0, last_at = g_get_monotonic_time();
  double last_sum = 0;
  while (!is_ending(monitor, last_at + (int64_t)SAMPLE_MS * 1000)) {
    int64_t now = g_get_monotonic_time();
    sample(monitor, &last_count, &last_sum, (double)(now - last_at) / 1e6);
    last_at = now;
  }
  return NULL;
}

unsigned monitor_samples(Monitor *monitor, int64_t after_ms, Sample *ret_samples) {
  SCOPED_LOCK(&monitor->lock);
  unsigned count = 0;
  for (int64_t i = MAX(monitor->sampled - SAMPLES_MAX, 0); i < monitor->sampled; i++)
    if (monitor->samples[i % SAMPLES_MAX].at_ms > after_ms)
      ret_samples[count++] = monitor->samples[i % SAMPLES_MAX];
  return count;
}

/* --- its life ------------------------------------------------------------------------------- */

Monitor *monitor_new(const Config *config, Metrics *metrics) {
  Monitor *monitor = g_new0(Monitor, 1);
  monitor->config = config;
  monitor->metrics = metrics;
  monitor->report = new_report(config);
  g_mutex_init(&monitor->lock);
  g_cond_init(&monitor->changed);
  return monitor;
}

void monitor_start(Monitor *monitor, MongoStore *store, bool by_itself) {
  monitor->store = store;
  monitor->by_itself = by_itself;
  monitor->probe = probe_start(monitor->config, by_itself);
  monitor->looking = g_thread_new("monitor", run_looking, monitor);
  if (by_itself)
    monitor->sampling = g_thread_new("samples", run_sampling, monitor);
}

void monitor_free(Monitor *monitor) {
  if (!monitor)
    return;
  g_mutex_lock(&monitor->lock);
  monitor->ending = true;
  g_cond_broadcast(&monitor->changed);
  g_mutex_unlock(&monitor->lock);
  if (monitor->looking)
    g_thread_join(monitor->looking);
  if (monitor->sampling)
    g_thread_join(monitor->sampling);
  probe_free(monitor->probe);
  report_release(monitor->report);
  g_mutex_clear(&monitor->lock);
  g_cond_clear(&monitor->changed);
  g_free(monitor);
}

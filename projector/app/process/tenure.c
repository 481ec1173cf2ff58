/* tenure.c - the time in which this process owns the name: become the owner, work, hand over. */
#include "projector/app/process/tenure.h"

#include "projector/app/engine/feeder.h"
#include "projector/app/engine/janitor.h"
#include "projector/app/engine/marker.h"
#include "projector/app/engine/numberer.h"
#include "projector/app/engine/reader.h"
#include "projector/app/engine/worker.h"
#include "projector/app/process/examine.h"
#include "projector/app/process/ownership.h"
#include "projector/app/process/service.h"
#include "projector/infra/clock.h"
#include "projector/infra/crash.h"
#include "projector/infra/log.h"
#include "projector/infra/mongo/stream.h"

#include <signal.h>
#include <unistd.h>

enum {
  PROGRESS_MS = 10000, /* between two lines of progress, if there was any */
  TICK_MS = 200,
  SETTLED_MS = 10000,  /* after that, a failure is not one of starting */
  QUEUED_BATCHES = 12, /* most in a lane: the more events, the more belong to the same aggregate */
  HOLDS_PER_MB = 512,  /* of memory_mb: at most a quarter of it */
  STUCK_MS = 120000,   /* longer than a step may take: to find and reach a store, and its answer */
  SPARE_MS = 10000, /* beyond the longest answer that MySQL may take: to connect and to roll back */
  DEAF_MS = 3000,   /* the change stream answers once a second, even without events */
};

typedef struct Tenure {
  const Config *config;
  MongoStore *store;
  Ownership *ownership;
  Stop *stop;
  Metrics *metrics;
  Pace *pace;
  bool once;
  PauseState pause; /* as it was logged last */
  Ledger ledger;
  Lanes lanes;
  Worker **workers;
  Hand **hands; /* of the workers */
  Marker *marker;
  Acker *acker;
  Feeder *feeder;     /* NULL: there is no feed */
  Numberer *numberer; /* NULL: there is no archive */
  Reader *reader;
  Janitor *janitor;
} Tenure;

/* --- the parts of a tenure ------------------------------------------------------------------- */

/* From this many holds on (half a kilobyte each), they take too much memory, and nothing new is
 * taken. */
static size_t hold_limit(const Settings *settings) {
  return MAX((size_t)settings->max_blocked, (size_t)settings->memory_mb * HOLDS_PER_MB);
}

static void make_lanes(Tenure *tenure) {
  const Settings *settings = &tenure->config->settings;
  tenure->lanes.count = (unsigned)settings->workers;
  tenure->lanes.due = alarm_new();
  tenure->lanes.watch = watch_new();
  tenure->lanes.solo = solo_new();
  tenure->lanes.last_applied = ownership_last_applied(tenure->ownership);
  tenure->lanes.pace = tenure->pace;
  tenure->lanes.lanes = g_new0(Lane *, tenure->lanes.count);
  /* Queued events get a quarter of the memory; the rest is for the batch being built, its
   * statements, the drivers' buffers and the program itself. */
  LaneLimits limits = {
      .events = (size_t)settings->batch * QUEUED_BATCHES,
      .by_aggregate = settings->workers > 1, /* a single worker keeps the order across all */
      .bytes = (size_t)settings->memory_mb * 1024 * 1024 / 4 / tenure->lanes.count,
      .holds = hold_limit(settings),
      .all_holds = &tenure->lanes.holds,
  };
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    tenure->lanes.lanes[i] = lane_new(limits, tenure->lanes.due);
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    lane_assume(tenure->lanes.lanes[i], ownership_settled_at(tenure->ownership));
}

static void note_clock(Tenure *tenure) {
  int64_t ahead_ms = ownership_now_ms(tenure->ownership) - g_get_real_time() / 1000;
  tenure->lanes.clock_ahead_ms = ahead_ms;
  metrics_set_clock(tenure->metrics, ahead_ms);
}

/* The janitor comes first: it sweeps before anything new is read. */
static bool start(Tenure *tenure, bool once, Failure *ret_failure) {
  const char *claimant = ownership_claimant(tenure->ownership);
  if (!examine_again(tenure->config, tenure->store, ret_failure))
    return false;
  tenure->ledger = (Ledger){tenure->config->name, ownership_epoch(tenure->ownership)};
  make_lanes(tenure);
  note_clock(tenure); /* before any event is examined */
  tenure->janitor = janitor_new(tenure->config, &tenure->ledger, tenure->store, claimant,
                                &tenure->lanes, tenure->stop, ret_failure);
  if (!tenure->janitor)
    return false;
  tenure->acker = acker_new(tenure->store, claimant, &tenure->lanes, tenure->stop);
  tenure->feeder =
      feeder_new(tenure->store, claimant, tenure->stop, tenure->lanes.watch, tenure->metrics);
  acker_heed(tenure->acker, tenure->feeder);
  acker_count_in(tenure->acker, tenure->metrics);
  tenure->workers = g_new0(Worker *, tenure->lanes.count);
  const WorkerParts parts = {tenure->config, &tenure->ledger, tenure->store, claimant,
                             &tenure->lanes, tenure->acker,   tenure->stop};
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    tenure->workers[i] = worker_new(&parts, i);
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    worker_count_in(tenure->workers[i], tenure->metrics);
  tenure->hands = g_new0(Hand *, tenure->lanes.count);
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    tenure->hands[i] = worker_hand(tenure->workers[i]);
  tenure->marker = marker_start(tenure->config, tenure->store, claimant, tenure->hands,
                                tenure->lanes.count, tenure->stop);
  acker_start(tenure->acker);
  feeder_start(tenure->feeder);
  tenure->numberer = numberer_new(tenure->store, ownership_epoch(tenure->ownership),
                                  tenure->metrics, tenure->stop);
  numberer_start(tenure->numberer);
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    worker_start(tenure->workers[i]);
  janitor_start(tenure->janitor);
  tenure->reader = reader_start(tenure->store, &tenure->lanes, tenure->stop, once);
  return true;
}

static Counters sum_counters(const Tenure *tenure) {
  Counters sum = {0};
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    Counters one = worker_counters(tenure->workers[i]);
    sum.applied += one.applied;
    sum.superseded += one.superseded;
    sum.ignored += one.ignored;
    sum.repeated += one.repeated;
    sum.failed += one.failed;
    sum.gaps += one.gaps;
  }
  return sum;
}

static void log_counters(const Tenure *tenure, const char *message, const Counters *since) {
  Counters now = sum_counters(tenure);
  size_t queued = 0, held = 0;
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    LaneFigures figures = lane_figures(tenure->lanes.lanes[i]);
    queued += figures.queued;
    held += figures.holds;
  }
  log_info(message, LOG_FIELDS(LOG_NUMBER("applied", now.applied - since->applied),
                               LOG_NUMBER("superseded", now.superseded - since->superseded),
                               LOG_NUMBER("ignored", now.ignored - since->ignored),
                               LOG_NUMBER("repeated", now.repeated - since->repeated),
                               LOG_NUMBER("failed", now.failed - since->failed),
                               LOG_NUMBER("queued", (int64_t)queued),
                               LOG_NUMBER("held_aggregates", (int64_t)held)));
}

/* What a worker may take without progress. A statement may wait for a lock for as long as
 * `mysql.lock_wait_s` says. */
static int64_t step_ms(const Tenure *tenure) {
  return session_answer_ms(&tenure->config->mysql) + SPARE_MS;
}

/* A part that is stuck in spite of all timeouts leaves its work undone, a worker keeps its events,
 * and the lease keeps everybody else out. So the lease is not renewed, and the process ends: nobody
 * can wait for a stuck thread, so the thread that ends the process in time (run.c) is called. */
static void end_when_stuck(const Tenure *tenure, Stop *process) {
  Failure failure;
  const char *part = "";
  int64_t stuck_ms = service_stuck_ms(&part), longest_ms = step_ms(tenure) + SPARE_MS;
  int64_t limit_ms = MAX(STUCK_MS, longest_ms);
  if (stuck_ms < crash_number("PROJECTOR_STUCK_MS", limit_ms) || stop_requested(tenure->stop))
    return;
  failure_set(
      &failure, FAILURE_UNAVAILABLE, SOURCE_PROJECTOR, 0,
      "%s has made no progress for %lld s: the lease is no longer renewed, and this process "
      "ends",
      part, (long long)stuck_ms / 1000);
  log_failure(LOG_LEVEL_ERROR, "stuck", &failure);
  stop_request(process, &failure);
  stop_request(tenure->stop, &failure);
  kill(getpid(), SIGTERM);
}

static void add_part(GArray *parts, const char *name, int64_t rest_ms, Pulse *pulse) {
  const ServicePart part = {name, rest_ms, pulse};
  if (pulse)
    g_array_append_val(parts, part);
}

/* Who is watched from now on. */
static void begin_work(const Tenure *tenure) {
  g_autoptr(GArray) parts = g_array_new(FALSE, FALSE, sizeof(ServicePart));
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    add_part(parts, "a worker", 0, worker_pulse(tenure->workers[i]));
  add_part(parts, "the reader of the outbox", STREAM_AWAIT_MS, reader_pulse(tenure->reader));
  add_part(parts, "the janitor (retries, sweeps, prunes)", 0, janitor_pulse(tenure->janitor));
  add_part(parts, "the acker (takes applied events out of the outbox)", 0,
           acker_pulse(tenure->acker));
  add_part(parts, "the marker of slow events", 0, marker_pulse(tenure->marker));
  add_part(parts, "the feeder (copies into the feeds)", 0, feeder_pulse(tenure->feeder));
  add_part(parts, "the numberer of the archive", 0, numberer_pulse(tenure->numberer));
  service_begins_work((const ServicePart *)(const void *)parts->data, parts->len, step_ms(tenure));
}

typedef struct Alarms {
  bool blocked, full, clock;
} Alarms;

/* One writer with a wrong clock affects only its own aggregates, and the log names the events. Many
 * aggregates at once mean that a clock is wrong. */
static void alarm_at_clock(const Tenure *tenure, size_t future, Alarms *alarms) {
  if (future >= METRICS_FUTURE_MANY && !alarms->clock)
    log_error("the times of many events are far ahead of MongoDB's clock: a clock is wrong, a "
              "writer's or MongoDB's; the events wait until that time is near",
              LOG_FIELDS(LOG_NUMBER("held_aggregates", (int64_t)future),
                         LOG_NUMBER("future_ms", tenure->config->settings.future_ms)));
  alarms->clock = future >= METRICS_FUTURE_MANY || (alarms->clock && future > 0);
}

/* From `max_blocked` aggregates on, failed events raise an alarm; other aggregates still continue.
 * At the limit of memory nothing new is taken except what may end a hold. Gaps, events from the
 * future and events let through count too. */
static void alarm_when_blocked(const Tenure *tenure, Alarms *alarms) {
  size_t held = 0, passing = 0, future = 0, limit = hold_limit(&tenure->config->settings);
  size_t most = (size_t)tenure->config->settings.max_blocked;
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    LaneFigures figures = lane_figures(tenure->lanes.lanes[i]);
    held += figures.holds;
    passing += figures.gaps + figures.future;
    future += figures.future;
  }
  alarm_at_clock(tenure, future, alarms);
  size_t blocked = held - MIN(passing, held);
  const LogField *fields = LOG_FIELDS(
      LOG_NUMBER("blocked_aggregates", (int64_t)blocked), LOG_NUMBER("max_blocked", (int64_t)most),
      LOG_NUMBER("held_aggregates", (int64_t)held), LOG_NUMBER("most_held", (int64_t)limit));
  if (blocked >= most && !alarms->blocked)
    log_error("too many aggregates are blocked by failed events: others flow, until most_held are "
              "held; retry, skip or refresh some",
              fields);
  if (held >= limit && !alarms->full)
    log_error("no more aggregates can be held: nothing new is taken until some are free", fields);
  /* Near a limit holds come and go, so the alarm ends only well below it. */
  alarms->blocked = blocked >= most || (alarms->blocked && blocked > most / 4 * 3);
  alarms->full = held >= limit;
  for (unsigned i = 0; held >= limit / 2 && i < tenure->lanes.count; i++)
    lane_wake(tenure->lanes.lanes[i]);
}

/* How long the oldest event has been waiting, and until when everything is settled. While MongoDB
 * is silent, what there is to read is unknown; a scan in progress has found nothing until it finds
 * something. */
static OwnerReport measure_waiting(const Tenure *tenure) {
  int64_t heard_at, since = INT64_MAX;
  int64_t read_until = reader_given_until(tenure->reader, &heard_at);
  int64_t settled_at = ownership_settled_at(tenure->ownership);
  int64_t given_until = MAX(read_until, settled_at);
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    int64_t waiting_since = lane_waiting_since(tenure->lanes.lanes[i]);
    since = MIN(since, waiting_since);
  }
  int64_t settled = MIN(given_until, since), now = ownership_now_ms(tenure->ownership);
  janitor_note_behind(tenure->janitor, now - read_until);
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    lane_assume(tenure->lanes.lanes[i], settled);
  bool hears = g_get_monotonic_time() - heard_at < (int64_t)DEAF_MS * 1000 ||
               reader_state(tenure->reader) == READER_SCANNING;
  int64_t from = since == INT64_MAX ? (hears ? now : given_until) : hears ? since : settled;
  return (OwnerReport){.settled_at = settled, .lag_ms = MAX(now - from, 0)};
}

/* With --once a pause ends the tenure. */
static void obey_pause(Tenure *tenure) {
  PauseState pause = ownership_pause(tenure->ownership);
  Failure failure = {0};
  if (pause.on != tenure->pause.on)
    log_warning(pause.on ? "paused: nothing is applied until `projector resume`" : "resumed",
                pause.on ? LOG_FIELDS(LOG_TEXT("by", pause.by)) : NULL);
  tenure->pause = pause;
  if (tenure->pace)
    pace_set_paused(tenure->pace, pause.on);
  if (!pause.on || !tenure->once)
    return;
  failure_set(&failure, FAILURE_CONFLICT, SOURCE_PROJECTOR, 0,
              "paused by %s: nothing is applied until `projector resume`", pause.by);
  stop_request(tenure->stop, &failure);
}

static void publish(Tenure *tenure) {
  Failure trouble = {0};
  OwnerReport report = measure_waiting(tenure);
  note_clock(tenure);
  TenureView view = {.epoch = ownership_epoch(tenure->ownership),
                     .workers = tenure->lanes.count,
                     .reader = reader_state(tenure->reader),
                     .restarts = reader_restarts(tenure->reader),
                     .lag_ms = report.lag_ms,
                     .pause = tenure->pause};
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    LaneFigures figures = lane_figures(tenure->lanes.lanes[i]);
    view.queued += figures.queued;
    view.in_hand += figures.in_hand;
    view.bytes += figures.bytes;
    view.held += figures.holds;
    view.future += figures.future;
    view.waiting += worker_is_waiting(tenure->workers[i]);
    if (trouble.class == FAILURE_NONE)
      trouble = worker_trouble(tenure->workers[i]);
  }
  report.trouble = trouble; /* without the lease's, which is over once it can be recorded there */
  if (trouble.class == FAILURE_NONE)
    trouble = ownership_trouble(tenure->ownership);
  metrics_publish(tenure->metrics, &view);
  metrics_set_trouble(tenure->metrics, &trouble);
  report.trouble_since_ms = metrics_trouble_since_ms(tenure->metrics);
  ownership_report(tenure->ownership, &report);
}

/* Watches over the tenure until it or the process has to stop. */
static void watch(Tenure *tenure, Stop *process) {
  Counters since = {0};
  int64_t logged_at = g_get_monotonic_time();
  Alarms alarms = {0};
  begin_work(tenure);
  publish(tenure);
  while (!stop_wait(tenure->stop, TICK_MS)) {
    obey_pause(tenure);
    service_look();
    end_when_stuck(tenure, process);
    if (stop_requested(process))
      stop_request(tenure->stop, NULL);
    if (ownership_was_nudged(tenure->ownership))
      janitor_review(tenure->janitor);
    alarm_when_blocked(tenure, &alarms);
    publish(tenure);
    if (g_get_monotonic_time() - logged_at < (int64_t)PROGRESS_MS * 1000)
      continue;
    logged_at = g_get_monotonic_time();
    Counters now = sum_counters(tenure);
    if (now.applied + now.superseded + now.ignored + now.repeated + now.failed !=
        since.applied + since.superseded + since.ignored + since.repeated + since.failed)
      log_counters(tenure, "progress", &since);
    since = now;
  }
  service_ends_work();
}

/* Running batches are finished and committed events acknowledged; queued events stay in the outbox
 * as they are. */
static void finish(Tenure *tenure, Stop *process) {
  for (unsigned i = 0; i < tenure->lanes.count; i++)
    lane_stop(tenure->lanes.lanes[i]);
  for (unsigned i = 0; tenure->workers && i < tenure->lanes.count; i++)
    worker_join(tenure->workers[i]);
  if (tenure->acker)
    acker_join(tenure->acker);
  reader_finish(tenure->reader);
  janitor_free(tenure->janitor);
  marker_finish(tenure->marker);
  acker_free(tenure->acker);
  feeder_free(tenure->feeder);
  if (tenure->once && stop_reason(tenure->stop).class == FAILURE_NONE)
    numberer_complete(tenure->numberer, process, tenure->config->settings.lease_ms / 3);
  numberer_free(tenure->numberer);
  if (tenure->workers)
    log_counters(tenure, "stopped working", &(Counters){0});
  for (unsigned i = 0; i < tenure->lanes.count; i++) {
    if (tenure->workers)
      worker_free(tenure->workers[i]);
    lane_free(tenure->lanes.lanes[i]);
  }
  g_free(tenure->hands);
  g_free(tenure->workers);
  g_free(tenure->lanes.lanes);
  alarm_free(tenure->lanes.due);
  watch_free(tenure->lanes.watch);
  solo_free(tenure->lanes.solo);
}

/* --- the tenure ------------------------------------------------------------------------------- */

static void tell_end(const Tenure *tenure, const Failure *reason) {
  metrics_set_trouble(tenure->metrics, reason);
  if (reason->class != FAILURE_NONE)
    log_failure(LOG_LEVEL_ERROR, "the tenure ended", reason);
}

bool tenure_serve(const Config *config, MongoStore *store, Metrics *metrics, Pace *pace,
                  Stop *process, bool once) {
  Stop *stop = stop_new();
  Failure failure = {0};
  Tenure tenure = {.config = config,
                   .store = store,
                   .stop = stop,
                   .metrics = metrics,
                   .pace = pace,
                   .once = once};
  bool good = true;
  metrics_set_role(metrics, ROLE_STANDBY);
  tenure.ownership = ownership_acquire(config, store, metrics, once, process, stop);
  if (tenure.ownership) {
    int64_t begun = clock_us();
    log_info("working", LOG_FIELDS(LOG_TEXT("name", config->name),
                                   LOG_TEXT("owner", ownership_claimant(tenure.ownership)),
                                   LOG_NUMBER("epoch", ownership_epoch(tenure.ownership)),
                                   LOG_NUMBER("workers", config->settings.workers)));
    obey_pause(&tenure);
    if (start(&tenure, once, &failure)) {
      metrics_set_trouble(metrics, NULL);
      metrics_set_role(metrics, ROLE_WORKING);
      watch(&tenure, process);
    }
    stop_request(stop, failure.class == FAILURE_NONE ? NULL : &failure);
    Failure reason = stop_reason(stop);
    tell_end(&tenure, &reason); /* at once: what is running may wait long for an answer */
    finish(&tenure, process);
    ownership_release(tenure.ownership);
    failure = stop_reason(stop);
    metrics_set_role(metrics, ROLE_STANDBY);
    if (reason.class == FAILURE_NONE)
      tell_end(&tenure, &failure);
    bool paused = once && tenure.pause.on;
    if (failure.class == FAILURE_CONFIG || paused || (once && failure.class == FAILURE_NONE))
      stop_request(process, failure.class == FAILURE_NONE ? NULL : &failure);
    good = failure.class == FAILURE_NONE || clock_us() - begun > (int64_t)SETTLED_MS * 1000;
  }
  stop_free(stop);
  return good;
}

/* metrics.c - counters under one lock, which a worker takes once a batch. */
#include "projector/app/engine/metrics.h"

#include "projector/infra/lock.h"

struct Metrics {
  const Mapping *mapping;
  GMutex lock;
  Figures figures;
  MetricsListener listener; /* of NULLs: nobody listens */
  int64_t ahead_ms;         /* how far MongoDB's clock is ahead of this machine's */
  int64_t earlier_restarts; /* of tenures that have ended */
};

const Bounds lag_bounds_s = {
    15, {0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300, 3600}};
const Bounds batch_bounds_events = {10, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}};
const Bounds batch_bounds_s = {11, {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5}};

static void observe(Histogram *histogram, const Bounds *bounds, double value) {
  unsigned i = 0;
  while (i < bounds->count && value > bounds->upper[i])
    i++;
  histogram->counts[i]++;
  histogram->sum += value;
}

Metrics *metrics_new(const Mapping *mapping) {
  Metrics *metrics = g_new0(Metrics, 1);
  metrics->mapping = mapping;
  metrics->figures.worst_lag_s = -1;
  metrics->figures.tables = mapping_projection_count(mapping) + 1;
  metrics->figures.outcomes = g_malloc0_n(metrics->figures.tables, sizeof(int64_t[OUTCOME_COUNT]));
  g_mutex_init(&metrics->lock);
  return metrics;
}

void figures_clear(Figures *figures) {
  g_free(figures->outcomes);
}

void metrics_free(Metrics *metrics) {
  if (!metrics)
    return;
  figures_clear(&metrics->figures);
  g_mutex_clear(&metrics->lock);
  g_free(metrics);
}

static void count(Metrics *metrics, const Event *event, Outcome outcome) {
  Figures *figures = &metrics->figures;
  const Rule *const *rules =
      event->aggregate.type && event->event_type
          ? mapping_rules(metrics->mapping, event->aggregate.type, event->aggregate.type_length,
                          event->event_type, event->event_type_length)
          : NULL;
  if (!rules)
    figures->outcomes[figures->tables - 1][outcome]++;
  for (; rules && *rules; rules++)
    figures->outcomes[(*rules)->projection->index][outcome]++;
}

static void count_committed(Metrics *metrics, const Item *item, int64_t now_us) {
  Figures *figures = &metrics->figures;
  int64_t readable_at = queued_of(item)->readable_at;
  double lag_s = readable_at ? MAX((double)now_us / 1e6 - (double)readable_at / 1e3, 0) : 0;
  observe(&figures->lag_s, &lag_bounds_s, lag_s);
  figures->worst_lag_s = MAX(figures->worst_lag_s, lag_s);
  figures->committed++;
  count(metrics, item->event,
        item->verdict == VERDICT_APPLIED      ? OUTCOME_APPLIED
        : item->verdict == VERDICT_SUPERSEDED ? OUTCOME_SUPERSEDED
                                              : OUTCOME_IGNORED);
  if (item->late)
    count(metrics, item->event, OUTCOME_LATE);
}

static void add_committed(Metrics *metrics, const Item *items, size_t count, int64_t duration_us) {
  int64_t now_us = g_get_real_time();
  SCOPED_LOCK(&metrics->lock);
  now_us += metrics->ahead_ms * 1000;
  size_t committed = 0;
  for (size_t i = 0; i < count; i++) {
    if (!verdict_outcome(items[i].verdict))
      continue;
    count_committed(metrics, &items[i], now_us);
    committed++;
  }
  if (committed == 0)
    return;
  metrics->figures.progress_at = g_get_monotonic_time();
  observe(&metrics->figures.batch_events, &batch_bounds_events, (double)committed);
  observe(&metrics->figures.batch_s, &batch_bounds_s, (double)duration_us / 1e6);
}

void metrics_listen(Metrics *metrics, const MetricsListener *listener) {
  metrics->listener = *listener;
}

void metrics_committed(Metrics *metrics, const Item *items, size_t count, int64_t duration_us) {
  if (!metrics)
    return;
  if (metrics->listener.committed)
    metrics->listener.committed(items, count, metrics->listener.data);
  add_committed(metrics, items, count, duration_us);
}

void metrics_event(Metrics *metrics, const Event *event, Outcome outcome) {
  if (!metrics)
    return;
  if (metrics->listener.failed && (outcome == OUTCOME_FAILED || outcome == OUTCOME_DEAD))
    metrics->listener.failed(event, metrics->listener.data);
  SCOPED_LOCK(&metrics->lock);
  count(metrics, event, outcome);
  metrics->figures.progress_at = g_get_monotonic_time();
}

void metrics_refused(Metrics *metrics, const Failure *failure) {
  if (!metrics)
    return;
  SCOPED_LOCK(&metrics->lock);
  metrics->figures.refusal = *failure;
  metrics->figures.refused_at = g_get_monotonic_time();
}

void metrics_set_replica_lag(Metrics *metrics, bool lags, double worst_s) {
  SCOPED_LOCK(&metrics->lock);
  metrics->figures.replica_lags = lags;
  metrics->figures.replica_lag_s = worst_s;
}

void metrics_set_unnumbered_since(Metrics *metrics, int64_t since) {
  SCOPED_LOCK(&metrics->lock);
  metrics->figures.unnumbered_since = since;
}

void metrics_set_clock(Metrics *metrics, int64_t ahead_ms) {
  SCOPED_LOCK(&metrics->lock);
  metrics->ahead_ms = ahead_ms;
}

void metrics_set_trouble(Metrics *metrics, const Failure *failure) {
  SCOPED_LOCK(&metrics->lock);
  Figures *figures = &metrics->figures;
  if (!failure || failure->class == FAILURE_NONE)
    figures->trouble_since_ms = 0;
  else if (figures->trouble_since_ms == 0)
    figures->trouble_since_ms = g_get_real_time() / 1000;
  figures->trouble = failure ? *failure : (Failure){0};
}

int64_t metrics_trouble_since_ms(Metrics *metrics) {
  SCOPED_LOCK(&metrics->lock);
  return metrics->figures.trouble_since_ms;
}

void metrics_retry(Metrics *metrics, FailureClass class) {
  if (!metrics)
    return;
  SCOPED_LOCK(&metrics->lock);
  metrics->figures.retries[class]++;
}

Role metrics_role(Metrics *metrics) {
  SCOPED_LOCK(&metrics->lock);
  return metrics->figures.role;
}

void metrics_set_role(Metrics *metrics, Role role) {
  SCOPED_LOCK(&metrics->lock);
  if (metrics->figures.role == ROLE_WORKING && role != ROLE_WORKING)
    metrics->earlier_restarts += metrics->figures.tenure.restarts;
  metrics->figures.role = role;
  metrics->figures.progress_at = g_get_monotonic_time();
  metrics->figures.tenure = (TenureView){0};
  metrics->figures.published_at = g_get_monotonic_time();
}

void metrics_publish(Metrics *metrics, const TenureView *view) {
  SCOPED_LOCK(&metrics->lock);
  metrics->figures.tenure = *view;
  if (view->queued + view->in_hand == 0)
    metrics->figures.progress_at = g_get_monotonic_time();
  metrics->figures.restarts = metrics->earlier_restarts + view->restarts;
  metrics->figures.published_at = g_get_monotonic_time();
}

Figures metrics_read(Metrics *metrics) {
  SCOPED_LOCK(&metrics->lock);
  Figures figures = metrics->figures;
  figures.outcomes = g_memdup2(figures.outcomes, figures.tables * sizeof *figures.outcomes);
  return figures;
}

double metrics_take_worst_lag(Metrics *metrics) {
  SCOPED_LOCK(&metrics->lock);
  double worst_s = metrics->figures.worst_lag_s;
  metrics->figures.worst_lag_s = -1;
  return worst_s;
}

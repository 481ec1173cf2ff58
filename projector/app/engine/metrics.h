/* metrics.h - the counters and current figures of this process, behind `/metrics` and the page.
 *
 * Workers update them once per batch. Readers take a copy, so that frequent requests do not delay a
 * worker. */
#pragma once

#include "projector/app/engine/reader.h"
#include "projector/domain/plan.h"
#include "projector/infra/mongo/lease.h"

/* Counters by projection. An event that several projections take counts in each; one that none
 * names counts under the table "". */
typedef enum Outcome {
  OUTCOME_APPLIED,
  OUTCOME_SUPERSEDED,
  OUTCOME_IGNORED,
  OUTCOME_LATE,   /* beside one of the three above */
  OUTCOME_FAILED, /* attempts */
  OUTCOME_DEAD,
  OUTCOME_GAP,      /* waits for a missing version */
  OUTCOME_REUSED,   /* its version was used before */
  OUTCOME_UNHEALED, /* superseded without an entity to take the row from */
  OUTCOME_COUNT,
} Outcome;

enum {
  BUCKETS_MAX = 16,
  CLASS_COUNT = FAILURE_UNKNOWN + 1,
  METRICS_FUTURE_MANY =
      10, /* aggregates with events from the future: not a stray writer but a wrong clock */
};

typedef struct Histogram {
  int64_t counts[BUCKETS_MAX + 1]; /* not cumulative; the last one counts values above all bounds */
  double sum;
} Histogram;

typedef struct Bounds {
  unsigned count;
  double upper[BUCKETS_MAX];
} Bounds;

extern const Bounds lag_bounds_s, batch_bounds_events, batch_bounds_s;

typedef enum Role { ROLE_STARTING, ROLE_STANDBY, ROLE_WORKING } Role;

/* The tenure as its owner sees it a few times a second. */
typedef struct TenureView {
  int64_t epoch;
  unsigned workers, waiting; /* waiting: for a store to come back */
  size_t queued, in_hand, bytes, held;
  size_t future; /* aggregates that wait because an event's time is far ahead */
  ReaderState reader;
  int64_t restarts; /* of the change stream */
  int64_t lag_ms;   /* of the oldest event that waits */
  PauseState pause;
} TenureView;

typedef struct Figures {
  Role role;
  TenureView tenure;
  int64_t published_at;     /* monotonic, us; of the tenure */
  int64_t progress_at;      /* monotonic, us; an event was settled, or there was none */
  Failure trouble;          /* why this process cannot work or become the owner */
  int64_t trouble_since_ms; /* since 1970 */
  Failure refusal;          /* of a claim, by MongoDB */
  int64_t refused_at;       /* monotonic, us; 0: never */
  int64_t restarts;         /* of the change stream, in all tenures */
  int64_t committed;        /* events, each once */
  int64_t retries[CLASS_COUNT];
  Histogram lag_s, batch_events, batch_s;
  bool replica_lags;        /* nothing is applied until the replica has caught up */
  double replica_lag_s;     /* the worst */
  int64_t unnumbered_since; /* monotonic, us; archived events wait for a number; 0: none does */
  double worst_lag_s;       /* since metrics_take_worst_lag */
  unsigned tables; /* rows of `outcomes`; the last one is for events that no projection names */
  int64_t (*outcomes)[OUTCOME_COUNT];
} Figures;

void figures_clear(Figures *figures);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Figures, figures_clear)

typedef struct Metrics Metrics;

/* The mapping must outlive it. */
Metrics *metrics_new(const Mapping *mapping);
void metrics_free(Metrics *metrics);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Metrics, metrics_free)

/* Called at once, in the worker's thread: it must not block. */
typedef struct MetricsListener {
  /* These items are committed, and their events still in the outbox. */
  void (*committed)(const Item *items, size_t count, void *data);
  void (*failed)(const Event *event, void *data);
  void *data;
} MetricsListener;

/* Before the first worker starts; the listener must outlive the last. */
void metrics_listen(Metrics *metrics, const MetricsListener *listener);

/* --- what happens to events; `metrics` NULL: nobody counts --- */

/* A transaction that took `duration_us` has just committed these items, except those whose verdict
 * does not go into the ledger. */
void metrics_committed(Metrics *metrics, const Item *items, size_t count, int64_t duration_us);
/* Counts that outcome for one event. */
void metrics_event(Metrics *metrics, const Event *event, Outcome outcome);
/* A retry, after a failure of that class. */
void metrics_retry(Metrics *metrics, FailureClass class);

/* MongoDB refuses to mark or to copy an event. */
void metrics_refused(Metrics *metrics, const Failure *failure);

/* --- the state of the process --- */

/* NULL, or class NONE: it has ended. */
void metrics_set_trouble(Metrics *metrics, const Failure *failure);
/* Since 1970; 0: there is none. */
int64_t metrics_trouble_since_ms(Metrics *metrics);

void metrics_set_replica_lag(Metrics *metrics, bool lags, double worst_s);
/* Monotonic, us; 0: no archived event waits for a number. */
void metrics_set_unnumbered_since(Metrics *metrics, int64_t since);
/* How far MongoDB's clock is ahead of this machine's. */
void metrics_set_clock(Metrics *metrics, int64_t ahead_ms);
void metrics_set_role(Metrics *metrics, Role role);
void metrics_publish(Metrics *metrics, const TenureView *view);

/* --- reading --- */

Role metrics_role(Metrics *metrics);
/* A copy; clear it with figures_clear. */
Figures metrics_read(Metrics *metrics);
/* The longest lag of an event that was committed since the last call, in s; negative: none was. */
double metrics_take_worst_lag(Metrics *metrics);

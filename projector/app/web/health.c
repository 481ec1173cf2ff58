/* health.c - the rules, one function each. */
#include "projector/app/web/health.h"

#include "projector/domain/datetime.h"

#include <string.h>

enum {
  SILENT_MS = 10000,   /* after this silence a tenure counts as stopped */
  IDLE_MS = 3000,      /* for so long there are events and none is applied */
  OLD_MS = 5000,       /* figures of the outbox are reported as old from here on, */
  VERY_OLD_MS = 45000, /* and no longer count from here on */
  REFUSED_MS = 25000,  /* a refused claim is retried within 5 s, a refused copy within 20 s */
};

static void remark_free(gpointer data) {
  Remark *remark = data;
  g_free(remark->text);
  g_free(remark);
}

typedef enum Weight { NOTE, WARN_UNREADY, BAD, BAD_UNREADY } Weight;

static void say(GPtrArray *remarks, Weight weight, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void say(GPtrArray *remarks, Weight weight, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Remark *remark = g_new(Remark, 1);
  *remark = (Remark){.bad = weight >= BAD,
                     .unready = weight == WARN_UNREADY || weight == BAD_UNREADY,
                     .text = g_strdup_vprintf(format, arguments)};
  va_end(arguments);
  g_ptr_array_add(remarks, remark);
}

/* " since 12:01:05 UTC (8 s)", or "". */
static char *since_text(int64_t since_ms) {
  char time[DATETIME_TEXT_SIZE], duration[DURATION_TEXT_SIZE];
  if (since_ms <= 0)
    return g_strdup("");
  datetime_format(since_ms * 1000, 0, time);
  const char *clock = strchr(time, ' ');
  int64_t passed_ms = g_get_real_time() / 1000 - since_ms;
  duration_text(MAX(passed_ms, 0), duration);
  return g_strdup_printf(" since %s UTC (%s)", clock ? clock + 1 : time, duration);
}

static char *reason_of(const Failure *failure) {
  return failure->code ? g_strdup_printf("%s (%d)", failure->message, failure->code)
                       : g_strdup(failure->message);
}

static void judge_store(GPtrArray *remarks, const char *name, const StoreState *state) {
  if (state->failure.class == FAILURE_NONE)
    return;
  g_autofree char *since = since_text(state->since_ms), *reason = reason_of(&state->failure);
  say(remarks, BAD_UNREADY, "%s %s%s: %s. Events wait in the outbox; nothing is lost.", name,
      state->reachable ? "refuses to work" : "cannot be reached", since, reason);
}

static bool stores_are_good(const Status *status) {
  return status->mongodb.failure.class == FAILURE_NONE &&
         status->mysql.failure.class == FAILURE_NONE;
}

/* What keeps this process from working, as it has experienced it itself. */
static void judge_trouble(GPtrArray *remarks, const Figures *figures, bool reported) {
  const TenureView *view = &figures->tenure;
  bool has_trouble = figures->trouble.class != FAILURE_NONE;
  g_autofree char *since = since_text(figures->trouble_since_ms);
  g_autofree char *reason = has_trouble ? reason_of(&figures->trouble) : g_strdup("");
  bool has_work = view->queued + view->in_hand > 0; /* else nothing tests whether it is back */
  if (figures->role == ROLE_WORKING && view->waiting > 0 && (reported || has_work))
    say(remarks, reported ? WARN_UNREADY : BAD_UNREADY,
        "%u of %u workers wait for a store%s%s%s. Nothing is lost.", view->waiting, view->workers,
        since, has_trouble ? ": " : "", reason);
  if (figures->role == ROLE_STANDBY && has_trouble)
    say(remarks, BAD_UNREADY, "This process cannot become the owner%s: %s", since, reason);
}

char *health_pause_text(const PauseState *pause) {
  g_autofree char *since = since_text(pause->since_ms), *by = g_utf8_make_valid(pause->by, -1);
  return g_strdup_printf("paused by %s%s", by, since);
}

/* An intentional pause is not a failure. */
static void judge_pause(GPtrArray *remarks, const Status *status, const Figures *figures) {
  const PauseState *pause =
      figures->role == ROLE_WORKING ? &figures->tenure.pause : &status->lease.pause;
  g_autofree char *text = pause->on ? health_pause_text(pause) : NULL;
  if (text)
    say(remarks, NOTE, "Nothing is applied: %s; `projector resume` ends it.", text);
}

/* A standby with the present file takes over one day; until then events leave without a copy. */
static void judge_copies(GPtrArray *remarks, const Status *status) {
  if (*status->lease.not_served)
    say(remarks, BAD,
        "The owner copies no events into %s, as the mapping file says: restart every process of "
        "this name, standbys first.",
        status->lease.not_served);
}

static void judge_replicas(GPtrArray *remarks, const Figures *figures) {
  if (figures->role == ROLE_WORKING && figures->replica_lags)
    say(remarks, NOTE,
        "Nothing is applied until the replicas have caught up: the slowest is %.0f s behind, or "
        "cannot be reached.",
        figures->replica_lag_s);
}

static void judge_work(GPtrArray *remarks, const Figures *figures, int64_t now) {
  const TenureView *view = &figures->tenure;
  char idle[DURATION_TEXT_SIZE];
  if (figures->role == ROLE_STARTING)
    say(remarks, WARN_UNREADY, "Starting.");
  if (figures->role != ROLE_WORKING)
    return;
  if (now - figures->published_at > (int64_t)SILENT_MS * 1000)
    say(remarks, BAD_UNREADY, "The work has stopped unexpectedly.");
  int64_t idle_ms = (now - figures->progress_at) / 1000;
  if (!view->pause.on && !figures->replica_lags && view->queued + view->in_hand > 0 &&
      idle_ms > IDLE_MS)
    say(remarks, NOTE, "%zu event%s taken from the outbox, and none has been applied for %s.",
        view->queued + view->in_hand, view->queued + view->in_hand == 1 ? " is" : "s are",
        duration_text(idle_ms, idle));
  if (figures->refused_at && now - figures->refused_at < (int64_t)REFUSED_MS * 1000) {
    g_autofree char *reason = reason_of(&figures->refusal);
    say(remarks, BAD_UNREADY,
        "MongoDB refuses to mark or to copy events: %s. They wait; `list` names them.", reason);
  }
}

static void judge_clocks(GPtrArray *remarks, const Figures *figures, const Settings *settings) {
  size_t future = figures->tenure.future;
  char limit[DURATION_TEXT_SIZE];
  if (figures->role != ROLE_WORKING || future == 0)
    return;
  say(remarks, future >= METRICS_FUTURE_MANY ? BAD : NOTE,
      "%zu aggregate%s for an event whose occurred_at is more than %s ahead of MongoDB's clock.%s",
      future, future == 1 ? " waits" : "s wait", duration_text(settings->future_ms, limit),
      future >= METRICS_FUTURE_MANY
          ? " So many mean that a clock is wrong: a writer's, or MongoDB's."
          : "");
}

static void judge_outbox(GPtrArray *remarks, const Report *report, const Settings *settings,
                         int64_t now) {
  const OutboxCounts *counts = &report->status.counts;
  char text[DURATION_TEXT_SIZE], limit[DURATION_TEXT_SIZE];
  int64_t age_ms = (now - report->looked_at) / 1000;
  if (age_ms > OLD_MS)
    say(remarks, age_ms > VERY_OLD_MS ? WARN_UNREADY : NOTE,
        "The figures of the outbox are %s old.", duration_text(age_ms, text));
  int64_t lag_ms = status_lag_ms(&report->status);
  if (lag_ms > settings->ready_lag_ms && !report->status.lease.pause.on)
    say(remarks, BAD_UNREADY, "The oldest event has waited %s, more than ready_lag_ms, which is %s",
        duration_text(lag_ms, text), duration_text(settings->ready_lag_ms, limit));
  if (counts->dead > 0)
    say(remarks, BAD,
        "%" G_GINT64_FORMAT " event%s dead, and %" G_GINT64_FORMAT
        " aggregate%s blocked until an operator decides: retry, skip or refresh.",
        counts->dead, counts->dead == 1 ? " is" : "s are", report->status.blocked,
        report->status.blocked == 1 ? " is" : "s are");
  if (counts->failed > 0)
    say(remarks, NOTE, "%" G_GINT64_FORMAT " event%s failed and will be tried again.",
        counts->failed, counts->failed == 1 ? " has" : "s have");
}

GPtrArray *health_judge(const Report *report, const Figures *figures, const Settings *settings,
                        int64_t now) {
  GPtrArray *remarks = g_ptr_array_new_with_free_func(remark_free);
  if (report->stores_known) {
    judge_store(remarks, "MongoDB", &report->status.mongodb);
    judge_store(remarks, "MySQL", &report->status.mysql);
  }
  judge_trouble(remarks, figures, report->stores_known && !stores_are_good(&report->status));
  judge_work(remarks, figures, now);
  judge_pause(remarks, &report->status, figures);
  judge_copies(remarks, &report->status);
  judge_replicas(remarks, figures);
  judge_clocks(remarks, figures, settings);
  if (!report->looked_at || !report->stores_known)
    say(remarks, WARN_UNREADY, "The stores have not been checked yet.");
  else
    judge_outbox(remarks, report, settings, now);
  return remarks;
}

/* repair.c - one refresh for each aggregate with differences, in batches. */
#include "projector/app/reconcile/repair.h"

#include "projector/infra/mongo/selection.h"

#include <string.h>

enum {
  BATCH = 100,      /* aggregates in one transaction, for which the owner waits */
  RETRIES_MAX = 10, /* of a transaction that met another session's lock */
  RETRY_MS = 50,
};

/* An aggregate's differences, and the refresh that repairs them. */
typedef struct Job {
  Refresh refresh;
  GPtrArray *differences; /* of Difference */
} Job;

static const char no_aggregate[] =
    "left: its key does not identify the aggregate; delete the row yourself if it is not wanted";
static const char no_mapping[] = "left: correct the entity or the mapping, then refresh";

/* NULL: it can be repaired. */
static const char *why_not(const Difference *difference) {
  if (difference->keep)
    return difference->keep;
  if (difference->kind == DIFFERENCE_UNMAPPABLE)
    return no_mapping;
  return difference->aggregate ? NULL : no_aggregate;
}

static bool is_marked_by_repair(const Difference *difference) {
  return difference->layout->projection->soft_rule && !difference_is_excluded(difference);
}

void repair_plan(Difference *differences, size_t count) {
  for (size_t i = 0; i < count; i++) {
    Difference *difference = &differences[i];
    switch (difference->kind) {
    case DIFFERENCE_EXTRA_ROW:
      difference->outcome = is_marked_by_repair(difference) ? "would mark the row as deleted"
                                                            : "would delete the row";
      break;
    case DIFFERENCE_APPLIED_EVENT: difference->outcome = "would take the event out"; break;
    case DIFFERENCE_DEAD_EVENT:
      difference->outcome = "would refresh the aggregate and supersede the event";
      break;
    default: difference->outcome = "would refresh the aggregate"; break;
    }
    if (why_not(difference))
      difference->outcome = why_not(difference);
  }
}

static void job_free(gpointer data) {
  Job *job = data;
  g_ptr_array_unref(job->differences);
  if (job->refresh.remove)
    g_ptr_array_unref(job->refresh.remove);
  if (job->refresh.purge)
    g_ptr_array_unref(job->refresh.purge);
  g_free(job);
}

static void add_to_job(Job *job, Difference *difference, Arena *arena) {
  g_ptr_array_add(job->differences, difference);
  job->refresh.rewind |= difference->kind == DIFFERENCE_POSITION_AHEAD;
  /* Without an entity, what the event meant is unknown: the operator decides. */
  job->refresh.entity_needed |= difference->kind == DIFFERENCE_DEAD_EVENT;
  if (difference->kind != DIFFERENCE_EXTRA_ROW)
    return;
  const Projection *projection = difference->layout->projection;
  if (projection->parent && !difference->orphan)
    return; /* the refresh of its parent replaces it */
  GPtrArray **rows = difference->orphan ? &job->refresh.purge : &job->refresh.remove;
  if (!*rows)
    *rows = g_ptr_array_new();
  g_ptr_array_add(*rows, change_for_row(difference->orphan ? projection->parent : projection,
                                        difference->key, arena));
}

/* One job for each aggregate, in the order in which they were found. */
static GPtrArray *plan_jobs(Difference *differences, size_t count, Arena *arena) {
  GPtrArray *jobs = g_ptr_array_new_with_free_func(job_free);
  g_autoptr(GHashTable) of = g_hash_table_new(aggregate_hash_key, aggregate_equal_key);
  for (size_t i = 0; i < count; i++) {
    Difference *difference = &differences[i];
    difference->outcome = why_not(difference);
    if (difference->outcome || difference->kind == DIFFERENCE_APPLIED_EVENT)
      continue;
    Job *job = g_hash_table_lookup(of, difference->aggregate);
    if (!job) {
      job = g_new0(Job, 1);
      job->refresh.aggregate = difference->aggregate;
      job->differences = g_ptr_array_new();
      g_hash_table_insert(of, (gpointer)difference->aggregate, job);
      g_ptr_array_add(jobs, job);
    }
    add_to_job(job, difference, arena);
  }
  return jobs;
}

/* Retries a transaction that met another session's lock. */
static bool refresh_batch(Stores *stores, const Prefetch *prefetch, Refresh *refreshes,
                          size_t count, Failure *ret_failure) {
  RefreshWith with = {stores->session, &stores->ledger, stores->outbox, stores->config->mapping,
                      prefetch};
  for (int retries = 0;; retries++) {
    *ret_failure = (Failure){0};
    if (refresh_aggregates(&with, refreshes, count, ret_failure))
      return true;
    if (ret_failure->class != FAILURE_CONFLICT || retries == RETRIES_MAX)
      return false;
    g_usleep(RETRY_MS * 1000);
  }
}

bool repair_refresh(Stores *stores, const Prefetch *prefetch, Refresh *refreshes, size_t count,
                    Failure *ret_failure) {
  if (count == 0 || refresh_batch(stores, prefetch, refreshes, count, ret_failure))
    return true;
  if (failure_class_is_outage(ret_failure->class) || ret_failure->class == FAILURE_CONFIG)
    return false;
  if (count == 1) {
    refreshes[0].failure = *ret_failure;
    return true;
  }
  return repair_refresh(stores, prefetch, refreshes, count / 2, ret_failure) &&
         repair_refresh(stores, prefetch, refreshes + count / 2, count - count / 2, ret_failure);
}

/* --- what became of it ---------------------------------------------------------------------- */

static void leave(Difference *difference, const char *why, Arena *arena) {
  g_autofree char *text = g_strdup_printf("left: %s", why);
  difference->outcome = arena_copy(arena, text, strlen(text));
}

/* An event that the entity contains may be retried: it will be superseded. */
static bool free_event(Stores *stores, Difference *difference, const Refresh *refresh, Arena *arena,
                       Failure *ret_failure) {
  static const char *const dead[] = {"dead", NULL};
  int64_t version = difference->event->key.version, count;
  if (version == 0 || version > refresh->version) {
    leave(difference, "the entity does not contain the event; retry or skip it", arena);
    return true;
  }
  const Selection selection = {.event = &difference->event->key.event_id, .states = dead};
  difference->repaired = outbox_keep(stores->outbox, difference->event, ret_failure) &&
                         selection_retry(stores->outbox, &selection, &count, ret_failure);
  difference->outcome = "refreshed, the event will be superseded and is kept in the archive";
  return difference->repaired;
}

static bool finish_job(Stores *stores, const Job *job, Arena *arena, Failure *ret_failure) {
  for (guint i = 0; i < job->differences->len; i++) {
    Difference *difference = job->differences->pdata[i];
    if (job->refresh.failure.class != FAILURE_NONE) {
      leave(difference, job->refresh.failure.message, arena);
    } else if (difference->kind == DIFFERENCE_DEAD_EVENT) {
      if (!free_event(stores, difference, &job->refresh, arena, ret_failure))
        return false;
    } else {
      difference->repaired = true;
      difference->outcome = difference->kind != DIFFERENCE_EXTRA_ROW ? "refreshed"
                            : job->refresh.marked                    ? "marked as deleted"
                                                                     : "deleted";
    }
  }
  return true;
}

static bool run_jobs(Stores *stores, const GPtrArray *jobs, Arena *arena, Failure *ret_failure) {
  for (guint i = 0; i < jobs->len; i += BATCH) {
    size_t count = MIN(jobs->len - i, BATCH);
    g_autofree Refresh *refreshes = g_new(Refresh, count);
    for (size_t k = 0; k < count; k++)
      refreshes[k] = ((const Job *)jobs->pdata[i + k])->refresh;
    if (!stores_wake(stores, ret_failure) ||
        !repair_refresh(stores, NULL, refreshes, count, ret_failure))
      return false;
    for (size_t k = 0; k < count; k++) {
      Job *job = jobs->pdata[i + k];
      job->refresh = refreshes[k];
      if (!finish_job(stores, job, arena, ret_failure))
        return false;
    }
  }
  return true;
}

/* An event in the ledger is committed, so it may be removed whoever has claimed it; but while a
 * command such as `skip` is about to settle it, that is left to the command. */
static bool sweep(Stores *stores, Event *const *events, Failure *ret_failure) {
  return outbox_sweep(stores->outbox, events, 1, SWEEP_ACKNOWLEDGE, 0, ret_failure) &&
         outbox_sweep(stores->outbox, events, 1, SWEEP_ACKNOWLEDGE,
                      stores->config->settings.claim_timeout_ms, ret_failure);
}

static bool is_there(Stores *stores, const Event *event, bool *ret_there, Failure *ret_failure) {
  const Id *const ids[] = {&event->key.event_id};
  g_autoptr(EventCursor) cursor = outbox_find_events(stores->outbox, ids, 1);
  *ret_there = event_cursor_next(cursor, ret_failure) != NULL;
  return ret_failure->class == FAILURE_NONE;
}

/* Counts as done when the outbox no longer has the event. */
static bool take_out(Stores *stores, Difference *difference, Failure *ret_failure) {
  Claim claim = CLAIM_GONE;
  Event *const events[] = {difference->event};
  bool there;
  if (!outbox_claim(stores->outbox, events, 1, &claim, ret_failure) ||
      (claim == CLAIM_OURS && !outbox_acknowledge(stores->outbox, events, 1, ret_failure)) ||
      (claim == CLAIM_TAKEN && !sweep(stores, events, ret_failure)) ||
      !is_there(stores, difference->event, &there, ret_failure))
    return false;
  difference->repaired = !there;
  difference->outcome =
      !there ? "taken out of the outbox"
             : "left: a command has claimed it and may be about to take it out; if that "
               "command is gone, repair again when claim_timeout_ms is over";
  return true;
}

bool repair_differences(Stores *stores, Difference *differences, size_t count, Arena *arena,
                        Failure *ret_failure) {
  g_autoptr(GPtrArray) jobs = plan_jobs(differences, count, arena);
  if (!run_jobs(stores, jobs, arena, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (differences[i].kind == DIFFERENCE_APPLIED_EVENT &&
        !take_out(stores, &differences[i], ret_failure))
      return false;
  return true;
}

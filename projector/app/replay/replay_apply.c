/* replay_apply.c - applies events to the table being filled, each once and in order; late ones by
 * folding their aggregate again. */
#include "projector/app/replay/replay.h"

#include "projector/app/replay/history.h"
#include "projector/domain/retarget.h"
#include "projector/infra/crash.h"
#include "projector/infra/mysql/apply.h"

#include <string.h>

enum {
  RETRIES_MAX = 20, /* of a transaction that met another session's lock */
  RETRY_MS = 50,
  ASKED_AT_ONCE = 500, /* ids in one query of the ledger */
};

bool replay_takes(const Replay *replay, const Event *event) {
  return !event->malformed && !event->skipped && event_in_range(&replay->range, event) &&
         !g_hash_table_contains(replay->leave_out, &event->key.event_id);
}

static bool name_event(const Event *event, Failure *ret_failure) {
  char id[ID_TEXT_SIZE], aggregate[512];
  id_text(&event->key.event_id, id);
  return failure_prefix(ret_failure, "event %s of %s, %.*s", id,
                        aggregate_text(&event->aggregate, aggregate, sizeof aggregate),
                        (int)event->event_type_length, event->event_type);
}

/* --- one aggregate again --------------------------------------------------------------------- */

/* The events of the history that are to be replayed, those of the archive first. */
static Item *items_of(const Replay *replay, const History *history, size_t *ret_archived,
                      size_t *ret_count) {
  const GPtrArray *parts[] = {history->archived, history->waiting};
  Item *items = g_new0(Item, history->archived->len + history->waiting->len + 1);
  size_t count = 0;
  for (size_t part = 0; part < G_N_ELEMENTS(parts); part++) {
    for (guint i = 0; i < parts[part]->len; i++)
      if (replay_takes(replay, parts[part]->pdata[i]))
        items[count++].event = parts[part]->pdata[i];
    if (part == 0)
      *ret_archived = count;
  }
  *ret_count = count;
  return items;
}

static bool judge(Session *session, const Ledger *ledger, Item *items, size_t count,
                  Failure *ret_failure) {
  for (size_t i = 0; i < count; i += ASKED_AT_ONCE)
    if (!ledger_judge(session, ledger, "9999-12-31", items + i, MIN(count - i, ASKED_AT_ONCE),
                      ret_failure))
      return false;
  return true;
}

/* Overwrites the row instead of deleting and inserting it. */
static void keep_row(const Fold *fold) {
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const GPtrArray *rows = fold_step(fold, i)->rows;
    for (guint k = 0; rows && k < rows->len; k++) {
      FoldedRow *row = rows->pdata[k];
      row->remove = row->remove && !row->write;
    }
  }
}

/* Writes the row of the aggregate as the items that are VERDICT_APPLIED make it, whatever it
 * was. */
static bool write_anew(Replay *replay, Item *items, size_t count, Arena *arena,
                       Failure *ret_failure) {
  g_autoptr(Fold) fold = fold_new(arena);
  Culprit culprit;
  bool begun = false;
  plan_sort(items, count);
  for (size_t i = 0; i < count; i++) {
    const Event *event = items[i].event;
    ChangeList row = {.count = 1, .changes = arena_alloc(arena, 1, sizeof(Change))}, changes;
    if (items[i].verdict != VERDICT_APPLIED)
      continue;
    if ((!begun && (!change_for_removal(replay->target, event, arena, row.changes, ret_failure) ||
                    !fold_add(fold, &row, NULL, ret_failure))) ||
        !change_list_map(replay->mapping, event, arena, &changes, ret_failure) ||
        !fold_add(fold, &changes, NULL, ret_failure))
      return name_event(event, ret_failure);
    begun = true;
  }
  if (replay->keep_row)
    keep_row(fold);
  return apply_fold(replay->session, fold, &culprit, ret_failure) &&
         replay_look_again(replay, fold, ret_failure);
}

/* --- a batch -------------------------------------------------------------------------------- */

/* A batch in order goes through the same plan as in `run`. An aggregate with an event that sorts
 * before one already applied is folded again from its first event, if the row is its own. */
typedef struct ReplayBatch {
  Item *items; /* in order: those for the plan, then those of aggregates that are folded again */
  size_t count, planned;
  GPtrArray *anew; /* of AggregateState */
} ReplayBatch;

static bool is_late(AggregateSet *set, const Item *item) {
  const AggregateState *state = aggregate_set_find(set, &item->event->aggregate);
  return item->verdict == VERDICT_NONE && item->changes.count > 0 &&
         order_standing(&state->position, item->event, item->gap_waited) == STANDING_LATE;
}

static void divide(const Replay *replay, AggregateSet *set, ReplayBatch *batch, Arena *arena) {
  g_autoptr(GHashTable) late = g_hash_table_new(NULL, NULL);
  for (size_t i = 0; i < batch->count && projection_owns_rows(replay->target); i++) {
    AggregateState *state = aggregate_set_find(set, &batch->items[i].event->aggregate);
    if (is_late(set, &batch->items[i]) && g_hash_table_add(late, state))
      g_ptr_array_add(batch->anew, state);
  }
  Item *sorted = arena_alloc(arena, batch->count, sizeof *sorted);
  size_t at = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < batch->count; i++) {
      AggregateState *state = aggregate_set_find(set, &batch->items[i].event->aggregate);
      if (g_hash_table_contains(late, state) == (pass == 1))
        sorted[at++] = batch->items[i];
    }
    if (pass == 0)
      batch->planned = at;
  }
  batch->items = sorted;
}

/* Events of an aggregate that is folded again count as applied, and move its position. */
static void pass_late(AggregateSet *set, Item *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    AggregateState *state = aggregate_set_find(set, &items[i].event->aggregate);
    if (items[i].verdict != VERDICT_NONE)
      continue;
    items[i].verdict = items[i].changes.count > 0 ? VERDICT_APPLIED : VERDICT_IGNORED;
    if (items[i].changes.count > 0)
      order_advance(&state->position, items[i].event);
    else
      order_pass(&state->position, items[i].event);
    state->moved = true;
  }
}

static bool fold_anew(Replay *replay, const Aggregate *aggregate, Arena *arena,
                      GPtrArray *histories, Failure *ret_failure) {
  History *history = history_read(replay->outbox, replay->archive, aggregate, ret_failure);
  size_t archived, count;
  if (!history)
    return false;
  g_ptr_array_add(histories, history); /* the fold points into the history's events */
  g_autofree Item *items = items_of(replay, history, &archived, &count);
  if (!judge(replay->session, &replay->scope, items, count, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_KNOWN)
      items[i].verdict = VERDICT_APPLIED;
  return write_anew(replay, items, count, arena, ret_failure);
}

static bool find_failed(const Item *items, size_t count, Failure *ret_failure) {
  for (size_t i = 0; i < count; i++)
    if (items[i].verdict == VERDICT_FAILED) {
      *ret_failure = *items[i].failure;
      return true;
    }
  return false;
}

static bool write_batch(Replay *replay, AggregateSet *set, ReplayBatch *batch, Arena *arena,
                        Failure *ret_failure) {
  g_autoptr(GPtrArray) histories = g_ptr_array_new_with_free_func((GDestroyNotify)history_free);
  Culprit culprit;
  bool repeated;
  g_autoptr(Fold) fold = plan_decide(replay->mapping, batch->items, batch->planned, set, arena);
  if (find_failed(batch->items, batch->count, ret_failure))
    return false;
  pass_late(set, batch->items + batch->planned, batch->count - batch->planned);
  if (!ledger_insert(replay->session, &replay->scope, batch->items, batch->count, &repeated,
                     ret_failure))
    return false;
  if (repeated)
    return failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MYSQL, 0,
                       "the ledger has an event that it did not have before");
  if (!apply_fold(replay->session, fold, &culprit, ret_failure) ||
      !replay_look_again(replay, fold, ret_failure))
    return false;
  for (guint i = 0; i < batch->anew->len; i++) {
    const AggregateState *state = batch->anew->pdata[i];
    if (!fold_anew(replay, state->aggregate, arena, histories, ret_failure))
      return false;
  }
  return ledger_write_positions(replay->session, &replay->scope, set, ret_failure);
}

static bool transact(Replay *replay, Item *items, size_t count, int64_t *ret_applied,
                     Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  g_autoptr(GPtrArray) anew = g_ptr_array_new();
  ReplayBatch batch = {.items = items, .count = count, .anew = anew};
  for (size_t i = 0; i < count; i++)
    aggregate_set_open(set, &items[i].event->aggregate);
  if (!session_run(replay->session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(replay->session, &replay->scope, set, arena, ret_failure) ||
      !ledger_find_known(replay->session, &replay->scope, items, count, ret_failure))
    return false;
  plan_map(replay->mapping, items, count, arena);
  divide(replay, set, &batch, arena);
  if (!write_batch(replay, set, &batch, arena, ret_failure))
    return false;
  crash_point("replay_before_commit");
  if (!session_run(replay->session, ret_failure, "COMMIT"))
    return false;
  crash_point("replay_after_commit");
  for (size_t i = 0; i < count; i++)
    *ret_applied += batch.items[i].verdict != VERDICT_KNOWN;
  return true;
}

static bool name_culprit(const Event *event, Failure *ret_failure) {
  Failure cause = *ret_failure;
  failure_set(ret_failure, cause.class, cause.source, cause.code,
              "%.300s; correct the mapping, or leave the event out with --skip", cause.message);
  return name_event(event, ret_failure);
}

/* Finds an event that cannot be applied by halving: those before it are applied, and it is
 * named. */
static bool apply_part(Replay *replay, Item *items, size_t count, Failure *ret_failure) {
  for (int retries = 0;; retries++) {
    Failure failure = {0};
    for (size_t i = 0; i < count; i++)
      items[i] =
          (Item){.event = items[i].event, .gap_waited = true}; /* `archive verify` reports gaps */
    if (transact(replay, items, count, &replay->replayed, &failure))
      return true;
    session_rollback(replay->session);
    bool halve = failure.class == FAILURE_DATA || failure.class == FAILURE_SIZE ||
                 failure.class == FAILURE_UNKNOWN;
    if (failure.class == FAILURE_CONFLICT && retries < RETRIES_MAX) {
      g_usleep(RETRY_MS * 1000);
    } else if (halve && count > 1) {
      return apply_part(replay, items, count / 2, ret_failure) &&
             apply_part(replay, items + count / 2, count - count / 2, ret_failure);
    } else {
      *ret_failure = failure;
      return halve ? name_culprit(items[0].event, ret_failure) : false;
    }
  }
}

bool replay_apply(Replay *replay, Event *const *events, size_t count, Failure *ret_failure) {
  size_t most = (size_t)replay->config->settings.batch;
  g_autofree Item *items = g_new0(Item, count + 1);
  for (size_t i = 0; i < count; i++)
    items[i].event = events[i];
  for (size_t i = 0; i < count; i += most)
    if (!replay_keep_awake(replay, ret_failure) ||
        !apply_part(replay, items + i, MIN(count - i, most), ret_failure))
      return false;
  return true;
}

/* --- one aggregate of the table that is shown ----------------------------------------------- */

/* Chooses what the row is to show: what was applied, and what a refresh took from the entity before
 * its event was applied. */
static int64_t choose(const Position *position, Item *items, size_t archived, size_t count) {
  int64_t chosen = 0;
  for (size_t i = 0; i < count; i++) {
    int64_t version = items[i].event->key.version;
    bool contained = version != 0 && version <= position->refreshed_version;
    bool forgotten = i < archived; /* no longer in the ledger */
    if (items[i].verdict == VERDICT_KNOWN ||
        (items[i].verdict == VERDICT_NONE && (forgotten || contained)))
      items[i].verdict = VERDICT_APPLIED;
    chosen += items[i].verdict == VERDICT_APPLIED;
  }
  return chosen;
}

static bool write_row(Replay *replay, const Aggregate *aggregate, Arena *arena, int64_t *ret_events,
                      Failure *ret_failure) {
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  const AggregateState *state = aggregate_set_open(set, aggregate);
  size_t archived, count;
  if (!session_run(replay->session, ret_failure, "START TRANSACTION") ||
      !ledger_enter(replay->session, &replay->live, set, arena, ret_failure))
    return false;
  g_autoptr(History) history =
      history_read(replay->outbox, replay->archive, aggregate, ret_failure);
  if (!history)
    return false;
  g_autofree Item *items = items_of(replay, history, &archived, &count);
  if (!judge(replay->session, &replay->live, items, count, ret_failure))
    return false;
  *ret_events = choose(&state->position, items, archived, count);
  return (*ret_events == 0 || write_anew(replay, items, count, arena, ret_failure)) &&
         session_run(replay->session, ret_failure, "COMMIT");
}

bool replay_aggregate(Replay *replay, const Aggregate *aggregate, int64_t *ret_events,
                      Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  bool good = write_row(replay, aggregate, arena, ret_events, ret_failure);
  session_rollback(replay->session);
  return good;
}

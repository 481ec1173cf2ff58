/* replay_rounds.c - which events are due: the archive once, then what the ledger has received
 * since.
 *
 * Each round takes exactly what the ledger received in one span of the MySQL server's time, and
 * sorts it. So an aggregate's events come in the order in which they were applied, however late the
 * archive gets one of them, and only an event that was already late when it was applied is late
 * here. */
#include "projector/app/replay/replay.h"
#include "projector/app/shared/command.h"
#include "projector/app/shared/progress.h"
#include "projector/infra/clock.h"
#include "projector/infra/mongo/selection.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
  FOUND_AT_ONCE = 500,        /* events looked up by id at a time */
  ROUND_EVENTS = 5000,        /* ledger entries in one round, about */
  HELD_EVENTS = 2000,         /* the same while the owner waits */
  IDLE_ROUNDS = 3,            /* rounds without progress; then the owner has to wait */
  HOLD_US = 1000 * 1000,      /* first hold; longer while that does not help */
  HOLD_MOST_US = 4000 * 1000, /* an owner that waits longer takes it for a conflict */
  HELD_BYTES = 8 << 20,       /* of events read ahead of a batch, plus at most one event */
  CAUGHT_UP_US = 2000 * 1000, /* a round this short may run while the owner waits */
  CLOCK_MARGIN_S = 60, /* the last round goes back this far: a clock may have been set back */
};

static const char end_of_time[] = "9999-12-31";

static GPtrArray *events_new(void) {
  return g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
}

static int compare_events(gconstpointer a, gconstpointer b) {
  const Event *const *x = a, *const *y = b;
  return order_key_compare(&(*x)->key, &(*y)->key);
}

/* --- events by id --------------------------------------------------------------------------- */

static bool take_found(Outbox *from, const GArray *ids, GHashTable *missing, GPtrArray *events,
                       Failure *ret_failure) {
  if (g_hash_table_size(missing) == 0)
    return true;
  g_autoptr(EventCursor) cursor = archive_find_ids(from, &g_array_index(ids, Id, 0), ids->len);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    if (g_hash_table_remove(missing, &event->key.event_id))
      g_ptr_array_add(events, g_steal_pointer(&event));
  }
  return ret_failure->class == FAILURE_NONE;
}

static bool fail_nowhere(const Replay *replay, GHashTable *missing, Failure *ret_failure) {
  GHashTableIter iter;
  gpointer id;
  g_hash_table_iter_init(&iter, missing);
  while (g_hash_table_iter_next(&iter, &id, NULL)) {
    char text[ID_TEXT_SIZE];
    id_text(id, text);
    if (!g_hash_table_contains(replay->leave_out, id))
      return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                         "event %s was applied, but neither %s nor its archive has it; the archive "
                         "is incomplete: use rebuild, or leave the event out with --skip",
                         text, replay->config->mongodb.outbox);
  }
  return true;
}

/* Recheck in the outbox first, because events move from there to the archive. */
static bool find_events(Replay *replay, const GArray *ids, GPtrArray *events,
                        Failure *ret_failure) {
  for (guint i = 0; i < ids->len; i += FOUND_AT_ONCE) {
    g_autoptr(GArray) part = g_array_new(FALSE, FALSE, sizeof(Id));
    g_autoptr(GHashTable) missing = g_hash_table_new(id_hash_key, id_equal_key);
    if (!replay_keep_awake(replay, ret_failure))
      return false;
    g_array_append_vals(part, &g_array_index(ids, Id, i), MIN(ids->len - i, FOUND_AT_ONCE));
    for (guint k = 0; k < part->len; k++)
      g_hash_table_add(missing, &g_array_index(part, Id, k));
    if (!take_found(replay->outbox, part, missing, events, ret_failure) ||
        !take_found(archive_events(replay->archive), part, missing, events, ret_failure) ||
        !fail_nowhere(replay, missing, ret_failure))
      return false;
  }
  return true;
}

/* --- the archive ---------------------------------------------------------------------------- */

/* The events of the first round. */
typedef struct Scan {
  Replay *replay;
  const char *mark;
  GPtrArray *unarchived; /* of Event, in order: applied before the mark, not in the archive yet */
  guint next;            /* index into `unarchived` */
  GHashTable *known;     /* their ids */
  GPtrArray *held;       /* of Event: read, to be applied */
  size_t bytes;
} Scan;

static bool judge_unarchived(Replay *replay, const char *mark, GPtrArray *briefs, LedgerIds *ids,
                             Failure *ret_failure) {
  g_autofree Item *items = g_new0(Item, briefs->len + 1);
  for (guint i = 0; i < briefs->len; i++)
    items[i].event = briefs->pdata[i];
  if (!replay_keep_awake(replay, ret_failure) ||
      !ledger_judge(replay->session, &replay->live, mark, items, briefs->len, ret_failure))
    return false;
  for (guint i = 0; i < briefs->len; i++) {
    Id id = items[i].event->key.event_id;
    if (items[i].verdict != VERDICT_KNOWN)
      continue;
    id.bytes = (const uint8_t *)arena_copy(ids->arena, id.bytes, id.length);
    g_array_append_val(ids->ids, id);
  }
  g_ptr_array_set_size(briefs, 0);
  return true;
}

/* Read before the archive, so that an event that leaves the outbox meanwhile is found in one of the
 * two. */
static bool find_unarchived(Scan *scan, Failure *ret_failure) {
  Replay *replay = scan->replay;
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GArray) array = g_array_new(FALSE, FALSE, sizeof(Id));
  g_autoptr(GPtrArray) briefs = events_new();
  LedgerIds ids = {arena, array};
  g_autoptr(EventCursor) cursor = outbox_list_events(replay->outbox);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    if (event_in_range(&replay->range, event))
      g_ptr_array_add(briefs, g_steal_pointer(&event));
    if (briefs->len == FOUND_AT_ONCE &&
        !judge_unarchived(replay, scan->mark, briefs, &ids, ret_failure))
      return false;
  }
  if (ret_failure->class != FAILURE_NONE ||
      !judge_unarchived(replay, scan->mark, briefs, &ids, ret_failure) ||
      !find_events(replay, array, scan->unarchived, ret_failure))
    return false;
  g_ptr_array_sort(scan->unarchived, compare_events);
  for (guint i = 0; i < scan->unarchived->len; i++)
    g_hash_table_add(scan->known, &((Event *)scan->unarchived->pdata[i])->key.event_id);
  return true;
}

/* --- events that MySQL has lost -------------------------------------------------------------- */

static void note_forgotten(Replay *replay, const Event *event) {
  char id[ID_TEXT_SIZE], aggregate[512];
  id_text(&event->key.event_id, id);
  if (replay->forgotten++ == 0)
    replay->first_forgotten =
        g_strdup_printf("%s, version %" G_GINT64_FORMAT " of %.100s", id, event->key.version,
                        aggregate_text(&event->aggregate, aggregate, sizeof aggregate));
}

/* An archived event that the ledger does not have is an old one, or a restored MySQL has lost it.
 * Then it is above its aggregate's position: `run` puts it back before the next event, and applies
 * it again. An aggregate without a position begins with its first event, or with the next. */
static bool look_for_forgotten(Replay *replay, const Item *items, size_t count,
                               Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(AggregateSet) set = aggregate_set_new(arena);
  g_autoptr(GPtrArray) events = g_ptr_array_new();
  for (size_t i = 0; i < count; i++) {
    Event *event = items[i].event;
    if (items[i].verdict != VERDICT_NONE || event->key.version < 1 ||
        !change_list_counts(replay->mapping, event))
      continue;
    g_ptr_array_add(events, event);
    aggregate_set_open(set, &event->aggregate);
  }
  if (events->len > 0 &&
      !ledger_look_at_positions(replay->session, &replay->live, set, arena, ret_failure))
    return false;
  for (guint i = 0; i < events->len; i++) {
    const Event *event = events->pdata[i];
    int64_t reached = aggregate_set_find(set, &event->aggregate)->position.max_version;
    if (reached > 0 && event->key.version > reached)
      note_forgotten(replay, event);
  }
  return true;
}

/* Applies the collected events, except skipped ones and those of a later round. */
static bool flush(Scan *scan, Failure *ret_failure) {
  Replay *replay = scan->replay;
  size_t count = 0;
  g_autofree Event **events = g_new(Event *, scan->held->len + 1);
  g_autofree Item *items = g_new0(Item, scan->held->len + 1);
  for (guint i = 0; i < scan->held->len; i++)
    items[i].event = scan->held->pdata[i];
  if (!replay_keep_awake(replay, ret_failure) ||
      !ledger_judge(replay->session, &replay->live, scan->mark, items, scan->held->len,
                    ret_failure) ||
      !look_for_forgotten(replay, items, scan->held->len, ret_failure))
    return false;
  for (guint i = 0; i < scan->held->len; i++) {
    replay->skipped += items[i].verdict == VERDICT_SKIPPED;
    if (items[i].verdict != VERDICT_SKIPPED && items[i].verdict != VERDICT_WAIT)
      events[count++] = items[i].event;
  }
  bool good = replay_apply(replay, events, count, ret_failure);
  g_ptr_array_set_size(scan->held, 0);
  scan->bytes = 0;
  return good;
}

static bool hold(Scan *scan, Event *event, Failure *ret_failure) {
  size_t most = (size_t)scan->replay->config->settings.batch;
  if (!replay_takes(scan->replay, event)) {
    scan->replay->skipped += event->skipped;
    event_free(event);
    return true;
  }
  g_ptr_array_add(scan->held, event);
  scan->bytes += event_memory(event);
  return (scan->held->len < most && scan->bytes < HELD_BYTES) || flush(scan, ret_failure);
}

/* Merges in the unarchived events that sort before this one (NULL: all of them). */
static bool merge_before(Scan *scan, const Event *event, Failure *ret_failure) {
  while (scan->next < scan->unarchived->len) {
    const Event *first = scan->unarchived->pdata[scan->next];
    if (event && order_key_compare(&first->key, &event->key) > 0)
      return true;
    scan->next++;
    bson_t view;
    if (!hold(scan, event_decode(event_document(first, &view)),
              ret_failure)) /* its id is in `known` */
      return false;
  }
  return true;
}

/* Whatever is in the archive was applied once. */
static void note_unreadable(Replay *replay, const Event *event) {
  char id[ID_TEXT_SIZE];
  if (!event->malformed || event->skipped || !event_in_range(&replay->range, event) ||
      g_hash_table_contains(replay->leave_out, &event->key.event_id) || replay->unreadable++ > 0)
    return;
  id_text(&event->key.event_id, id);
  fprintf(stderr, "projector: event ");
  print_clean(stderr, id);
  fprintf(stderr, " of the archive cannot be read, and is left out: ");
  print_clean(stderr, event->malformed->message);
  fputc('\n', stderr);
}

static bool read_archive(Scan *scan, Failure *ret_failure) {
  EventRange range = scan->replay->range;
  if (!archive_bound(scan->replay->archive, &range, ret_failure))
    return false;
  g_autoptr(EventCursor) cursor = archive_scan(scan->replay->archive, &range);
  const bson_t *document;
  Progress progress;
  int64_t read = 0, total;
  if (!archive_estimate(scan->replay->archive, &total, ret_failure))
    return false;
  progress_begin(&progress, scan->replay->projection->table, 0, total);
  bool good = true;
  while (good && (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = archive_decode(document);
    note_unreadable(scan->replay, event);
    if (!g_hash_table_contains(scan->known, &event->key.event_id))
      good = merge_before(scan, event, ret_failure) &&
             hold(scan, g_steal_pointer(&event), ret_failure);
    progress_show(&progress, ++read);
  }
  progress_end(&progress);
  return good && ret_failure->class == FAILURE_NONE && merge_before(scan, NULL, ret_failure) &&
         flush(scan, ret_failure);
}

/* Applies everything that was applied before the mark. */
static bool first_round(Replay *replay, const char *mark, Failure *ret_failure) {
  g_autoptr(GPtrArray) unarchived = events_new(), held = events_new();
  g_autoptr(GHashTable) known = g_hash_table_new(id_hash_key, id_equal_key);
  Scan scan = {
      .replay = replay, .mark = mark, .unarchived = unarchived, .known = known, .held = held};
  int64_t age_ms, kept = replay->config->settings.ledger_retention_s;
  if (!find_unarchived(&scan, ret_failure) || !read_archive(&scan, ret_failure) ||
      !ledger_age_ms(replay->session, mark, &age_ms, ret_failure))
    return false;
  return age_ms / 1000 < kept ||
         failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "reading the archive took %lld s, but the ledger keeps its entries for %lld s "
                     "only; raise ledger_retention, then replay again: it continues "
                     "from here",
                     (long long)(age_ms / 1000), (long long)kept);
}

/* --- rounds of the ledger ------------------------------------------------------------------- */

/* Sorts the events and applies those that are to be replayed, each once. */
static bool apply_sorted(Replay *replay, GPtrArray *events, Failure *ret_failure) {
  g_autofree Event **chosen = g_new(Event *, events->len + 1);
  size_t count = 0;
  g_ptr_array_sort(events, compare_events);
  for (guint i = 0; i < events->len; i++) {
    Event *event = events->pdata[i];
    if (replay_takes(replay, event) &&
        (count == 0 || !id_equal(&chosen[count - 1]->key.event_id, &event->key.event_id)))
      chosen[count++] = event;
  }
  return replay_apply(replay, chosen, count, ret_failure);
}

/* Which events of the aggregates are in the outbox, up to their versions: added to `ids`. */
static bool list_contained(Replay *replay, const GArray *refreshed, LedgerIds *ids,
                           Failure *ret_failure) {
  g_autofree const Aggregate **aggregates = g_new(const Aggregate *, refreshed->len);
  g_autoptr(GHashTable) versions = g_hash_table_new(id_hash_key, id_equal_key);
  for (guint i = 0; i < refreshed->len; i++) {
    PositionFound *to = &g_array_index(refreshed, PositionFound, i);
    aggregates[i] = &to->aggregate;
    g_hash_table_insert(versions, &to->aggregate.id, &to->refreshed_version);
  }
  g_autoptr(EventCursor) cursor = outbox_find_of_any(replay->outbox, aggregates, refreshed->len);
  const bson_t *document;
  while ((document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = event_decode(document);
    const int64_t *version = g_hash_table_lookup(versions, &event->aggregate.id);
    if (!version || event->key.version < 1 || event->key.version > *version)
      continue;
    Id id = event->key.event_id;
    id.bytes = (const uint8_t *)arena_copy(ids->arena, id.bytes, id.length);
    g_array_append_val(ids->ids, id);
  }
  return ret_failure->class == FAILURE_NONE;
}

/* The contained events of some aggregates. */
static bool find_contained(Replay *replay, const GArray *refreshed, GPtrArray *events,
                           Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GArray) array = g_array_new(FALSE, FALSE, sizeof(Id));
  return refreshed->len == 0 ||
         (list_contained(replay, refreshed, &(LedgerIds){arena, array}, ret_failure) &&
          find_events(replay, array, events, ret_failure));
}

/* Events still in the outbox whose effect a refresh took from the entity: nobody will apply them to
 * the row again. Found by the positions of their aggregates, and applied when there are many; the
 * rest is left in `events`. */
static bool apply_contained(Replay *replay, GPtrArray *events, Failure *ret_failure) {
  g_autoptr(PositionWalk) walk = ledger_walk_refreshed(
      &replay->live, &replay->scope, replay->projection->aggregate_type, FOUND_AT_ONCE);
  const GArray *refreshed;
  for (;;) {
    if (!replay_keep_awake(replay, ret_failure) ||
        !position_walk_next(walk, replay->session, &refreshed, ret_failure))
      return false;
    if (!refreshed)
      return true;
    if (!find_contained(replay, refreshed, events, ret_failure))
      return false;
    if (events->len >= ROUND_EVENTS) {
      if (!apply_sorted(replay, events, ret_failure))
        return false;
      g_ptr_array_set_size(events, 0);
    }
  }
}

/* Applies what the ledger received in that span. */
static bool replay_round(Replay *replay, const LedgerSpan *span, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GArray) array = g_array_new(FALSE, FALSE, sizeof(Id));
  g_autoptr(GPtrArray) events = events_new();
  LedgerIds due = {arena, array};
  if (!replay_keep_awake(replay, ret_failure) ||
      !ledger_find_due(replay->session, &replay->live, &replay->scope, span, &due, ret_failure) ||
      !find_events(replay, array, events, ret_failure) ||
      !apply_contained(replay, events, ret_failure))
    return false;
  return apply_sorted(replay, events, ret_failure);
}

/* --- catching up ---------------------------------------------------------------------------- */

/* How close the rounds have come. If live events are applied as fast as they are replayed, the
 * rounds would never catch up: then the owner waits while some rounds run, with turns of its own in
 * between. */
typedef struct CatchUpPace {
  int64_t hold_us; /* how long the owner waits at a time; 0: not at all */
  unsigned events; /* in one round */
  int64_t behind_ms, least_ms;
  int idle; /* rounds that came no closer */
} CatchUpPace;

/* Asks again after a deadlock with the owner, or while the owner's transaction lasts. With the
 * brake, the owner waits until that session's transaction ends. */
static bool take_mark(Replay *replay, Session *brake, char ret_mark[static LEDGER_TIME_SIZE],
                      Failure *ret_failure) {
  for (int tries = 0;; tries++) {
    *ret_failure = (Failure){0};
    if (!replay_keep_awake(replay, ret_failure))
      return false;
    if (brake ? ledger_hold(brake, &replay->live, ret_mark, ret_failure)
              : ledger_mark(replay->session, &replay->live, ret_mark, ret_failure))
      return true;
    if (brake)
      session_rollback(brake);
    if (ret_failure->class != FAILURE_CONFLICT || tries == 3)
      return false;
  }
}

/* Runs rounds from `since` up to the mark: at least one, and none begins after that time. `since`
 * becomes how far they came. */
static bool run_rounds(Replay *replay, char since[static LEDGER_TIME_SIZE], const char *mark,
                       unsigned events, int64_t most_us, Failure *ret_failure) {
  int64_t started_us = clock_us();
  char end[LEDGER_TIME_SIZE];
  do {
    if (!replay_keep_awake(replay, ret_failure) ||
        !ledger_page_end(replay->session, &replay->live, since, mark, events, end, ret_failure) ||
        !replay_round(replay, &(LedgerSpan){since, 0, end}, ret_failure))
      return false;
    g_strlcpy(since, end, LEDGER_TIME_SIZE);
  } while (strcmp(since, mark) != 0 && clock_us() - started_us < most_us);
  return true;
}

static void show_distance(const Replay *replay, const CatchUpPace *pace) {
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K%s: %lld events replayed, %lld s behind%s\r",
            replay->projection->table, (long long)replay->replayed,
            (long long)(pace->behind_ms / 1000),
            pace->hold_us > 0 ? ", run waits now and then" : "");
}

static bool adjust(Replay *replay, const char *since, CatchUpPace *pace, Failure *ret_failure) {
  if (!ledger_age_ms(replay->session, since, &pace->behind_ms, ret_failure))
    return false;
  show_distance(replay, pace);
  pace->idle = pace->behind_ms < pace->least_ms ? 0 : pace->idle + 1;
  pace->least_ms = MIN(pace->least_ms, pace->behind_ms);
  if (pace->idle < IDLE_ROUNDS)
    return true;
  pace->idle = 0;
  pace->least_ms = pace->behind_ms; /* whether a longer hold helps is measured from here */
  if (pace->hold_us > 0) {
    pace->hold_us = MIN(2 * pace->hold_us, HOLD_MOST_US);
    return true;
  }
  fprintf(stderr,
          "projector: %lld s behind live events, which come as fast as they are replayed: `run` "
          "waits now and then until %s has caught up\n",
          (long long)(pace->behind_ms / 1000), replay->projection->table);
  pace->hold_us = HOLD_US;
  pace->events = HELD_EVENTS;
  return true;
}

/* However long the round: the owner waits `lock_wait_s` for a lock, then fails. */
static unsigned brake_holds_s(const Replay *replay) {
  return MAX(replay->config->mysql.lock_wait_s * 4 / 5, 1);
}

/* A session for one hold. If a round takes too long, the server itself ends the session and the
 * owner continues; the mark was taken before, so everything applied up to it is still right. */
static Session *brake_open(const Replay *replay, Failure *ret_failure) {
  g_autoptr(Session) brake = session_open(&replay->config->mysql, ret_failure);
  if (!brake ||
      !session_run(brake, ret_failure, "SET SESSION wait_timeout = %u", brake_holds_s(replay)))
    return NULL;
  return g_steal_pointer(&brake);
}

/* Whether it held to the end; if not, the rounds must become shorter. */
static bool has_held(const Replay *replay, const Session *brake, CatchUpPace *pace) {
  if (session_idle_ms(brake) < (int64_t)brake_holds_s(replay) * 1000)
    return true;
  pace->events = MAX(pace->events / 2, 1);
  return false;
}

/* Runs rounds up to a mark taken now, or as far as they come. They have caught up if they arrived
 * soon, or while the owner waited. Without a hand-over (--to) one mark is enough: later events do
 * not matter, and live events need not wait. */
static bool advance(Replay *replay, char since[static LEDGER_TIME_SIZE], CatchUpPace *pace,
                    bool *ret_near, Failure *ret_failure) {
  bool hands_over = replay->range.to == INT64_MAX;
  int64_t started_us = clock_us();
  char mark[LEDGER_TIME_SIZE];
  g_autoptr(Session) brake = NULL;
  if (pace->hold_us > 0 && !(brake = brake_open(replay, ret_failure)))
    return false;
  if (!take_mark(replay, brake, mark, ret_failure) ||
      !run_rounds(replay, since, mark, pace->events, hands_over ? pace->hold_us : INT64_MAX,
                  ret_failure))
    return false;
  bool soon = brake ? has_held(replay, brake, pace) : clock_us() - started_us < CAUGHT_UP_US;
  *ret_near = !strcmp(since, mark) && (soon || !hands_over);
  return true;
}

static bool catch_up(Replay *replay, char since[static LEDGER_TIME_SIZE], Failure *ret_failure) {
  CatchUpPace pace = {.events = ROUND_EVENTS, .least_ms = INT64_MAX};
  for (bool near = false; !near;)
    if (!advance(replay, since, &pace, &near, ret_failure) ||
        (!near && !adjust(replay, since, &pace, ret_failure)))
      return false;
  return true;
}

bool replay_catch_up(Replay *replay, char ret_until[static LEDGER_TIME_SIZE],
                     Failure *ret_failure) {
  char since[LEDGER_TIME_SIZE];
  bool good = take_mark(replay, NULL, since, ret_failure) &&
              first_round(replay, since, ret_failure) && catch_up(replay, since, ret_failure);
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K");
  if (good)
    g_strlcpy(ret_until, since, LEDGER_TIME_SIZE);
  return good;
}

/* Repeats while there are any: the outbox hands out a thousand events of an aggregate at a time. */
bool replay_finish(Replay *replay, const char *since, Failure *ret_failure) {
  for (int64_t before = -1; before != replay->replayed;) {
    before = replay->replayed;
    if (!replay_round(replay, &(LedgerSpan){since, CLOCK_MARGIN_S, end_of_time}, ret_failure))
      return false;
  }
  return true;
}

/* lost_rows.c - rows that the swap would lose, because the archive has no events to make them from.
 *
 * Whatever the projector writes moves the aggregate's position. So an aggregate with a position,
 * and none in the replay, has a row that no replayed event makes. A row of an aggregate that was
 * replayed is decided by its events; one of an aggregate without a position was written by somebody
 * else. */
#include "projector/app/replay/replay.h"

#include "projector/domain/entity.h"
#include "projector/domain/retarget.h"
#include "projector/infra/clock.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

enum {
  LOST_PAGE = 500,            /* aggregates that are looked for at a time */
  LOST_MOST = 1000,           /* then the counting ends: `run` waits for it */
  LOST_MOST_US = 4000 * 1000, /* it ends then too, but not before there is one to be named */
};

static bool has_enough(LostRows *lost) {
  lost->more =
      lost->count == LOST_MOST || (lost->count > 0 && clock_us() - lost->started_us > LOST_MOST_US);
  return lost->more;
}

/* The keys of their rows, and whose they are. An id that cannot be a key has no row. */
typedef struct Keys {
  GPtrArray *keys;   /* of Value */
  GPtrArray *owners; /* of PositionFound */
  GPtrArray *events; /* of Event, owned: the keys point into them */
} Keys;

static void map_keys(const Layout *layout, const GArray *aggregates, Keys *keys, Arena *arena) {
  static const bson_t nothing = BSON_INITIALIZER;
  for (guint i = 0; i < aggregates->len; i++) {
    PositionFound *owner = &g_array_index(aggregates, PositionFound, i);
    Event *event = entity_as_event(&nothing, &owner->aggregate, 0, INT64_MIN);
    Value *key = arena_alloc(arena, layout->key_count, sizeof *key);
    Failure ignored;
    g_ptr_array_add(keys->events, event);
    if (!layout_map_key(layout, event, arena, key, &ignored))
      continue;
    g_ptr_array_add(keys->keys, key);
    g_ptr_array_add(keys->owners, owner);
  }
}

static void append_key(GString *text, const Layout *layout, const Value *key) {
  for (unsigned i = 0; i < layout->key_count; i++) {
    g_string_append_printf(text, "%s%s = ", i ? ", " : "", layout->columns[i]->name);
    value_append_text(text, &key[i]);
  }
}

typedef struct Archived {
  bool any;
  bool left_out; /* one that the operator leaves out now */
  bool other;    /* one that is neither left out nor skipped; then the look ends */
} Archived;

/* At what the archive has of the aggregate: at one event of it, or at all. */
static bool look(const Replay *replay, const Aggregate *aggregate, int limit,
                 Archived *ret_archived, Failure *ret_failure) {
  g_autoptr(EventCursor) cursor = archive_find_marks(replay->archive, aggregate, limit);
  const bson_t *document;
  *ret_archived = (Archived){0};
  while (!ret_archived->other && (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = archive_decode(document);
    bool out = g_hash_table_contains(replay->leave_out, &event->key.event_id);
    ret_archived->any = true;
    ret_archived->left_out |= out;
    ret_archived->other = !out && !event->skipped;
  }
  return ret_failure->class == FAILURE_NONE;
}

/* An operator who has skipped all events of an aggregate, or leaves them out now, knows that it has
 * no row, unless a refresh has made one since. Mostly a single event tells that this is not so. */
static bool is_lost(Replay *replay, const PositionFound *owner, bool *ret_lost,
                    Failure *ret_failure) {
  Archived archived;
  if (!replay_keep_awake(replay, ret_failure) ||
      !look(replay, &owner->aggregate, 1, &archived, ret_failure) ||
      (archived.any && !archived.other &&
       !look(replay, &owner->aggregate, 0, &archived, ret_failure)))
    return false;
  *ret_lost =
      archived.other || !archived.any || (!archived.left_out && owner->refreshed_version > 0);
  return true;
}

static bool count_rows(Replay *replay, const Layout *layout, const GArray *aggregates, Arena *arena,
                       Failure *ret_failure) {
  LostRows *lost = &replay->lost;
  g_autoptr(GPtrArray) keys = g_ptr_array_new(), owners = g_ptr_array_new();
  g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func((GDestroyNotify)event_free);
  g_autoptr(RowSet) rows = row_set_new(arena);
  map_keys(layout, aggregates, &(Keys){keys, owners, events}, arena);
  if (keys->len > 0 && !rows_find(replay->session, layout, (const Value *const *)keys->pdata,
                                  keys->len, rows, ret_failure))
    return false;
  for (guint i = 0; i < keys->len && rows->rows->len > 0 && !has_enough(lost); i++) {
    bool is = row_set_find(rows, keys->pdata[i]) != NULL;
    if (is && !is_lost(replay, owners->pdata[i], &is, ret_failure))
      return false;
    if (is && lost->count == 0)
      append_key(lost->text, layout, keys->pdata[i]);
    lost->count += is;
  }
  return true;
}

/* Rows with other keys cannot be found by their aggregates: these are counted instead. */
static bool count_aggregates(Replay *replay, const GArray *aggregates, Failure *ret_failure) {
  LostRows *lost = &replay->lost;
  char text[512];
  for (guint i = 0; i < aggregates->len && !has_enough(lost); i++) {
    const PositionFound *owner = &g_array_index(aggregates, PositionFound, i);
    bool is;
    if (!is_lost(replay, owner, &is, ret_failure))
      return false;
    if (is && lost->count == 0)
      g_string_append(lost->text, aggregate_text(&owner->aggregate, text, sizeof text));
    lost->count += is;
  }
  return true;
}

static bool count_page(Replay *replay, const GArray *aggregates, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  Layout layout;
  if (!projection_owns_rows(replay->projection))
    return count_aggregates(replay, aggregates, ret_failure);
  if (!layout_init(replay->projection, arena, &layout, ret_failure))
    return false;
  layout.count = layout.key_count;
  return count_rows(replay, &layout, aggregates, arena, ret_failure);
}

static bool count(Replay *replay, Failure *ret_failure) {
  g_autoptr(PositionWalk) walk = ledger_walk_unshared(
      &replay->live, &replay->scope, replay->projection->aggregate_type, LOST_PAGE);
  const GArray *found;
  do {
    if (!replay_keep_awake(replay, ret_failure) ||
        !position_walk_next(walk, replay->session, &found, ret_failure) ||
        (found && !count_page(replay, found, ret_failure)))
      return false;
  } while (found && !has_enough(&replay->lost));
  return true;
}

bool replay_find_lost(Replay *replay, Failure *ret_failure) {
  LostRows *lost = &replay->lost;
  lost->count = 0;
  lost->started_us = clock_us();
  g_string_truncate(lost->text, 0);
  if (!count(replay, ret_failure))
    return false;
  if (lost->count > 0) {
    g_autofree char *first = g_strdup(lost->text->str);
    bool rows = projection_owns_rows(replay->projection);
    g_string_printf(lost->text, "%s%s%" G_GINT64_FORMAT "%s of %s (the first: %s)",
                    rows ? "" : "those of ", lost->more ? "at least " : "", lost->count,
                    rows ? "" : " aggregates", replay->projection->table, first);
  }
  return true;
}

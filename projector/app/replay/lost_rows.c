/* lost_rows.c - rows that the swap would lose, because the archive has no events to make them from.
 *
 * Whatever the projector writes moves the aggregate's position. So an aggregate with a position,
 * and none in the replay, has a row that no replayed event makes. A row of an aggregate that was
 * replayed is decided by its events; one of an aggregate without a position was written by somebody
 * else. */
#include "projector/app/replay/replay.h"

#include "projector/domain/entity.h"
#include "projector/domain/retarget.h"
#include "projector/infra/mysql/rows.h"

#include <string.h>

enum {
  LOST_PAGE = 500,  /* aggregates that are looked for at a time */
  LOST_MOST = 1000, /* then the counting ends: `run` waits for it */
};

/* The keys of their rows, and whose they are. An id that cannot be a key has no row. */
typedef struct Keys {
  GPtrArray *keys;   /* of Value */
  GPtrArray *owners; /* of RefreshedTo */
  GPtrArray *events; /* of Event, owned: the keys point into them */
} Keys;

static void map_keys(const Layout *layout, const GArray *aggregates, Keys *keys, Arena *arena) {
  static const bson_t nothing = BSON_INITIALIZER;
  for (guint i = 0; i < aggregates->len; i++) {
    RefreshedTo *owner = &g_array_index(aggregates, RefreshedTo, i);
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

/* An operator who has skipped all events of an aggregate, or leaves them out now, knows that it has
 * no row, unless a refresh has made one since. */
static bool is_lost(Replay *replay, const RefreshedTo *owner, bool *ret_lost,
                    Failure *ret_failure) {
  if (!replay_keep_awake(replay, ret_failure))
    return false;
  g_autoptr(EventCursor) cursor =
      archive_find_aggregate(archive_events(replay->archive), &owner->aggregate);
  bool any = false, left_out = false, other = false;
  const bson_t *document;
  while (!other && (document = event_cursor_next(cursor, ret_failure))) {
    g_autoptr(Event) event = archive_decode(document);
    bool out = g_hash_table_contains(replay->leave_out, &event->key.event_id);
    any = true;
    left_out |= out;
    other = !out && !event->skipped;
  }
  *ret_lost = other || !any || (!left_out && owner->version > 0);
  return ret_failure->class == FAILURE_NONE;
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
  for (guint i = 0; i < keys->len && rows->rows->len > 0 && lost->count < LOST_MOST; i++) {
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
  for (guint i = 0; i < aggregates->len && lost->count < LOST_MOST; i++) {
    const RefreshedTo *owner = &g_array_index(aggregates, RefreshedTo, i);
    bool is;
    if (!is_lost(replay, owner, &is, ret_failure))
      return false;
    if (is && lost->count == 0)
      g_string_append(lost->text, aggregate_text(&owner->aggregate, text, sizeof text));
    lost->count += is;
  }
  return true;
}

static bool count_page(Replay *replay, const GArray *aggregates, Arena *arena,
                       Failure *ret_failure) {
  Layout layout;
  if (!projection_owns_rows(replay->projection))
    return count_aggregates(replay, aggregates, ret_failure);
  if (!layout_init(replay->projection, arena, &layout, ret_failure))
    return false;
  layout.count = layout.key_count;
  return count_rows(replay, &layout, aggregates, arena, ret_failure);
}

static bool count_kind(Replay *replay, IdKind kind, Failure *ret_failure) {
  g_autoptr(Arena) kept = arena_new();
  PositionPage page = {replay->projection->aggregate_type, kind, NULL, LOST_PAGE};
  Id last;
  for (;;) {
    g_autoptr(Arena) arena = arena_new();
    g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(RefreshedTo));
    if (!replay_keep_awake(replay, ret_failure) ||
        !ledger_find_unshared(replay->session, &replay->live, &replay->scope, &page, arena, found,
                              ret_failure) ||
        !count_page(replay, found, arena, ret_failure))
      return false;
    if (found->len < page.limit || replay->lost.count == LOST_MOST)
      return true;
    last = g_array_index(found, RefreshedTo, found->len - 1).aggregate.id;
    if (last.bytes)
      last.bytes = (const uint8_t *)arena_copy(kept, last.bytes, last.length);
    page.after = &last;
  }
}

bool replay_find_lost(Replay *replay, Failure *ret_failure) {
  LostRows *lost = &replay->lost;
  lost->count = 0;
  g_string_truncate(lost->text, 0);
  for (IdKind kind = 0; kind < ID_KINDS && lost->count < LOST_MOST; kind++)
    if (!count_kind(replay, kind, ret_failure))
      return false;
  if (lost->count > 0) {
    g_autofree char *first = g_strdup(lost->text->str);
    bool rows = projection_owns_rows(replay->projection);
    g_string_printf(lost->text, "%s%s%" G_GINT64_FORMAT "%s of %s (the first: %s)",
                    rows ? "" : "those of ", lost->count == LOST_MOST ? "at least " : "",
                    lost->count, rows ? "" : " aggregates", replay->projection->table, first);
  }
  return true;
}

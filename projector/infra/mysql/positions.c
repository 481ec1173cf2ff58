/* positions.c - a walk along the primary key of projector_position, range by range. */
#include "projector/infra/mysql/positions.h"

#include "projector/infra/mysql/literal.h"

#include <string.h>

enum { RANGE = 5000 }; /* positions that a statement scans */

struct PositionWalk {
  char *projector, *aggregate_type, *join, *condition;
  unsigned limit;
  IdKind kind;
  bool in_range;
  GString *after; /* text of an id; "" sorts before all of them */
  GString *until; /* the range's last id; "": there is no bound, less than a range is left */
  Arena *arena;   /* of `found` */
  GArray *found;  /* of PositionFound */
};

PositionWalk *position_walk_new(const PositionQuery *query) {
  PositionWalk *walk = g_new0(PositionWalk, 1);
  walk->projector = g_strdup(query->projector);
  walk->aggregate_type = g_strdup(query->aggregate_type);
  walk->join = g_strdup(query->join);
  walk->condition = g_strdup(query->condition);
  walk->limit = query->limit;
  walk->after = g_string_new(NULL);
  walk->until = g_string_new(NULL);
  walk->arena = arena_new();
  walk->found = g_array_new(FALSE, FALSE, sizeof(PositionFound));
  return walk;
}

void position_walk_free(PositionWalk *walk) {
  if (!walk)
    return;
  g_free(walk->projector);
  g_free(walk->aggregate_type);
  g_free(walk->join);
  g_free(walk->condition);
  g_string_free(walk->after, TRUE);
  g_string_free(walk->until, TRUE);
  arena_free(walk->arena);
  g_array_unref(walk->found);
  g_free(walk);
}

static void set_text(GString *text, const char *bytes, size_t length) {
  g_string_truncate(text, 0);
  g_string_append_len(text, bytes, (gssize)length);
}

static void append_place(GString *sql, const PositionWalk *walk) {
  g_string_append(sql, " WHERE p.projector = ");
  literal_append_text(sql, walk->projector, strlen(walk->projector));
  g_string_append(sql, " AND p.aggregate_type = ");
  literal_append_bytes(sql, walk->aggregate_type, strlen(walk->aggregate_type));
  g_string_append_printf(sql, " AND p.aggregate_id_kind = '%s' AND p.aggregate_id > ",
                         id_kind_name(walk->kind));
  literal_append_bytes(sql, walk->after->str, walk->after->len);
}

static bool begin_range(PositionWalk *walk, Session *session, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT p.aggregate_id FROM projector_position p");
  append_place(sql, walk);
  g_string_append_printf(sql, " ORDER BY p.aggregate_id LIMIT 1 OFFSET %d", RANGE - 1);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  if (row)
    set_text(walk->until, row[0], mysql_fetch_lengths(result)[0]);
  else
    set_text(walk->until, "", 0);
  walk->in_range = true;
  return true;
}

static void end_range(PositionWalk *walk) {
  if (walk->until->len == 0)
    walk->kind++;
  set_text(walk->after, walk->until->str, walk->until->len);
  walk->in_range = false;
}

static bool take(PositionWalk *walk, const char *text, size_t length, const char *refreshed_version,
                 Failure *ret_failure) {
  PositionFound found = {.aggregate = {.type = walk->aggregate_type,
                                       .type_length = (uint32_t)strlen(walk->aggregate_type)}};
  if (!id_from_text(walk->kind, arena_copy(walk->arena, text, length), length,
                    arena_alloc(walk->arena, 16, 1), &found.aggregate.id))
    return failure_set(ret_failure, FAILURE_UNKNOWN, SOURCE_PROJECTOR, 0,
                       "projector_position has an aggregate_id that is no %s",
                       id_kind_name(walk->kind));
  found.refreshed_version = refreshed_version ? g_ascii_strtoll(refreshed_version, NULL, 10) : 0;
  g_array_append_val(walk->found, found);
  set_text(walk->after, text, length);
  return true;
}

static bool read_found(PositionWalk *walk, Session *session, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT p.aggregate_id, p.refreshed_version"
                                        " FROM projector_position p ");
  g_string_append(sql, walk->join);
  append_place(sql, walk);
  if (walk->until->len > 0) {
    g_string_append(sql, " AND p.aggregate_id <= ");
    literal_append_bytes(sql, walk->until->str, walk->until->len);
  }
  g_string_append_printf(sql, " AND %s ORDER BY p.aggregate_id LIMIT %u", walk->condition,
                         walk->limit);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  MYSQL_ROW row;
  while (result && (row = mysql_fetch_row(result)))
    if (!take(walk, row[0], mysql_fetch_lengths(result)[0], row[1], ret_failure))
      return false;
  return result != NULL;
}

bool position_walk_next(PositionWalk *walk, Session *session, const GArray **ret_found,
                        Failure *ret_failure) {
  bool end = walk->kind == ID_KINDS;
  g_array_set_size(walk->found, 0);
  arena_reset(walk->arena);
  if (!end && ((!walk->in_range && !begin_range(walk, session, ret_failure)) ||
               !read_found(walk, session, ret_failure)))
    return false;
  if (!end && walk->found->len < walk->limit)
    end_range(walk);
  *ret_found = end ? NULL : walk->found;
  return true;
}

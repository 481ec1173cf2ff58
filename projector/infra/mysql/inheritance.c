/* inheritance.c - copies ledger and positions from one name to another, page by page. */
#include "projector/infra/mysql/inheritance.h"

#include "projector/domain/event.h"
#include "projector/infra/mysql/fence.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

enum { PAGE_ROWS = 10000 }; /* copied well within the time allowed for an answer */

/* Rows of the table `s` that differ only in their ids, by which they are read in pages. */
typedef struct Part {
  const char *table, *id;
  const GString *alike;    /* the condition */
  const char *head, *tail; /* of the statement that copies them */
  bool begun, ended;       /* of the pages after `after`: some were read; all were */
  GString *after;
} Part;

static void append_after(GString *sql, const Part *part) {
  g_string_append_printf(sql, " WHERE %s", part->alike->str);
  if (!part->begun)
    return;
  g_string_append_printf(sql, " AND s.%s > ", part->id);
  literal_append_bytes(sql, part->after->str, part->after->len);
}

/* The last id of the next page; the last page has none. */
static bool find_page_end(Session *session, Part *part, GString *ret_end, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(NULL);
  g_string_printf(sql, "SELECT s.%s FROM %s AS s", part->id, part->table);
  append_after(sql, part);
  g_string_append_printf(sql, " ORDER BY s.%s LIMIT 1 OFFSET %d", part->id, PAGE_ROWS - 1);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  part->ended = row == NULL;
  if (row)
    g_string_append_len(ret_end, row[0], (gssize)mysql_fetch_lengths(result)[0]);
  return true;
}

static bool copy_page(Session *session, Part *part, uint64_t *copied, Failure *ret_failure) {
  g_autoptr(GString) end = g_string_new(NULL);
  g_autoptr(GString) sql = g_string_new(part->head);
  if (!find_page_end(session, part, end, ret_failure))
    return false;
  append_after(sql, part);
  if (!part->ended) {
    g_string_append_printf(sql, " AND s.%s <= ", part->id);
    literal_append_bytes(sql, end->str, end->len);
  }
  g_string_append(sql, part->tail);
  uint64_t rows = 0;
  if (!session_execute(session, sql->str, sql->len, &rows, ret_failure))
    return false;
  *copied += rows;
  part->begun = true;
  g_string_truncate(part->after, 0);
  g_string_append_len(part->after, end->str, (gssize)end->len);
  return true;
}

static bool copy_part(Session *session, Part part, uint64_t *copied, Failure *ret_failure) {
  g_autoptr(GString) after = g_string_new(NULL);
  part.after = after;
  while (!part.ended)
    if (!copy_page(session, &part, copied, ret_failure))
      return false;
  return true;
}

static GString *name_is(const char *column, const char *name) {
  GString *sql = g_string_new(NULL);
  g_string_printf(sql, "%s = ", column);
  literal_append_text(sql, name, strlen(name));
  return sql;
}

/* Entries that `to` already has stay: the user may lack the privilege to change the ledger. */
static bool copy_ledger(Session *session, const char *from, const char *to, uint64_t *copied,
                        Failure *ret_failure) {
  g_autoptr(GString) head =
      g_string_new("INSERT INTO projector_applied"
                   " (projector, event_id_kind, event_id, outcome, applied_at) SELECT ");
  literal_append_text(head, to, strlen(to));
  g_autoptr(GString) ours = name_is("t.projector", to);
  g_string_append_printf(head,
                         ", s.event_id_kind, s.event_id, s.outcome, s.applied_at"
                         " FROM projector_applied AS s LEFT JOIN projector_applied AS t ON %s"
                         " AND t.event_id_kind = s.event_id_kind AND t.event_id = s.event_id",
                         ours->str);
  for (IdKind kind = 0; kind < ID_KINDS; kind++) {
    g_autoptr(GString) alike = name_is("s.projector", from);
    g_string_append_printf(alike, " AND s.event_id_kind = '%s'", id_kind_name(kind));
    Part part = {.table = "projector_applied",
                 .id = "event_id",
                 .alike = alike,
                 .head = head->str,
                 .tail = " AND t.projector IS NULL"};
    if (!copy_part(session, part, copied, ret_failure))
      return false;
  }
  return true;
}

static bool copy_positions_like(Session *session, const GString *alike, const char *to,
                                uint64_t *copied, Failure *ret_failure) {
  static const char tail[] =
      " ON DUPLICATE KEY UPDATE projector_position.occurred_at = s.occurred_at,"
      " projector_position.version = s.version,"
      " projector_position.event_id_kind = s.event_id_kind,"
      " projector_position.event_id = s.event_id,"
      " projector_position.max_version = s.max_version,"
      " projector_position.refreshed_version = s.refreshed_version";
  g_autoptr(GString) head = g_string_new(
      "INSERT INTO projector_position (projector, aggregate_type, aggregate_id_kind, aggregate_id,"
      " occurred_at, version, event_id_kind, event_id, max_version, refreshed_version) SELECT ");
  literal_append_text(head, to, strlen(to));
  g_string_append(head, ", s.aggregate_type, s.aggregate_id_kind, s.aggregate_id, s.occurred_at,"
                        " s.version, s.event_id_kind, s.event_id, s.max_version,"
                        " s.refreshed_version FROM projector_position AS s");
  Part part = {.table = "projector_position",
               .id = "aggregate_id",
               .alike = alike,
               .head = head->str,
               .tail = tail};
  return copy_part(session, part, copied, ret_failure);
}

static bool copy_positions(Session *session, const char *from, const char *to, uint64_t *copied,
                           Failure *ret_failure) {
  g_autoptr(GString) theirs = name_is("s.projector", from);
  g_autoptr(GString) sql = g_string_new("SELECT DISTINCT s.aggregate_type, s.aggregate_id_kind"
                                        " FROM projector_position AS s WHERE ");
  g_string_append(sql, theirs->str);
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  for (MYSQL_ROW row; (row = mysql_fetch_row(result));) {
    g_autoptr(GString) alike = g_string_new(theirs->str);
    g_string_append_printf(alike,
                           " AND s.aggregate_id_kind = '%s' AND s.aggregate_type = ", row[1]);
    literal_append_bytes(alike, row[0], mysql_fetch_lengths(result)[0]);
    if (!copy_positions_like(session, alike, to, copied, ret_failure))
      return false;
  }
  return true;
}

bool inherit(Session *session, const char *from, const char *to, int64_t *ret_events,
             Failure *ret_failure) {
  uint64_t events = 0, positions = 0;
  int64_t epoch;
  if (!fence_shut(session, from, &epoch, ret_failure) ||
      !copy_ledger(session, from, to, &events, ret_failure) ||
      !copy_positions(session, from, to, &positions, ret_failure))
    return false;
  *ret_events = epoch > 0 ? (int64_t)events : -1;
  return true;
}

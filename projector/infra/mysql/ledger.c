/* ledger.c - statements on projector_applied, projector_position and projector_fence. */
#include "projector/infra/mysql/ledger.h"

#include "projector/domain/datetime.h"
#include "projector/infra/mysql/literal.h"
#include "projector/infra/mysql/loss.h"

#include <stdlib.h>
#include <string.h>

enum { DUPLICATE_ENTRY = 1062 };

static void append_projector(GString *sql, const Ledger *ledger) {
  literal_append_text(sql, ledger->projector, strlen(ledger->projector));
}

static void append_id_text(GString *sql, const Id *id) {
  char text[ID_TEXT_SIZE];
  literal_append_bytes(sql, text, id_text(id, text));
}

static void append_number_or_null(GString *sql, int64_t number) {
  if (number == 0)
    g_string_append(sql, "NULL");
  else
    g_string_append_printf(sql, "%" G_GINT64_FORMAT, number);
}

/* A list of ids, joined to the table by its primary key. `WHERE id IN (…)` means the same, but for
 * it the optimizer may read more of the table, and a statement that locks waits for all it reads:
 * for the rows of other aggregates. */
static void begin_ids(GString *sql, const char *table, const char *column) {
  g_string_append_printf(sql, "(SELECT %s AS id FROM %s WHERE FALSE UNION ALL VALUES ", column,
                         table);
}

static void append_listed_id(GString *sql, bool mariadb, bool first, const Id *id) {
  g_string_append(sql, first ? "" : ",");
  g_string_append(sql, mariadb ? "(" : "ROW(");
  append_id_text(sql, id);
  g_string_append_c(sql, ')');
}

static void join_ids(GString *sql, const Ledger *ledger, const char *table, const char *column) {
  g_string_append_printf(sql, ") AS v STRAIGHT_JOIN %s AS t FORCE INDEX (PRIMARY) ON t.%s = v.id",
                         table, column);
  g_string_append(sql, " AND t.projector = ");
  append_projector(sql, ledger);
}

/* --- fence -------------------------------------------------------------------------------- */

static bool check_epoch(const Ledger *ledger, int64_t epoch, Failure *ret_failure) {
  if (epoch < ledger->epoch)
    return loss_of_epochs(epoch, ledger->epoch, ret_failure);
  return epoch == ledger->epoch ||
         failure_set(ret_failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0,
                     "another projector of this name works now (epoch %lld, ours is %lld)",
                     (long long)epoch, (long long)ledger->epoch);
}

static bool lock_out_owner(Session *session, const Ledger *ledger, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_fence (projector, part, epoch) VALUES (");
  append_projector(sql, ledger);
  g_string_append(sql, ", 0, 0) ON DUPLICATE KEY UPDATE epoch = epoch");
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

/* --- positions ---------------------------------------------------------------------------- */

/* Parses the text form; the bytes go into the arena. */
static bool take_id(const char *text, size_t length, const char *kind_name, Arena *arena,
                    Id *ret_id) {
  IdKind kind;
  return id_kind_from_name(kind_name, &kind) &&
         id_from_text(kind, arena_copy(arena, text, length), length, arena_alloc(arena, 16, 1),
                      ret_id);
}

static int64_t number_or_0(const char *text) {
  return text ? g_ascii_strtoll(text, NULL, 10) : 0;
}

static void take_position(char **row, const unsigned long *lengths, AggregateSet *aggregates,
                          Arena *arena) {
  Aggregate aggregate = {.type = row[1], .type_length = (uint32_t)lengths[1]};
  if (!take_id(row[3], lengths[3], row[2], arena, &aggregate.id))
    return;
  AggregateState *state = aggregate_set_find(aggregates, &aggregate);
  if (!state)
    return;
  Position position = {.known = true};
  position.last.occurred_at = number_or_0(row[4]);
  position.last.version = number_or_0(row[5]);
  if (!take_id(row[7], lengths[7], row[6], arena, &position.last.event_id))
    return;
  position.max_version = number_or_0(row[8]);
  position.refreshed_version = number_or_0(row[9]);
  state->position = position;
}

/* The fence's row has an epoch, the rows of positions have none. */
static void append_fence_query(GString *sql, const Ledger *ledger) {
  g_string_append(sql, "(SELECT epoch, '', '', '', 0, 0, '', '', 0, 0 FROM projector_fence"
                       " WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append(sql, " AND part = 0 LOCK IN SHARE MODE)");
}

static bool is_like(const Aggregate *a, const Aggregate *b) {
  return a->id.kind == b->id.kind && a->type_length == b->type_length &&
         memcmp(a->type, b->type, a->type_length) == 0;
}

/* The aggregates from this one on with the same type and kind of id; returns the next one. */
static unsigned append_positions_like(GString *sql, bool mariadb, const Ledger *ledger,
                                      const AggregateSet *aggregates, unsigned from,
                                      const char *lock) {
  const Aggregate *first = aggregate_set_get(aggregates, from)->aggregate;
  unsigned end = from;
  g_string_append(sql,
                  "(SELECT NULL, t.aggregate_type, t.aggregate_id_kind, t.aggregate_id,"
                  " TIMESTAMPDIFF(MICROSECOND, '1970-01-01', t.occurred_at) DIV 1000, t.version,"
                  " t.event_id_kind, t.event_id, t.max_version, t.refreshed_version FROM ");
  begin_ids(sql, "projector_position", "aggregate_id");
  for (; end < aggregate_set_count(aggregates); end++) {
    const Aggregate *aggregate = aggregate_set_get(aggregates, end)->aggregate;
    if (!is_like(first, aggregate))
      break;
    append_listed_id(sql, mariadb, end == from, &aggregate->id);
  }
  join_ids(sql, ledger, "projector_position", "aggregate_id");
  g_string_append_printf(
      sql, " AND t.aggregate_id_kind = '%s' AND t.aggregate_type = ", id_kind_name(first->id.kind));
  literal_append_bytes(sql, first->type, first->type_length);
  g_string_append_printf(sql, "%s)", lock);
  return end;
}

/* Sorts the aggregates: if two transactions lock the same positions, whatever the order of their
 * events, one waits for the other, and there is no deadlock. */
static void append_positions_query(GString *sql, bool mariadb, const Ledger *ledger,
                                   AggregateSet *aggregates, const char *lock) {
  aggregate_set_sort(aggregates);
  for (unsigned i = 0; i < aggregate_set_count(aggregates);) {
    if (sql->len > 0)
      g_string_append(sql, " UNION ALL ");
    i = append_positions_like(sql, mariadb, ledger, aggregates, i, lock);
  }
}

/* One statement, because a round trip is a good part of a small transaction. The fence comes first
 * in it, so its lock is held before any position is read. */
bool ledger_enter(Session *session, const Ledger *ledger, AggregateSet *aggregates, Arena *arena,
                  Failure *ret_failure) {
  bool owner = ledger->epoch != 0, any = aggregate_set_count(aggregates) > 0;
  if (!owner && !ledger->held && !lock_out_owner(session, ledger, ret_failure))
    return false;
  if (!owner && !any)
    return true;
  g_autoptr(GString) sql = g_string_new(NULL);
  if (owner)
    append_fence_query(sql, ledger);
  append_positions_query(sql, session_is_mariadb(session), ledger, aggregates, " FOR UPDATE");
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  int64_t epoch = -1;
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result)))
    if (row[0])
      epoch = g_ascii_strtoll(row[0], NULL, 10);
    else
      take_position(row, mysql_fetch_lengths(result), aggregates, arena);
  return !owner || check_epoch(ledger, epoch, ret_failure);
}

bool ledger_look_at_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                              Arena *arena, Failure *ret_failure) {
  if (aggregate_set_count(aggregates) == 0)
    return true;
  g_autoptr(GString) sql = g_string_new(NULL);
  append_positions_query(sql, session_is_mariadb(session), ledger, aggregates, "");
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result)))
    take_position(row, mysql_fetch_lengths(result), aggregates, arena);
  return true;
}

static void append_position(GString *sql, const Ledger *ledger, const AggregateState *state) {
  const Aggregate *aggregate = state->aggregate;
  const Position *position = &state->position;
  char time[DATETIME_TEXT_SIZE];
  datetime_format(position->last.occurred_at * 1000, 3, time);
  g_string_append_c(sql, '(');
  append_projector(sql, ledger);
  g_string_append_c(sql, ',');
  literal_append_bytes(sql, aggregate->type, aggregate->type_length);
  g_string_append_printf(sql, ",'%s',", id_kind_name(aggregate->id.kind));
  append_id_text(sql, &aggregate->id);
  g_string_append_printf(sql, ",'%s',", time);
  append_number_or_null(sql, position->last.version);
  g_string_append_printf(sql, ",'%s',", id_kind_name(position->last.event_id.kind));
  append_id_text(sql, &position->last.event_id);
  g_string_append_c(sql, ',');
  append_number_or_null(sql, position->max_version);
  g_string_append_c(sql, ',');
  append_number_or_null(sql, position->refreshed_version);
  g_string_append_c(sql, ')');
}

bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure) {
  static const char *const updated[] = {"occurred_at", "version",     "event_id_kind",
                                        "event_id",    "max_version", "refreshed_version"};
  bool mariadb = session_is_mariadb(session), any = false;
  g_autoptr(GString) sql = g_string_new(
      "INSERT INTO projector_position (projector, aggregate_type, aggregate_id_kind, aggregate_id,"
      " occurred_at, version, event_id_kind, event_id, max_version, refreshed_version) VALUES ");
  for (unsigned i = 0; i < aggregate_set_count(aggregates); i++) {
    const AggregateState *state = aggregate_set_get(aggregates, i);
    if (!state->moved)
      continue;
    if (any)
      g_string_append_c(sql, ',');
    any = true;
    append_position(sql, ledger, state);
  }
  if (!any)
    return true;
  g_string_append(sql, mariadb ? " ON DUPLICATE KEY UPDATE " : " AS n ON DUPLICATE KEY UPDATE ");
  for (size_t i = 0; i < G_N_ELEMENTS(updated); i++)
    g_string_append_printf(sql, mariadb ? "%s%s = VALUES(%s)" : "%s%s = n.%s", i ? ", " : "",
                           updated[i], updated[i]);
  return session_execute(session, sql->str, sql->len, NULL, ret_failure);
}

/* --- applied events ----------------------------------------------------------------------- */

bool ledger_insert(Session *session, const Ledger *ledger, const Item *items, size_t count,
                   bool *ret_repeated, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(
      "INSERT INTO projector_applied (projector, event_id_kind, event_id, outcome) VALUES ");
  bool any = false;
  for (size_t i = 0; i < count; i++) {
    const char *outcome = verdict_outcome(items[i].verdict);
    if (!outcome)
      continue;
    const Id *id = &items[i].event->key.event_id;
    g_string_append(sql, any ? ",(" : "(");
    any = true;
    append_projector(sql, ledger);
    g_string_append_printf(sql, ",'%s',", id_kind_name(id->kind));
    append_id_text(sql, id);
    g_string_append_printf(sql, ",'%s')", outcome);
  }
  *ret_repeated = false;
  if (!any || session_execute(session, sql->str, sql->len, NULL, ret_failure))
    return true;
  *ret_repeated = ret_failure->code == DUPLICATE_ENTRY;
  return *ret_repeated;
}

/* " WHERE projector = … AND event_id_kind = … AND event_id IN (…)"; false if no id is of that
 * kind. */
static bool append_ids_of_kind(GString *sql, const Ledger *ledger, IdKind kind, const Item *items,
                               size_t count) {
  bool any = false;
  g_string_append(sql, " WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append_printf(sql, " AND event_id_kind = '%s' AND event_id IN (", id_kind_name(kind));
  for (size_t i = 0; i < count; i++) {
    const Id *id = &items[i].event->key.event_id;
    if (id->kind != kind)
      continue;
    if (any)
      g_string_append_c(sql, ',');
    any = true;
    append_id_text(sql, id);
  }
  g_string_append_c(sql, ')');
  return any;
}

static const char *known_outcome(const char *text) {
  static const Verdict verdicts[] = {VERDICT_APPLIED, VERDICT_SUPERSEDED, VERDICT_SKIPPED,
                                     VERDICT_IGNORED};
  for (size_t i = 0; i < G_N_ELEMENTS(verdicts); i++)
    if (!strcmp(text, verdict_outcome(verdicts[i])))
      return verdict_outcome(verdicts[i]);
  return "";
}

static bool is_skipped(const LedgerEntry *entry) {
  return !strcmp(entry->outcome, verdict_outcome(VERDICT_SKIPPED));
}

bool ledger_find_entries(Session *session, const Ledger *ledger, const Item *items, size_t count,
                         LedgerEntry *ret_entries, Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GHashTable) found = g_hash_table_new(id_hash_key, id_equal_key);
  for (IdKind kind = 0; kind < ID_KINDS; kind++) {
    g_autoptr(GString) sql =
        g_string_new("SELECT event_id, outcome, applied_at FROM projector_applied");
    if (!append_ids_of_kind(sql, ledger, kind, items, count))
      continue;
    g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
    if (!result)
      return false;
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result))) {
      Id *id = arena_alloc(arena, 1, sizeof *id);
      LedgerEntry *entry = arena_alloc(arena, 1, sizeof *entry);
      if (!take_id(row[0], mysql_fetch_lengths(result)[0], id_kind_name(kind), arena, id))
        continue;
      entry->outcome = known_outcome(row[1]);
      g_strlcpy(entry->applied_at, row[2], LEDGER_TIME_SIZE);
      g_hash_table_insert(found, id, entry);
    }
  }
  for (size_t i = 0; i < count; i++) {
    const LedgerEntry *entry = g_hash_table_lookup(found, &items[i].event->key.event_id);
    if (entry)
      ret_entries[i] = *entry;
  }
  return true;
}

bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure) {
  g_autofree LedgerEntry *entries = g_new0(LedgerEntry, count + 1);
  if (!ledger_find_entries(session, ledger, items, count, entries, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    if (!entries[i].outcome)
      continue;
    items[i].verdict = VERDICT_KNOWN;
    items[i].event->skipped = is_skipped(&entries[i]);
  }
  return true;
}

/* --- pruning ------------------------------------------------------------------------------ */

/* Reads event_id_kind and event_id of each row. */
static bool query_ids(Session *session, const GString *sql, LedgerIds *ids, Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row;
  while ((row = mysql_fetch_row(result))) {
    Id id;
    if (take_id(row[1], mysql_fetch_lengths(result)[1], row[0], ids->arena, &id))
      g_array_append_val(ids->ids, id);
  }
  return true;
}

bool ledger_find_old(Session *session, const Ledger *ledger, const LedgerAge *age, unsigned skip,
                     unsigned limit, LedgerIds *ids, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("SELECT event_id_kind, event_id FROM projector_applied WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append_printf(
      sql,
      " AND applied_at < LEAST(CURRENT_TIMESTAMP(3), TIMESTAMP'1970-01-01 00:00:00'"
      " + INTERVAL %lld SECOND) - INTERVAL %lld SECOND"
      " ORDER BY applied_at, event_id_kind, event_id LIMIT %u OFFSET %u",
      (long long)(age->now_ms / 1000), (long long)age->older_than_s, limit, skip);
  return query_ids(session, sql, ids, ret_failure);
}

bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids,
                   Failure *ret_failure) {
  for (IdKind kind = 0; kind < ID_KINDS; kind++) {
    g_autoptr(GString) sql = g_string_new("DELETE t FROM ");
    bool any = false;
    begin_ids(sql, "projector_applied", "event_id");
    for (guint i = 0; i < ids->len; i++) {
      const Id *id = &g_array_index(ids, Id, i);
      if (id->kind != kind)
        continue;
      append_listed_id(sql, session_is_mariadb(session), !any, id);
      any = true;
    }
    join_ids(sql, ledger, "projector_applied", "event_id");
    g_string_append_printf(sql, " AND t.event_id_kind = '%s'", id_kind_name(kind));
    if (any && !session_execute(session, sql->str, sql->len, NULL, ret_failure))
      return false;
  }
  return true;
}

/* --- size ----------------------------------------------------------------------------------- */

bool ledger_estimate_rows(Session *session, int64_t *ret_rows, Failure *ret_failure) {
  static const char query[] = "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA "
                              "= DATABASE() AND TABLE_NAME = 'projector_applied'";
  /* MySQL would answer from statistics up to a day old. */
  if (!session_is_mariadb(session) &&
      !session_run(session, ret_failure, "SET SESSION information_schema_stats_expiry = 0"))
    return false;
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  *ret_rows = row && row[0] ? g_ascii_strtoll(row[0], NULL, 10) : 0;
  return true;
}

/* --- replays ------------------------------------------------------------------------------ */

enum { CLEAR_ROWS = 10000 };

/* The only value of the only row; "" if there is no row or it is NULL. */
static bool query_text(Session *session, const GString *sql, char *ret_text, size_t size,
                       Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  g_strlcpy(ret_text, row && row[0] ? row[0] : "", size);
  return true;
}

static bool read_time(Session *session, char ret_time[static LEDGER_TIME_SIZE],
                      Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT CURRENT_TIMESTAMP(3)");
  return query_text(session, sql, ret_time, LEDGER_TIME_SIZE, ret_failure);
}

bool ledger_hold(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure) {
  return session_run(session, ret_failure, "START TRANSACTION") &&
         lock_out_owner(session, live, ret_failure) && read_time(session, ret_time, ret_failure);
}

bool ledger_mark(Session *session, const Ledger *live, char ret_time[static LEDGER_TIME_SIZE],
                 Failure *ret_failure) {
  bool good = ledger_hold(session, live, ret_time, ret_failure);
  session_rollback(session);
  return good;
}

bool ledger_age_ms(Session *session, const char *time, int64_t *ret_ms, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(NULL);
  char text[32];
  g_string_printf(sql, "SELECT TIMESTAMPDIFF(MICROSECOND, '%s', CURRENT_TIMESTAMP(3)) DIV 1000",
                  time);
  if (!query_text(session, sql, text, sizeof text, ret_failure))
    return false;
  *ret_ms = g_ascii_strtoll(text, NULL, 10);
  return true;
}

/* The texts sort like the times. */
static Verdict judged(const LedgerEntry *entry, const char *since) {
  if (strcmp(entry->applied_at, since) >= 0)
    return VERDICT_WAIT;
  return is_skipped(entry) ? VERDICT_SKIPPED : VERDICT_KNOWN;
}

bool ledger_judge(Session *session, const Ledger *live, const char *since, Item *items,
                  size_t count, Failure *ret_failure) {
  g_autofree LedgerEntry *entries = g_new0(LedgerEntry, count + 1);
  if (!ledger_find_entries(session, live, items, count, entries, ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (entries[i].outcome)
      items[i].verdict = judged(&entries[i], since);
  return true;
}

bool ledger_find_due(Session *session, const Ledger *live, const Ledger *scope,
                     const LedgerSpan *span, LedgerIds *ids, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("SELECT l.event_id_kind, l.event_id FROM projector_applied l"
                   " WHERE l.projector = ");
  append_projector(sql, live);
  g_string_append_printf(sql,
                         " AND l.applied_at >= '%s' - INTERVAL %lld SECOND"
                         " AND l.applied_at < '%s' AND l.outcome <> 'skipped' AND NOT EXISTS"
                         " (SELECT 1 FROM projector_applied s WHERE s.projector = ",
                         span->since, (long long)span->margin_s, span->until);
  append_projector(sql, scope);
  g_string_append(sql, " AND s.event_id_kind = l.event_id_kind AND s.event_id = l.event_id)");
  return query_ids(session, sql, ids, ret_failure);
}

bool ledger_page_end(Session *session, const Ledger *live, const char *since, const char *until,
                     unsigned limit, char ret_end[static LEDGER_TIME_SIZE], Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new(
      "SELECT applied_at + INTERVAL 1000 MICROSECOND FROM projector_applied WHERE projector = ");
  append_projector(sql, live);
  g_string_append_printf(sql,
                         " AND applied_at >= '%s' AND applied_at < '%s'"
                         " ORDER BY applied_at LIMIT 1 OFFSET %u",
                         since, until, limit);
  if (!query_text(session, sql, ret_end, LEDGER_TIME_SIZE, ret_failure))
    return false;
  if (!*ret_end)
    g_strlcpy(ret_end, until, LEDGER_TIME_SIZE);
  return true;
}

static PositionWalk *walk_beside(const Ledger *live, const Ledger *scope,
                                 const char *aggregate_type, const char *condition,
                                 unsigned limit) {
  g_autoptr(GString) join =
      g_string_new("LEFT JOIN projector_position s ON s.aggregate_type = p.aggregate_type"
                   " AND s.aggregate_id_kind = p.aggregate_id_kind"
                   " AND s.aggregate_id = p.aggregate_id AND s.projector = ");
  append_projector(join, scope);
  return position_walk_new(
      &(PositionQuery){live->projector, aggregate_type, join->str, condition, limit});
}

PositionWalk *ledger_walk_refreshed(const Ledger *live, const Ledger *scope,
                                    const char *aggregate_type, unsigned limit) {
  return walk_beside(live, scope, aggregate_type,
                     "p.refreshed_version > COALESCE(s.max_version, 0)", limit);
}

PositionWalk *ledger_walk_unshared(const Ledger *live, const Ledger *scope,
                                   const char *aggregate_type, unsigned limit) {
  return walk_beside(live, scope, aggregate_type, "s.aggregate_id IS NULL", limit);
}

bool ledger_clear(Session *session, const char *projector, Failure *ret_failure) {
  static const char *const tables[] = {"projector_applied", "projector_position",
                                       "projector_fence"};
  for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
    g_autoptr(GString) sql = g_string_new(NULL);
    g_string_printf(sql, "DELETE FROM %s WHERE projector = ", tables[i]);
    literal_append_text(sql, projector, strlen(projector));
    g_string_append_printf(sql, " LIMIT %d", CLEAR_ROWS);
    for (uint64_t removed = CLEAR_ROWS; removed == CLEAR_ROWS;)
      if (!session_execute(session, sql->str, sql->len, &removed, ret_failure))
        return false;
  }
  return true;
}

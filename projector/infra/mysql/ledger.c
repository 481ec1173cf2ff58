/* ledger.c - statements on projector_applied, projector_position and projector_fence. */
#include "projector/infra/mysql/ledger.h"

#include "projector/domain/datetime.h"
#include "projector/infra/mysql/literal.h"

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

/* --- fence -------------------------------------------------------------------------------- */

bool ledger_take_fence(Session *session, const char *projector, const char *owner,
                       int64_t *ret_epoch, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("INSERT INTO projector_fence (projector, part, epoch, owner)"
                   " VALUES (");
  literal_append_text(sql, projector, strlen(projector));
  g_string_append(sql, ", 0, LAST_INSERT_ID(1), ");
  literal_append_text(sql, owner, strlen(owner));
  g_string_append(sql, ") ON DUPLICATE KEY UPDATE epoch = LAST_INSERT_ID(epoch + 1), owner = ");
  literal_append_text(sql, owner, strlen(owner));
  if (!session_execute(session, sql->str, sql->len, NULL, ret_failure))
    return false;
  static const char query[] = "SELECT LAST_INSERT_ID()";
  g_autoptr(MYSQL_RES) result = session_query(session, query, strlen(query), ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!row)
    return false;
  *ret_epoch = g_ascii_strtoll(row[0], NULL, 10);
  return true;
}

static bool check_epoch(Session *session, const Ledger *ledger, Failure *ret_failure) {
  g_autoptr(GString) sql = g_string_new("SELECT epoch FROM projector_fence WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append(sql, " AND part = 0 LOCK IN SHARE MODE");
  g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  int64_t epoch = row ? g_ascii_strtoll(row[0], NULL, 10) : -1;
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

bool ledger_enter(Session *session, const Ledger *ledger, Failure *ret_failure) {
  return ledger->epoch ? check_epoch(session, ledger, ret_failure)
                       : lock_out_owner(session, ledger, ret_failure);
}

/* --- positions ---------------------------------------------------------------------------- */

static const IdKind id_kinds[] = {ID_INT, ID_STRING, ID_UUID, ID_OBJECTID};

static bool kind_from_name(const char *name, IdKind *ret_kind) {
  for (size_t i = 0; i < G_N_ELEMENTS(id_kinds); i++)
    if (!strcmp(name, id_kind_name(id_kinds[i]))) {
      *ret_kind = id_kinds[i];
      return true;
    }
  return false;
}

/* Back from the text form; the bytes go into the arena. */
static bool take_id(const char *text, size_t length, const char *kind_name, Arena *arena,
                    Id *ret_id) {
  IdKind kind;
  return kind_from_name(kind_name, &kind) &&
         id_from_text(kind, arena_copy(arena, text, length), length, arena_alloc(arena, 16, 1),
                      ret_id);
}

/* "(aggregate_type = … AND aggregate_id_kind = … AND aggregate_id IN (…)) OR …": equalities on the
 * front of the primary key and a list at its end, which every optimizer reads as key look-ups. */
static void append_aggregate_lists(GString *sql, const AggregateSet *aggregates) {
  unsigned count = aggregate_set_count(aggregates);
  g_autofree bool *done = g_new0(bool, count);
  bool first_group = true;
  for (unsigned i = 0; i < count; i++) {
    if (done[i])
      continue;
    const Aggregate *head = aggregate_set_get(aggregates, i)->aggregate;
    g_string_append(sql, first_group ? "(aggregate_type = " : " OR (aggregate_type = ");
    first_group = false;
    literal_append_bytes(sql, head->type, head->type_length);
    g_string_append_printf(sql, " AND aggregate_id_kind = '%s' AND aggregate_id IN (",
                           id_kind_name(head->id.kind));
    bool first = true;
    for (unsigned j = i; j < count; j++) {
      const Aggregate *other = aggregate_set_get(aggregates, j)->aggregate;
      if (done[j] || other->id.kind != head->id.kind || other->type_length != head->type_length ||
          memcmp(other->type, head->type, head->type_length))
        continue;
      done[j] = true;
      if (!first)
        g_string_append_c(sql, ',');
      first = false;
      append_id_text(sql, &other->id);
    }
    g_string_append(sql, "))");
  }
}

static void take_position(char **row, const unsigned long *lengths, AggregateSet *aggregates,
                          Arena *arena) {
  Aggregate aggregate = {.type = row[0], .type_length = (uint32_t)lengths[0]};
  if (!take_id(row[2], lengths[2], row[1], arena, &aggregate.id))
    return;
  AggregateState *state = aggregate_set_find(aggregates, &aggregate);
  if (!state)
    return;
  Position position = {.known = true};
  position.last.occurred_at = g_ascii_strtoll(row[3], NULL, 10);
  position.last.version = row[4] ? g_ascii_strtoll(row[4], NULL, 10) : 0;
  if (!take_id(row[6], lengths[6], row[5], arena, &position.last.event_id))
    return;
  position.max_version = row[7] ? g_ascii_strtoll(row[7], NULL, 10) : 0;
  position.refreshed_version = row[8] ? g_ascii_strtoll(row[8], NULL, 10) : 0;
  state->position = position;
}

bool ledger_read_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                           Arena *arena, Failure *ret_failure) {
  if (aggregate_set_count(aggregates) == 0)
    return true;
  g_autoptr(GString) sql = g_string_new(
      "SELECT aggregate_type, aggregate_id_kind, aggregate_id,"
      " TIMESTAMPDIFF(MICROSECOND, '1970-01-01', occurred_at) DIV 1000, version, event_id_kind,"
      " event_id, max_version, refreshed_version FROM projector_position WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append(sql, " AND (");
  append_aggregate_lists(sql, aggregates);
  g_string_append(sql, ") FOR UPDATE");
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

static Item *find_item(Item *items, size_t count, const Id *id) {
  for (size_t i = 0; i < count; i++)
    if (id_equal(&items[i].event->key.event_id, id))
      return &items[i];
  return NULL;
}

/* " WHERE projector = … AND event_id_kind = … AND event_id IN (…)"; false when no id is of the
 * kind. */
static bool append_ids_of_kind(GString *sql, const Ledger *ledger, IdKind kind,
                               const Id *const *ids, size_t count) {
  bool any = false;
  g_string_append(sql, " WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append_printf(sql, " AND event_id_kind = '%s' AND event_id IN (", id_kind_name(kind));
  for (size_t i = 0; i < count; i++) {
    if (ids[i]->kind != kind)
      continue;
    if (any)
      g_string_append_c(sql, ',');
    any = true;
    append_id_text(sql, ids[i]);
  }
  g_string_append_c(sql, ')');
  return any;
}

bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure) {
  g_autoptr(Arena) arena = arena_new();
  const Id **ids = arena_alloc(arena, count, sizeof *ids);
  for (size_t i = 0; i < count; i++)
    ids[i] = &items[i].event->key.event_id;
  for (size_t k = 0; k < G_N_ELEMENTS(id_kinds); k++) {
    const char *kind = id_kind_name(id_kinds[k]);
    g_autoptr(GString) sql = g_string_new("SELECT event_id FROM projector_applied");
    if (!append_ids_of_kind(sql, ledger, id_kinds[k], ids, count))
      continue;
    g_autoptr(MYSQL_RES) result = session_query(session, sql->str, sql->len, ret_failure);
    if (!result)
      return false;
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result))) {
      Id id;
      Item *item = NULL;
      if (take_id(row[0], mysql_fetch_lengths(result)[0], kind, arena, &id))
        item = find_item(items, count, &id);
      if (item)
        item->verdict = VERDICT_KNOWN;
    }
  }
  return true;
}

/* --- pruning ------------------------------------------------------------------------------ */

bool ledger_find_old(Session *session, const Ledger *ledger, int64_t older_than_s, unsigned limit,
                     LedgerIds *ids, Failure *ret_failure) {
  g_autoptr(GString) sql =
      g_string_new("SELECT event_id_kind, event_id FROM projector_applied WHERE projector = ");
  append_projector(sql, ledger);
  g_string_append_printf(sql,
                         " AND applied_at < CURRENT_TIMESTAMP(3) - INTERVAL %lld SECOND"
                         " ORDER BY applied_at LIMIT %u",
                         (long long)older_than_s, limit);
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

bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids,
                   Failure *ret_failure) {
  g_autofree const Id **pointers = g_new(const Id *, ids->len);
  for (guint i = 0; i < ids->len; i++)
    pointers[i] = &g_array_index(ids, Id, i);
  for (size_t k = 0; k < G_N_ELEMENTS(id_kinds); k++) {
    g_autoptr(GString) sql = g_string_new("DELETE FROM projector_applied");
    if (append_ids_of_kind(sql, ledger, id_kinds[k], pointers, ids->len) &&
        !session_execute(session, sql->str, sql->len, NULL, ret_failure))
      return false;
  }
  return true;
}

/* privileges.c - which grants are missing. */
#include "projector/infra/mysql/privileges.h"

#include "projector/infra/mysql/catalog.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

typedef struct Search {
  Session *session;
  char *user;
  GPtrArray *findings;
} Search;

/* What a denied statement says; anything else that is wrong with it is for others to find. */
static bool is_denied(const Failure *failure) {
  return failure->class == FAILURE_CONFIG;
}

/* Takes the statement over. False when the server could not be asked. */
static bool probe(const Search *search, const char *privilege, const char *table, bool error,
                  GString *statement, Failure *ret_failure) {
  Failure failure = {0};
  bool good = session_can_prepare(search->session, statement->str, &failure);
  g_string_free(statement, TRUE);
  if (!good && failure.class == FAILURE_UNAVAILABLE) {
    *ret_failure = failure;
    return false;
  }
  if (!good && is_denied(&failure))
    finding_add(search->findings, error, "%s may not %s %s; GRANT %s ON %s TO %s", search->user,
                privilege, table, privilege, table, search->user);
  return true;
}

static GString *format(const char *text, ...) __attribute__((format(printf, 1, 2)));
static GString *format(const char *text, ...) {
  GString *statement = g_string_new(NULL);
  va_list arguments;
  va_start(arguments, text);
  g_string_vprintf(statement, text, arguments);
  va_end(arguments);
  return statement;
}

static bool probe_own_tables(const Search *search, Failure *ret_failure) {
  static const char *const own[][2] = {{"projector_applied", "event_id"},
                                       {"projector_position", "event_id"},
                                       {"projector_fence", "epoch"}};
  for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
    const char *table = own[i][0], *column = own[i][1];
    if (!probe(search, "SELECT", table, true, format("SELECT %s FROM %s", column, table),
               ret_failure) ||
        !probe(search, "INSERT", table, true,
               format("INSERT INTO %s (%s) VALUES (?)", table, column), ret_failure) ||
        (i > 0 && !probe(search, "UPDATE", table, true,
                         format("UPDATE %s SET %s = ?", table, column), ret_failure)))
      return false;
  }
  /* Without it `run` works and says once that the ledger is not pruned. */
  return probe(search, "DELETE", own[0][0], false, format("DELETE FROM %s", own[0][0]),
               ret_failure);
}

/* What the rules, and a refresh, do to the rows of a projection. */
typedef struct Needs {
  bool inserts, deletes;
  bool *updates; /* by column */
} Needs;

static Needs needs_of(const Projection *projection) {
  Needs needs = {.updates = g_new0(bool, projection->column_count)};
  needs.inserts = needs.deletes = projection->entities != NULL;
  for (unsigned i = 0; i < projection->rule_count; i++) {
    const Rule *rule = &projection->rules[i];
    needs.inserts |= rule->operation == OP_UPSERT;
    needs.deletes |= rule->operation == OP_DELETE;
    for (unsigned j = 0; j < rule->assignment_count; j++)
      needs.updates[rule->assignments[j].column] = true;
  }
  for (unsigned i = projection->key_count; needs.inserts && i < projection->column_count; i++)
    needs.updates[i] = true;
  return needs;
}

/* "`a` = ?, `b` = ?" of the columns wanted (NULL: all). */
static GString *column_list(const Projection *projection, const bool *wanted, const char *suffix) {
  GString *list = g_string_new(NULL);
  for (unsigned i = 0; i < projection->column_count; i++) {
    if (wanted && !wanted[i])
      continue;
    g_string_append(list, list->len ? ", " : "");
    literal_append_name(list, projection->columns[i].name);
    g_string_append(list, suffix);
  }
  return list;
}

static bool probe_rows(const Search *search, const Projection *projection, const Needs *needs,
                       Failure *ret_failure) {
  const char *table = projection->table;
  g_autoptr(GString) all = column_list(projection, NULL, "");
  g_autoptr(GString) updated = column_list(projection, needs->updates, " = ?");
  g_autoptr(GString) marks = g_string_new("?");
  for (unsigned i = 1; i < projection->column_count; i++)
    g_string_append(marks, ", ?");
  return probe(search, "SELECT", table, true, format("SELECT %s FROM `%s`", all->str, table),
               ret_failure) &&
         (!needs->inserts ||
          probe(search, "INSERT", table, true,
                format("INSERT INTO `%s` (%s) VALUES (%s)", table, all->str, marks->str),
                ret_failure)) &&
         (!updated->len || probe(search, "UPDATE", table, true,
                                 format("UPDATE `%s` SET %s", table, updated->str), ret_failure)) &&
         (!needs->deletes ||
          probe(search, "DELETE", table, true, format("DELETE FROM `%s`", table), ret_failure));
}

/* The statements of `sql` rules are prepared as they are, so what else is wrong shows too. */
static bool probe_statements(const Search *search, const Projection *projection,
                             Failure *ret_failure) {
  for (unsigned i = 0; i < projection->rule_count; i++) {
    const Rule *rule = &projection->rules[i];
    Failure failure = {0};
    if (rule->operation != OP_SQL ||
        session_can_prepare(search->session, rule->statement, &failure))
      continue;
    if (failure.class == FAILURE_UNAVAILABLE) {
      *ret_failure = failure;
      return false;
    }
    finding_add(search->findings, true, "projections[%u].events.%s.statement: %s%s",
                projection->index, rule->event_type, failure.message,
                is_denied(&failure) ? "; GRANT what it needs" : "");
  }
  return true;
}

static bool probe_projection(const Search *search, const Projection *projection,
                             Failure *ret_failure) {
  Needs needs = needs_of(projection);
  bool good = probe_rows(search, projection, &needs, ret_failure) &&
              probe_statements(search, projection, ret_failure);
  g_free(needs.updates);
  return good;
}

/* "u@h" as a statement wants it: 'u'@'h'. */
static char *account_name(const char *user) {
  const char *at = strrchr(user, '@');
  return at ? g_strdup_printf("'%.*s'@'%s'", (int)(at - user), user, at + 1) : g_strdup(user);
}

GPtrArray *privileges_check(Session *session, const Mapping *mapping, Failure *ret_failure) {
  static const char who[] = "SELECT CURRENT_USER()";
  g_autoptr(MYSQL_RES) result = session_query(session, who, sizeof who - 1, ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  if (!row)
    return NULL;
  g_autofree char *user = account_name(row[0]);
  g_autoptr(GPtrArray) findings = findings_new();
  Search search = {session, user, findings};
  if (!probe_own_tables(&search, ret_failure))
    return NULL;
  for (unsigned i = 0; i < mapping_projection_count(mapping); i++)
    if (!probe_projection(&search, mapping_projection(mapping, i), ret_failure))
      return NULL;
  return g_steal_pointer(&findings);
}

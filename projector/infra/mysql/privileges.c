/* privileges.c - finds out which grants are missing. */
#include "projector/infra/mysql/privileges.h"

#include "projector/infra/mysql/catalog.h"
#include "projector/infra/mysql/literal.h"

#include <string.h>

typedef struct Search {
  Session *session;
  char *user;
  GPtrArray *findings;
} Search;

/* A statement that was denied; any other fault is not looked for here. */
static bool is_denied(const Failure *failure) {
  return failure->class == FAILURE_CONFIG;
}

/* False if the server could not be asked. */
static bool judge(const Search *search, const char *privilege, const char *table, bool error,
                  const Failure *failure, Failure *ret_failure) {
  if (failure->class == FAILURE_UNAVAILABLE) {
    *ret_failure = *failure;
    return false;
  }
  if (is_denied(failure))
    finding_add(search->findings, error, "%s may not %s %s; GRANT %s ON %s TO %s", search->user,
                privilege, table, privilege, table, search->user);
  return true;
}

/* Takes over the statement. */
static bool probe(const Search *search, const char *privilege, const char *table, bool error,
                  GString *statement, Failure *ret_failure) {
  Failure failure = {0};
  session_can_prepare(search->session, statement->str, &failure);
  g_string_free(statement, TRUE);
  return judge(search, privilege, table, error, &failure, ret_failure);
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

/* `run` works without this table, and says once what is missing. Whether it exists is checked
 * elsewhere. */
static bool probe_source(const Search *search, Failure *ret_failure) {
  static const char table[] = "projector_source";
  Failure ignored = {0};
  return !session_can_prepare(search->session, "SELECT source FROM projector_source", &ignored) ||
         (probe(search, "INSERT", table, false,
                format("INSERT INTO projector_source (source) VALUES (?)"), ret_failure) &&
          probe(search, "UPDATE", table, false, format("UPDATE projector_source SET source = ?"),
                ret_failure));
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
  if (!probe_source(search, ret_failure))
    return false;
  /* Without it `run` works, and says once that the ledger is not pruned. */
  return probe(search, "DELETE", own[0][0], false, format("DELETE FROM %s", own[0][0]),
               ret_failure);
}

/* What the rules and a refresh do to the rows of a projection. */
typedef struct Needs {
  bool inserts, deletes;
  bool *updates; /* by column */
} Needs;

static Needs needs_of(const Projection *projection) {
  Needs needs = {.updates = g_new0(bool, projection->column_count)};
  needs.inserts = projection->entities != NULL;
  needs.deletes = projection->entities || projection->when; /* an upsert that does not match */
  for (unsigned i = 0; i < projection->rule_count; i++) {
    const Rule *rule = &projection->rules[i];
    needs.inserts |= rule->operation == OP_UPSERT;
    needs.deletes |= rule->operation == OP_DELETE && !rule->soft;
    for (unsigned j = 0; j < rule->assignment_count; j++)
      needs.updates[rule->assignments[j].column] = true;
    needs.updates[0] |= rule->child_tables && rule->assignment_count == 0; /* set to itself */
  }
  if (projection->parent) /* its parent's rules decide, and deletes of the parent */
    needs.inserts = needs.deletes = true;
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

/* The statements of `sql` rules are prepared as they are, so other faults show up too. */
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

/* "u@h" as it is written in a statement: 'u'@'h'. */
static char *account_name(const char *user) {
  const char *at = strrchr(user, '@');
  return at ? g_strdup_printf("'%.*s'@'%s'", (int)(at - user), user, at + 1) : g_strdup(user);
}

static char *current_user(Session *session, Failure *ret_failure) {
  static const char who[] = "SELECT CURRENT_USER()";
  g_autoptr(MYSQL_RES) result = session_query(session, who, sizeof who - 1, ret_failure);
  MYSQL_ROW row = result ? mysql_fetch_row(result) : NULL;
  return row ? account_name(row[0]) : NULL;
}

GPtrArray *privileges_check(Session *session, const Mapping *mapping, Failure *ret_failure) {
  g_autofree char *user = current_user(session, ret_failure);
  g_autoptr(GPtrArray) findings = findings_new();
  Search search = {session, user, findings};
  if (!user || !probe_own_tables(&search, ret_failure))
    return NULL;
  for (unsigned i = 0; i < mapping_table_count(mapping); i++)
    if (!probe_projection(&search, mapping_table(mapping, i), ret_failure))
      return NULL;
  return g_steal_pointer(&findings);
}

/* --- tables beside the one that is shown ---------------------------------------------------- */

/* Privileges are checked before locks and before what exists, so renaming a table to an existing
 * one reveals them and changes nothing. */
static bool probe_rename(const Search *search, const char *from, const char *to,
                         Failure *ret_failure) {
  Failure failure = {0};
  session_run(search->session, &failure, "RENAME TABLE `%s` TO `%s`", from, to);
  return judge(search, "ALTER, DROP", from, true, &failure, ret_failure);
}

static bool probe_lock(const Search *search, Failure *ret_failure) {
  Failure failure = {0}, ignored = {0};
  session_run(search->session, &failure, "LOCK TABLES projector_fence READ");
  session_run(search->session, &ignored, "UNLOCK TABLES");
  return judge(search, "LOCK TABLES", "*", true, &failure, ret_failure);
}

/* Nothing is known about the columns, or whether the table exists: that is not the question
 * here. */
static bool probe_table(const Search *search, const char *table, Failure *ret_failure) {
  return probe(search, "CREATE", table, true, format("CREATE TABLE `%s` (nothing INT)", table),
               ret_failure) &&
         probe(search, "SELECT", table, true, format("SELECT 1 FROM `%s`", table), ret_failure) &&
         probe(search, "INSERT", table, true, format("INSERT INTO `%s` () VALUES ()", table),
               ret_failure) &&
         probe(search, "UPDATE", table, true, format("UPDATE `%s` SET nothing = 1", table),
               ret_failure) &&
         probe(search, "DELETE", table, true, format("DELETE FROM `%s`", table), ret_failure);
}

/* A table beside `shown`. If it exists, an earlier run of the same command made it. */
static bool probe_beside(const Search *search, const char *shown, const char *table,
                         Failure *ret_failure) {
  bool exists;
  return probe_table(search, table, ret_failure) &&
         shadow_table_exists(search->session, table, &exists, ret_failure) &&
         (exists || probe_rename(search, table, shown, ret_failure));
}

/* A replay and its own ledger end together. */
static bool probe_end_of_ledger(const Search *search, Failure *ret_failure) {
  static const char *const tables[] = {"projector_applied", "projector_position",
                                       "projector_fence"};
  for (size_t i = 0; i < G_N_ELEMENTS(tables); i++)
    if (!probe(search, "DELETE", tables[i], true, format("DELETE FROM %s", tables[i]), ret_failure))
      return false;
  return true;
}

static bool probe_swap_of_children(const Search *search, const Shadow *shadow,
                                   Failure *ret_failure) {
  for (unsigned i = 0; i < shadow->child_count; i++) {
    const ShadowChild *child = &shadow->children[i];
    if (!probe_table(search, child->table, ret_failure) ||
        !probe_rename(search, child->table, child->table, ret_failure) ||
        !probe_beside(search, child->table, child->fresh, ret_failure) ||
        !probe_beside(search, child->table, child->old, ret_failure))
      return false;
  }
  return true;
}

static bool probe_swap(const Search *search, const Shadow *shadow, Failure *ret_failure) {
  bool has_ledger = !*shadow->copied;
  return probe_own_tables(search, ret_failure) && probe_table(search, shadow->table, ret_failure) &&
         probe_rename(search, shadow->table, shadow->table, ret_failure) &&
         probe_beside(search, shadow->table, shadow->fresh, ret_failure) &&
         (!*shadow->copied || probe_beside(search, shadow->table, shadow->copied, ret_failure)) &&
         probe_beside(search, shadow->table, shadow->old, ret_failure) &&
         probe_swap_of_children(search, shadow, ret_failure) && probe_lock(search, ret_failure) &&
         (!has_ledger || probe_end_of_ledger(search, ret_failure));
}

bool privileges_check_swap(const MysqlSettings *settings, const Shadow *shadow,
                           Failure *ret_failure) {
  g_autoptr(Session) session = session_open(settings, ret_failure);
  g_autofree char *user = session ? current_user(session, ret_failure) : NULL;
  g_autoptr(GPtrArray) findings = findings_new();
  Search search = {session, user, findings};
  /* A RENAME that waits for a reader makes others wait behind it. */
  if (!user || !session_run(session, ret_failure, "SET SESSION lock_wait_timeout = 1") ||
      !probe_swap(&search, shadow, ret_failure))
    return false;
  for (guint i = 0; i < findings->len; i++) {
    const Finding *finding = findings->pdata[i];
    if (finding->error)
      return failure_refuse(ret_failure, "%s (sql/grants.sql has a user for this)", finding->text);
  }
  return true;
}

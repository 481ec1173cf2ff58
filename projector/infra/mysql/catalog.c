/* catalog.c - reads information_schema and compares it with the mapping. */
#include "projector/infra/mysql/catalog.h"

#include "projector/domain/value.h"
#include "projector/infra/mysql/ddl.h"
#include "projector/infra/mysql/key_collation.h"
#include "projector/infra/mysql/literal.h"
#include "projector/infra/mysql/server_check.h"
#include "projector/infra/mysql/table.h"

#include <string.h>

/* --- comparing ---------------------------------------------------------------------------- */

static unsigned integer_bits(const char *type) {
  static const struct {
    const char *name;
    unsigned bits;
  } types[] = {{"tinyint", 8}, {"smallint", 16}, {"mediumint", 24}, {"int", 32}, {"bigint", 64}};
  for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
    if (!strcmp(type, types[i].name))
      return types[i].bits;
  return 0;
}

static bool holds_integer(const ColumnType *type, const TableColumn *column) {
  static const unsigned bits_of[] = {
      [TYPE_BOOLEAN] = 1,    [TYPE_TINYINT] = 8, [TYPE_SMALLINT] = 16,
      [TYPE_MEDIUMINT] = 24, [TYPE_INT] = 32,    [TYPE_BIGINT] = 64};
  unsigned wanted = bits_of[type->kind], bits = integer_bits(column->type);
  bool is_unsigned = strstr(column->full_type, "unsigned") != NULL;
  if (type->kind == TYPE_BOOLEAN || is_unsigned == type->is_unsigned)
    return bits >= wanted;
  return !is_unsigned && bits > wanted;
}

static bool is_one_of(const char *type, const char *const *names) {
  return g_strv_contains(names, type);
}

/* Each label of the mapping is in the column's list, letter by letter: a server would accept
 * another case, and store its own spelling. */
static bool has_labels(const ColumnType *type, const TableColumn *column) {
  for (const char *at = strchr(type->text, '\''); at;) {
    const char *end = strchr(at + 1, '\'') + 1;
    g_autofree char *label = g_strndup(at, (gsize)(end - at));
    if (!strstr(column->full_type, label))
      return false;
    at = strchr(end, '\'');
  }
  return true;
}

static bool holds_special(const ColumnType *type, const TableColumn *column) {
  bool whole = strchr(column->full_type, '(') == NULL;
  switch (type->kind) {
  case TYPE_ENUM: return !strcmp(column->type, "enum") && has_labels(type, column);
  case TYPE_YEAR: return !strcmp(column->type, "year") || integer_bits(column->type) >= 16;
  case TYPE_TIME: return !strcmp(column->type, "time") && column->fraction >= type->length;
  case TYPE_BIT: return !strcmp(column->full_type, "bit(1)") || integer_bits(column->type) >= 8;
  case TYPE_FLOAT:
    return (!strcmp(column->type, "float") || !strcmp(column->type, "double")) && whole;
  default: return false;
  }
}

/* Whether the column can store every value of the mapping's type unchanged. */
static bool holds(const ColumnType *type, const TableColumn *column) {
  static const char *const texts[] = {"varchar",    "tinytext", "text",
                                      "mediumtext", "longtext", NULL};
  static const char *const blobs[] = {"varbinary",  "tinyblob", "blob",
                                      "mediumblob", "longblob", NULL};
  static const char *const json[] = {"json", "mediumtext", "longtext", NULL};
  switch (type->kind) {
  case TYPE_BOOLEAN:
  case TYPE_TINYINT:
  case TYPE_SMALLINT:
  case TYPE_MEDIUMINT:
  case TYPE_INT:
  case TYPE_BIGINT: return holds_integer(type, column);
  case TYPE_DOUBLE: /* double(10,2) rounds */
    return !strcmp(column->type, "double") && !strchr(column->full_type, '(');
  case TYPE_DECIMAL:
    return !strcmp(column->type, "decimal") && column->scale >= type->scale &&
           column->precision - column->scale >= type->length - type->scale;
  case TYPE_CHAR:
    return (!strcmp(column->type, "char") || is_one_of(column->type, texts)) &&
           column->characters >= type->length;
  case TYPE_VARCHAR:
    return is_one_of(column->type, texts) &&
           (!strcmp(column->type, "varchar") ? column->characters >= type->length
                                             : column->bytes >= 4ULL * type->length);
  case TYPE_TINYTEXT:
  case TYPE_TEXT:
  case TYPE_MEDIUMTEXT:
  case TYPE_LONGTEXT: return is_one_of(column->type, texts) && column->bytes >= type->length;
  case TYPE_BINARY:
  case TYPE_UUID:
    return (type->kind == TYPE_UUID && !strcmp(column->type, "uuid")) || /* MariaDB's own */
           (!strcmp(column->type, "binary") && column->bytes == type->length) ||
           (is_one_of(column->type, blobs) && column->bytes >= type->length);
  case TYPE_VARBINARY:
  case TYPE_TINYBLOB:
  case TYPE_BLOB:
  case TYPE_MEDIUMBLOB:
  case TYPE_LONGBLOB: return is_one_of(column->type, blobs) && column->bytes >= type->length;
  case TYPE_DATE: return !strcmp(column->type, "date");
  case TYPE_DATETIME: return !strcmp(column->type, "datetime") && column->fraction >= type->length;
  case TYPE_TIMESTAMP:
    return (!strcmp(column->type, "timestamp") || !strcmp(column->type, "datetime")) &&
           column->fraction >= type->length;
  case TYPE_JSON: return is_one_of(column->type, json);
  default: return holds_special(type, column);
  }
  return false;
}

/* Checks that every text keeps its characters, and that different keys stay different. */
static void check_text(const TableColumn *column, const Column *wanted, bool is_key, bool mariadb,
                       const char *path, GPtrArray *findings) {
  const char *best = mariadb ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin";
  if (!column->charset || !type_is_text(wanted->type.kind))
    return;
  if (strcmp(column->charset, "utf8mb4") != 0 && is_key && mariadb)
    finding_add(
        findings, true,
        "%s: MariaDB compares no key outside of ASCII with a column of character set %s; use "
        "utf8mb4 with collation %s",
        path, column->charset, best);
  else if (strcmp(column->charset, "utf8mb4") != 0)
    finding_add(findings, false, "%s: character set %s cannot hold every text; utf8mb4 can", path,
                column->charset);
  if (is_key && !g_str_has_suffix(column->collation, "_bin"))
    finding_add(
        findings, false,
        "%s: with collation %s keys that differ in case or accents are the same row; use %s", path,
        column->collation, best);
  if (is_key && collation_pads(column->collation))
    finding_add(
        findings, false,
        "%s: with collation %s keys that differ only in trailing spaces are the same row; use %s",
        path, column->collation, best);
}

static void check_column(const Projection *projection, unsigned index, const Table *table,
                         GPtrArray *findings) {
  const Column *wanted = &projection->columns[index];
  const TableColumn *column = table_find_column(table, wanted->name);
  bool is_key = index < projection->key_count;
  char path[256];
  g_snprintf(path, sizeof path, "%s.%s.%s", projection->path, is_key ? "key" : "columns",
             wanted->name);
  if (!column) {
    finding_add(findings, true,
                "%s: table %s has no such column; `projector schema --apply` adds it", path,
                projection->table);
    return;
  }
  if (column->generated)
    finding_add(findings, true, "%s: %s.%s is a generated column and cannot be written", path,
                projection->table, column->name);
  if (!holds(&wanted->type, column))
    finding_add(
        findings, true,
        "%s: expected a column that holds every %s, found %s; widen the column or change the type",
        path, wanted->type.text, column->full_type);
  bool is_unsigned = strstr(column->full_type, "unsigned") != NULL;
  if (is_unsigned && (wanted->type.kind == TYPE_DECIMAL || wanted->type.kind == TYPE_DOUBLE))
    finding_add(findings, false, "%s: %s is unsigned: events with a negative value fail", path,
                column->full_type);
  if (column->touches_itself)
    finding_add(findings, false,
                "%s: %s.%s has ON UPDATE CURRENT_TIMESTAMP, so it also changes with updates that "
                "do not name it; remove that clause",
                path, projection->table, column->name);
  if (is_key && !strcmp(column->type, "uuid"))
    finding_add(
        findings, true,
        "%s: MariaDB sorts a key of type uuid by its parts, in an order that rows cannot be "
        "compared by; make it binary(16)",
        path);
  if (wanted->nullable && !column->nullable)
    finding_add(findings, true, "%s: \"null\" is true, but %s.%s is NOT NULL", path,
                projection->table, column->name);
  check_text(column, wanted, is_key, table->mariadb, path, findings);
}

/* Children are read and locked by their parent's key. */
static bool begins_with_parent(const TableIndex *index, const Projection *child) {
  for (unsigned i = 0; child->parent && i < child->parent->key_count; i++) {
    bool found = false;
    for (unsigned j = 0; j < child->parent->key_count; j++)
      found |= !g_ascii_strcasecmp(index->columns->pdata[j], child->columns[i].name);
    if (!found)
      return false;
  }
  return true;
}

static bool index_is_key(const TableIndex *index, const Projection *projection) {
  if (index->prefix || index->columns->len != projection->key_count)
    return false;
  for (unsigned i = 0; i < projection->key_count; i++) {
    bool found = false;
    for (unsigned j = 0; j < index->columns->len; j++)
      found |= !g_ascii_strcasecmp(index->columns->pdata[j], projection->columns[i].name);
    if (!found)
      return false;
  }
  return true;
}

/* A second unique key: an upsert would overwrite whichever row it meets there. */
static void find_other_key(const Projection *projection, const TableIndex *index,
                           GPtrArray *findings) {
  g_autoptr(GString) columns = g_string_new(NULL);
  for (unsigned i = 0; i < index->columns->len; i++)
    g_string_append_printf(columns, "%s%s", i ? ", " : "", (char *)index->columns->pdata[i]);
  g_string_append(columns, index->prefix ? "; only their beginning" : "");
  bool primary = !strcmp(index->name, "PRIMARY");
  finding_add(findings, true,
              "%s.table: %s has a unique key other than the mapping's, %s (%s), through which "
              "an upsert could overwrite another row; %s%s",
              projection->path, projection->table, index->name, columns->str,
              primary ? "make the mapping's key the table's primary key" : "drop it",
              projection->parent
                  ? ""
                  : ", or set \"allow_unique_keys\": true if no two rows can meet there");
}

static void check_keys(const Projection *projection, const Table *table, GPtrArray *findings) {
  bool has_key = false, begins = false;
  for (unsigned i = 0; i < table->unique->len; i++) {
    const TableIndex *index = table->unique->pdata[i];
    if (index_is_key(index, projection)) {
      has_key = true;
      begins |= begins_with_parent(index, projection);
    } else if (!projection->allow_unique_keys)
      find_other_key(projection, index, findings);
  }
  if (!has_key)
    finding_add(findings, true,
                "%s.key: table %s needs a primary or unique key on exactly these columns",
                projection->path, projection->table);
  else if (!begins)
    finding_add(findings, true,
                "%s.key: the key of child table %s has to begin with that of %s: its rows are "
                "found by it",
                projection->path, projection->table, projection->parent->table);
}

/* A column that the mapping does not name needs a default. */
static void check_strangers(const Projection *projection, const Table *table, GPtrArray *findings) {
  for (unsigned i = 0; i < table->columns->len; i++) {
    const TableColumn *column = table->columns->pdata[i];
    bool mapped = false;
    for (unsigned j = 0; j < projection->column_count; j++)
      mapped |= !g_ascii_strcasecmp(projection->columns[j].name, column->name);
    if (!mapped && !column->nullable && !column->has_default && !column->generated)
      finding_add(findings, true,
                  "%s.table: %s.%s is NOT NULL, has no default and is not mapped; give it a "
                  "default or map it",
                  projection->path, projection->table, column->name);
  }
}

/* If the engine has no transactions, rows stay when the ledger is rolled back: after a crash they
 * count twice, or are missing. */
static bool check_engine(Session *session, const char *name, const char *path, GPtrArray *findings,
                         Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result =
      table_ask(session,
                "SELECT t.ENGINE, COALESCE(e.TRANSACTIONS, '') FROM information_schema.TABLES t"
                " LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE"
                " WHERE t.ENGINE IS NOT NULL AND t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = ",
                name, ret_failure);
  if (!result)
    return false;
  MYSQL_ROW row = mysql_fetch_row(result);
  if (!row || !g_ascii_strcasecmp(row[0], "InnoDB"))
    return true;
  bool transactions = !g_ascii_strcasecmp(row[1], "YES");
  finding_add(findings, !transactions,
              transactions ? "%s%s has engine %s: it is not tested; ALTER TABLE %s ENGINE "
                             "= InnoDB"
                           : "%s%s has engine %s, which cannot roll back: after a crash events "
                             "count twice or not at all; ALTER TABLE %s ENGINE = InnoDB",
              path, name, row[0], name);
  return true;
}

/* Only a user with the privilege TRIGGER sees triggers. */
static bool check_triggers(Session *session, const Projection *projection, GPtrArray *findings,
                           Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result =
      table_ask(session,
                "SELECT TRIGGER_NAME, 1 FROM information_schema.TRIGGERS"
                " WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = ",
                projection->table, ret_failure);
  MYSQL_ROW row;
  while (result && (row = mysql_fetch_row(result)))
    finding_add(findings, false,
                "%s.table: %s has the trigger %s: rows it changes are differences to "
                "`reconcile`, and what it refuses are failed events",
                projection->path, projection->table, row[0]);
  return result != NULL;
}

/* A child table's rows are written with those of its parent, in the order that the key needs. */
static bool is_to_parent(const Projection *projection, const char *referenced) {
  return projection->parent && !g_ascii_strcasecmp(projection->parent->table, referenced);
}

static bool check_foreign_keys(Session *session, const Projection *projection, GPtrArray *findings,
                               Failure *ret_failure) {
  g_autoptr(MYSQL_RES) result =
      table_ask(session,
                "SELECT CONSTRAINT_NAME, COALESCE(REFERENCED_TABLE_NAME, 'another table'),"
                " DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL')"
                " FROM information_schema.REFERENTIAL_CONSTRAINTS"
                " WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ",
                projection->table, ret_failure);
  MYSQL_ROW row;
  while (result && (row = mysql_fetch_row(result))) {
    if (*row[2] == '1')
      finding_add(findings, false,
                  "%s.table: rows of %s change with those of %s, by the foreign key %s, without an "
                  "event: what it deletes or sets to NULL are differences to `reconcile`",
                  projection->path, projection->table, row[1], row[0]);
    if (!is_to_parent(projection, row[1]))
      finding_add(findings, false,
                  "%s.table: %s has the foreign key %s to %s: with several workers an event may "
                  "come before that of the row it refers to; it then fails (1452) and is tried "
                  "again, up to max_attempts. Drop the foreign key, or set \"workers\" to 1",
                  projection->path, projection->table, row[0], row[1]);
  }
  return result != NULL;
}

static bool check_projection(Session *session, const Projection *projection, GPtrArray *findings,
                             Failure *ret_failure) {
  g_autoptr(Table) table = table_read(session, projection->table, ret_failure);
  if (!table)
    return false;
  if (table->columns->len == 0) {
    finding_add(findings, true,
                "%s.table: %s does not exist, or this user may not see it; `projector schema "
                "--apply` creates it",
                projection->path, projection->table);
    return true;
  }
  g_autofree char *path = g_strdup_printf("%s.table: ", projection->path);
  if (!check_engine(session, projection->table, path, findings, ret_failure) ||
      !check_triggers(session, projection, findings, ret_failure) ||
      !check_foreign_keys(session, projection, findings, ret_failure))
    return false;
  for (unsigned i = 0; i < projection->column_count; i++)
    check_column(projection, i, table, findings);
  check_keys(projection, table, findings);
  check_strangers(projection, table, findings);
  return true;
}

/* --- the projector's own tables --------------------------------------------------------------- */

typedef struct OwnTable {
  const char *name, *newest_column;
  const char *key;     /* its columns, as sql/ has them */
  const char *without; /* what happens without the key */
  const char *written; /* columns that statements name */
} OwnTable;

static const OwnTable own_tables[] = {
    {"projector_applied", "outcome", "projector, event_id_kind, event_id",
     "an event that comes twice counts twice", "projector, event_id_kind, event_id, outcome"},
    {"projector_position", "refreshed_version",
     "projector, aggregate_type, aggregate_id_kind, aggregate_id",
     "an aggregate has several positions, and its events are applied out of order",
     "projector, aggregate_type, aggregate_id_kind, aggregate_id, occurred_at, version, "
     "event_id_kind, event_id, max_version, refreshed_version"},
    {"projector_fence", "owner", "projector, part", "two owners can write at the same time",
     "projector, part, epoch, owner"}};

static bool is_on(const TableIndex *index, char **columns) {
  if (index->prefix || index->columns->len != g_strv_length(columns))
    return false;
  for (guint i = 0; i < index->columns->len; i++) {
    g_autofree char *name = g_ascii_strdown(index->columns->pdata[i], -1);
    if (!g_strv_contains((const char *const *)columns, name))
      return false;
  }
  return true;
}

/* Nothing else would notice: the statements rely on 1062 and ON DUPLICATE KEY UPDATE. */
static void check_own_key(const OwnTable *own, const Table *table, GPtrArray *findings) {
  g_auto(GStrv) columns = g_strsplit(own->key, ", ", -1);
  bool primary = false;
  for (guint i = 0; i < table->unique->len; i++) {
    const TableIndex *index = table->unique->pdata[i];
    if (is_on(index, columns))
      return;
    primary |= !strcmp(index->name, "PRIMARY");
  }
  finding_add(findings, true,
              "table %s needs a primary or unique key on exactly (%s), as the projector's schema "
              "has it; without it %s. Stop all projectors, then ALTER TABLE %s %sADD PRIMARY KEY "
              "(%s); remove duplicate rows first, if it finds any",
              own->name, own->key, own->without, own->name, primary ? "DROP PRIMARY KEY, " : "",
              own->key);
}

/* Where another type rounds, cuts or compares in another way; as sql/ has them. */
static const struct OwnColumn {
  const char *table, *name, *type;
  unsigned bytes, fraction; /* at least */
  const char *definition;
} own_columns[] = {
    {"projector_applied", "event_id", "varbinary", 64, 0, "VARBINARY(64) NOT NULL"},
    {"projector_applied", "applied_at", "datetime", 0, 3,
     "DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)"},
    {"projector_position", "aggregate_type", "varbinary", 128, 0, "VARBINARY(128) NOT NULL"},
    {"projector_position", "aggregate_id", "varbinary", 255, 0, "VARBINARY(255) NOT NULL"},
    {"projector_position", "occurred_at", "datetime", 0, 3, "DATETIME(3) NOT NULL"},
    {"projector_position", "version", "bigint", 0, 0, "BIGINT"},
    {"projector_position", "event_id", "varbinary", 64, 0, "VARBINARY(64) NOT NULL"},
    {"projector_position", "max_version", "bigint", 0, 0, "BIGINT"},
    {"projector_position", "refreshed_version", "bigint", 0, 0, "BIGINT"},
    {"projector_fence", "epoch", "bigint", 0, 0, "BIGINT UNSIGNED NOT NULL"},
};

static void check_own_columns(const OwnTable *own, const Table *table, GPtrArray *findings) {
  for (size_t i = 0; i < G_N_ELEMENTS(own_columns); i++) {
    const struct OwnColumn *wanted = &own_columns[i];
    if (strcmp(wanted->table, own->name) != 0)
      continue;
    const TableColumn *column = table_find_column(table, wanted->name);
    if (!column || strcmp(column->type, wanted->type) != 0 || column->bytes < wanted->bytes ||
        column->fraction < wanted->fraction)
      finding_add(
          findings, true, "table %s: column %s is %s instead of %s; ALTER TABLE %s %s COLUMN %s %s",
          own->name, wanted->name, column ? column->full_type : "missing", wanted->definition,
          own->name, column ? "MODIFY" : "ADD", wanted->name, wanted->definition);
  }
}

/* The statements name the columns that sql/ has, but for the time of an entry. */
static void check_own_defaults(const OwnTable *own, const Table *table, GPtrArray *findings) {
  g_auto(GStrv) written = g_strsplit(own->written, ", ", -1);
  for (guint i = 0; i < table->columns->len; i++) {
    const TableColumn *column = table->columns->pdata[i];
    g_autofree char *name = g_ascii_strdown(column->name, -1);
    if (!column->nullable && !column->has_default && !column->generated &&
        !g_strv_contains((const char *const *)written, name))
      finding_add(findings, true,
                  "table %s: column %s is NOT NULL and has no default, so that nothing can be "
                  "written; give it a default%s",
                  own->name, column->name,
                  strcmp(name, "applied_at") != 0 ? ", or remove it" : ": CURRENT_TIMESTAMP(3)");
  }
}

static bool check_own_table(Session *session, const OwnTable *own, GPtrArray *findings,
                            Failure *ret_failure) {
  g_autoptr(Table) table = table_read(session, own->name, ret_failure);
  if (!table)
    return false;
  if (!table_find_column(table, own->newest_column)) {
    finding_add(
        findings, true,
        "table %s is missing or of another version, or this user may not see it; `projector "
        "schema --apply` creates it",
        own->name);
    return true;
  }
  check_own_key(own, table, findings);
  check_own_columns(own, table, findings);
  check_own_defaults(own, table, findings);
  return check_engine(session, own->name, "table ", findings, ret_failure);
}

static bool check_own_tables(Session *session, GPtrArray *findings, Failure *ret_failure) {
  for (size_t i = 0; i < G_N_ELEMENTS(own_tables); i++)
    if (!check_own_table(session, &own_tables[i], findings, ret_failure))
      return false;
  return true;
}

/* ---------------------------------------------------------------------------------------------- */

GPtrArray *catalog_check(Session *session, const Mapping *mapping, Failure *ret_failure) {
  g_autoptr(GPtrArray) findings = findings_new();
  if (!server_check(session, findings, ret_failure) ||
      !check_own_tables(session, findings, ret_failure))
    return NULL;
  for (unsigned i = 0; i < mapping_table_count(mapping); i++)
    if (!check_projection(session, mapping_table(mapping, i), findings, ret_failure))
      return NULL;
  return g_steal_pointer(&findings);
}

const char *catalog_key_hint(Session *session, const Projection *projection, Failure *ret_failure) {
  const char *kept = session_hint(session, projection->table);
  if (kept)
    return kept;
  g_autoptr(Table) table = table_new(session);
  if (!table_read_unique(session, projection->table, table, ret_failure))
    return NULL;
  if (table->unique->len == 0)
    return "";
  bool primary = false;
  for (unsigned i = 0; i < table->unique->len; i++) {
    const TableIndex *index = table->unique->pdata[i];
    primary |= !strcmp(index->name, "PRIMARY") && index_is_key(index, projection);
  }
  session_keep_hint(session, projection->table, primary ? " FORCE INDEX (PRIMARY)" : "");
  return session_hint(session, projection->table);
}

/* --- columns that are missing --- */

static bool has_value(const Column *column) {
  g_autoptr(Arena) arena = arena_new();
  Value value;
  return column->nullable || value_of_default(column, arena, &value);
}

/* --- what a table lacks --------------------------------------------------------------------- */

bool catalog_columns_without_value(Session *session, const Projection *projection, GPtrArray *names,
                                   Failure *ret_failure) {
  g_autoptr(Table) table = table_read(session, projection->table, ret_failure);
  for (unsigned i = 0; table && table->columns->len > 0 && i < projection->column_count; i++)
    if (!has_value(&projection->columns[i]) &&
        !table_find_column(table, projection->columns[i].name))
      g_ptr_array_add(names, (gpointer)projection->columns[i].name);
  return table != NULL;
}

GPtrArray *catalog_missing_columns(Session *session, const Projection *projection, bool *ret_exists,
                                   Failure *ret_failure) {
  g_autoptr(Table) table = table_read(session, projection->table, ret_failure);
  if (!table)
    return NULL;
  GPtrArray *statements = g_ptr_array_new_with_free_func(g_free);
  *ret_exists = table->columns->len > 0;
  for (unsigned i = 0; i < projection->column_count && *ret_exists; i++) {
    if (table_find_column(table, projection->columns[i].name))
      continue;
    GString *sql = g_string_new("ALTER TABLE ");
    literal_append_name(sql, projection->table);
    g_string_append(sql, " ADD COLUMN ");
    ddl_append_column(sql, projection, i, session_is_mariadb(session));
    ddl_append_default(sql, &projection->columns[i]);
    g_ptr_array_add(statements, g_string_free(sql, FALSE));
  }
  return statements;
}

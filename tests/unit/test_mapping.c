/* test_mapping.c - the mapping file: the bank example, and every way to get it wrong. */
#include "tests/unit/support.h"

#include <string.h>

/* The example of the README and of the design, whole. */
static const char bank[] =
    "{'name': 'bank',"
    " 'mongodb': {'uri': 'mongodb://127.0.0.1:27017/?replicaSet=rs0', 'database': 'bank',"
    "             'outbox': 'outbox', 'retain': 'delete'},"
    " 'mysql': {'host': '127.0.0.1', 'port': 3306, 'user': 'projector',"
    "           'password_file': '/run/secrets/mysql', 'database': 'bank_read'},"
    " 'projections': [{"
    "   'aggregate_type': 'account', 'table': 'account', 'entities': 'accounts',"
    "   'key': {'account_id': {'from': '$aggregate_id', 'type': 'varchar(36)'}},"
    "   'columns': {"
    "     'user_id': {'from': 'user_id', 'type': 'varchar(36)'},"
    "     'name': {'from': 'name', 'type': 'varchar(100)'},"
    "     'balance': {'from': 'balance', 'type': 'decimal(18,2)'},"
    "     'opened_at': {'from': 'opened_at', 'type': 'datetime(3)', 'null': true},"
    "     'updated_at': {'from': '$occurred_at', 'type': 'datetime(3)', 'compare': false}},"
    "   'events': {"
    "     'AccountOpened': {'op': 'upsert'},"
    "     'AccountRenamed': {'op': 'update', 'columns': ['name']},"
    "     'MoneyDeposited': {'op': 'add', 'columns': {'balance': 'amount'}},"
    "     'MoneyWithdrawn': {'op': 'subtract', 'columns': {'balance': 'amount'}},"
    "     'AccountFrozen': {'op': 'sql', 'statement': 'UPDATE account SET name = CONCAT(name, "
    "\\u0027 (frozen)\\u0027) WHERE account_id = :$aggregate_id'},"
    "     'StatementSent': {'op': 'ignore'},"
    "     'AccountClosed': {'op': 'delete'}}}]}";

static const Rule *rule_of(const Mapping *mapping, const char *event_type) {
  const Rule *const *rules =
      mapping_rules(mapping, "account", strlen("account"), event_type, strlen(event_type));
  check_that(event_type, rules && rules[0] && !rules[1], "one rule takes it");
  return rules[0];
}

static void test_bank_columns(void **state) {
  (void)state;
  static const struct {
    const char *name, *type, *from;
    bool nullable, compare;
  } expected[] = {
      {"account_id", "varchar(36)", "$aggregate_id", false, true},
      {"user_id", "varchar(36)", "user_id", false, true},
      {"name", "varchar(100)", "name", false, true},
      {"balance", "decimal(18,2)", "balance", false, true},
      {"opened_at", "datetime(3)", "opened_at", true, true},
      {"updated_at", "datetime(3)", "$occurred_at", false, false},
  };
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(bank, &failure);
  check_text("bank", failure.message, "");
  check_number("projections", mapping_projection_count(mapping), 1);
  const Projection *projection = mapping_projection(mapping, 0);
  check_text("table", projection->table, "account");
  check_text("aggregate type", projection->aggregate_type, "account");
  check_text("entities", projection->entities, "accounts");
  check_number("key", projection->key_count, 1);
  check_number("columns", projection->column_count, COUNT_OF(expected));
  check_number("unique keys", projection->allow_unique_keys, false);
  for (size_t i = 0; i < COUNT_OF(expected); i++) {
    const Column *column = &projection->columns[i];
    check_text("name", column->name, expected[i].name);
    check_text(column->name, column->type.text, expected[i].type);
    check_text(column->name, column->from.text, expected[i].from);
    check_number(column->name, column->nullable, expected[i].nullable);
    check_number(column->name, column->compare, expected[i].compare);
  }
}

static void test_bank_rules(void **state) {
  (void)state;
  static const struct {
    const char *event_type;
    Operation operation;
    const char *column, *from; /* of its one assignment */
  } expected[] = {
      {"AccountOpened", OP_UPSERT, NULL, NULL},
      {"AccountRenamed", OP_UPDATE, "name", "name"},
      {"MoneyDeposited", OP_ADD, "balance", "amount"},
      {"MoneyWithdrawn", OP_SUBTRACT, "balance", "amount"},
      {"AccountFrozen", OP_SQL, NULL, NULL},
      {"StatementSent", OP_IGNORE, NULL, NULL},
      {"AccountClosed", OP_DELETE, NULL, NULL},
  };
  Failure failure;
  g_autoptr(Mapping) mapping = mapping_from(bank, &failure);
  for (size_t i = 0; i < COUNT_OF(expected); i++) {
    const Rule *rule = rule_of(mapping, expected[i].event_type);
    check_text("event type", rule->event_type, expected[i].event_type);
    check_text(rule->event_type, operation_name(rule->operation),
               operation_name(expected[i].operation));
    check_number(rule->event_type, rule->assignment_count, expected[i].column != NULL);
    if (!expected[i].column)
      continue;
    check_text(rule->event_type, rule->projection->columns[rule->assignments[0].column].name,
               expected[i].column);
    check_text(rule->event_type, rule->assignments[0].from.text, expected[i].from);
  }
  const Rule *frozen = rule_of(mapping, "AccountFrozen");
  check_text("sql", frozen->statement,
             "UPDATE account SET name = CONCAT(name, ' (frozen)') WHERE account_id = ?");
  check_number("sql", frozen->parameter_count, 1);
  check_number("sql", frozen->parameters[0].column, 0);
}

static void test_look_ups(void **state) {
  (void)state;
  Failure failure;
  g_autoptr(Mapping) mapping = mapping_from(bank, &failure);
  g_autofree char *endless = g_strnfill(600, 'x');
  check_that("table", mapping_find(mapping, "account") == mapping_projection(mapping, 0), "found");
  check_that("case", mapping_find(mapping, "ACCOUNT") != NULL, "names are without case");
  check_that("none", !mapping_find(mapping, "accounts"), "another table");
  check_that("type", !mapping_rules(mapping, "accoun", 6, "AccountOpened", 13), "another type");
  check_that("event", !mapping_rules(mapping, "account", 7, "AccountOpene", 12), "another event");
  check_that("case", !mapping_rules(mapping, "account", 7, "accountopened", 13),
             "events have case");
  check_that("cut", mapping_rules(mapping, "accountX", 7, "AccountOpenedX", 13) != NULL,
             "the lengths count");
  check_that("long", !mapping_rules(mapping, endless, 600, "x", 1), "no such type");
  check_that("NUL", !mapping_rules(mapping, "account\0AccountOpened", 21, "x", 1), "no such type");
  check_that("unknown", !mapping_ignores_unknown(mapping), "unknown events fail");
}

/* --- variations of a small file -------------------------------------------------------------- */

#define KEY "'key': {'id': {'from': '$aggregate_id', 'type': 'varchar(36)'}}"
#define COLUMNS                                                                                    \
  "'columns': {'a': {'from': 'a', 'type': 'int'}, 'd': {'from': 'd', 'type': 'decimal(9,2)'}, "    \
  "'t': {'from': 't', 'type': 'text'}}"
#define EVENTS "'events': {'E': {'op': 'upsert'}}"
#define HEAD "'aggregate_type': 'x', 'table': 't'"
#define FILE_OF(projection) "{'projections': [{" projection "}]}"
#define WITH_KEY(key) FILE_OF(HEAD ", 'key': " key ", " COLUMNS ", " EVENTS)
#define WITH_COLUMNS(columns) FILE_OF(HEAD ", " KEY ", 'columns': " columns ", " EVENTS)
#define WITH_EVENTS(events) FILE_OF(HEAD ", " KEY ", " COLUMNS ", 'events': " events)
#define WITH_RULE(rule) WITH_EVENTS("{'E': " rule "}")
#define IDENTIFIER "an identifier (1 to 64 letters, digits, _ or $)"
#define NOT_IDENTIFIER "not an identifier (1 to 64 letters, digits, _ or $)"
#define SOURCE_RULE                                                                                \
  "expected a payload path, a JSON Pointer, $payload or one of $event_id, $aggregate_id, "         \
  "$version, $occurred_at, $event_type, $metadata.x, found "
#define ENTITY_RULE                                                                                \
  "expected a path that an entity has too: into the payload, or $aggregate_id (a refresh reads "   \
  "the entity, which has no event), found "
#define TYPE_RULE                                                                                  \
  "expected boolean, tinyint … bigint [unsigned], double, decimal(p,s), char(n), varchar(n), "   \
  "tinytext … longtext, binary(n), varbinary(n), tinyblob … longblob, date, datetime(f), "     \
  "timestamp(f), json, uuid, enum('a','b'), year, time(f), bit(1) or float, found "
#define UPDATE_RULE "expected a list of columns, or an object of column and payload path, found "
#define DELTA_RULE "expected an object of column and payload path, found "
#define NAME_64 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl"

static const char *const good_files[] = {
    FILE_OF(HEAD ", " KEY ", " COLUMNS ", " EVENTS),
    FILE_OF(HEAD ", " KEY ", " EVENTS), /* a table of its key alone */
    FILE_OF(HEAD ", " KEY ", 'columns': {}, " EVENTS),
    FILE_OF(HEAD ", 'allow_unique_keys': true, 'entities': 'es', " KEY ", " COLUMNS ", " EVENTS),
    WITH_KEY("{'id': {'from': 'user', 'type': 'bigint unsigned'},"
             " '$n_2': {'from': '$metadata.tenant', 'type': 'uuid'}}"),
    WITH_KEY("{'" NAME_64 "': {'from': '$aggregate_id', 'type': 'binary(16)'}}"),
    WITH_RULE("{'op': 'update', 'columns': {'a': 'other.path', 'T': '$event_type'}}"),
    WITH_RULE("{'op': 'update', 'columns': ['a', 'd', 't']}"),
    WITH_RULE("{'op': 'add', 'columns': {'a': 'n', 'd': 'm'}}"),
    WITH_RULE("{'op': 'sql', 'statement': 'DELETE FROM t'}"),
    WITH_COLUMNS("{'a': {'from': ['n', 'o'], 'type': 'int', 'default': 0},"
                 " 'b': {'value': 'x', 'type': 'char(1)'},"
                 " 'c': {'value': null, 'type': 'int', 'null': true},"
                 " 'd': {'value': {'$numberDecimal': '1.50'}, 'type': 'decimal(3,2)'},"
                 " 'e': {'from': '/a.b/$id/0/~0~1', 'type': 'text'},"
                 " 'f': {'from': '$payload', 'type': 'json'},"
                 " 'g': {'from': 'g', 'default': {}, 'type': 'json'}}"),
    WITH_RULE("{'op': 'add', 'columns': {'a': {'value': 1}}}"),
    WITH_RULE("{'op': 'update', 'columns': {'a': ['n', 'o'], 'd': {'from': 'd', 'default': 0}}}"),
    WITH_RULE("{'op': 'upsert', 'when': {'path': 'kind', 'is': 'web'}}"),
    WITH_RULE("{'op': 'upsert', 'when': {'path': '$metadata.tenant', 'exists': false}}"),
    WITH_RULE("{'op': 'upsert', 'when': {'all': [{'path': 'a', 'in': [1, null, true, 'x']},"
              " {'not': {'any': [{'path': ['b', '/c.d'], 'exists': true}]}}]}}"),
    FILE_OF(HEAD ", " KEY ", " COLUMNS ", 'always': ['T'], "
                 "'events': {'E': {'op': 'add', 'columns': {'a': 'n'}},"
                 " 'F': {'op': 'update', 'columns': {'t': 'x'}}}"),
    WITH_COLUMNS("{'a': {'from': 'a', 'type': 'json', 'json': 'plain'},"
                 " 'b': {'value': 'x', 'type': 'enum(\\u0027x\\u0027)'},"
                 " 'c': {'from': 'c', 'type': 'time(3)'}, 'd': {'value': true, 'type': 'bit(1)'}}"),
    FILE_OF(HEAD ", 'when': {'path': '$aggregate_id', 'is': 'x'}, " KEY ", " EVENTS),
    "{'unknown_events': 'ignore', 'other': 5, 'projections': [{" HEAD ", " KEY ", " EVENTS "}]}",
};

static void test_good_files(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(good_files); i++) {
    Failure failure = {0};
    g_autoptr(Mapping) mapping = mapping_from(good_files[i], &failure);
    check_text(good_files[i], failure.message, "");
    check_that(good_files[i], mapping != NULL, "it is taken");
  }
}

#define WITH_CHILD(members)                                                                        \
  FILE_OF(HEAD ", " KEY ", 'children': [{'table': 'c', " members                                   \
               ", 'key': {'n': {'from': '$index', 'type': 'int'}}}], " EVENTS)

#define WITH_CHILD_KEY(from)                                                                       \
  FILE_OF(HEAD ", " KEY ", 'children': [{'table': 'c', 'from': 'l', 'key': {'n': {'from': " from   \
               ", 'type': 'int'}}}], " EVENTS)

#define WITH_CHILD_COLUMN(from)                                                                    \
  WITH_CHILD("'from': 'l', 'columns': {'x': {'from': " from ", 'type': 'int'}}")

static const struct {
  const char *file, *message;
} wrong_files[] = {
    {"[]", "projections: expected a list of at least one projection, found nothing"},
    {"{}", "projections: expected a list of at least one projection, found nothing"},
    {"{'projections': []}",
     "projections: expected a list of at least one projection, found an empty array"},
    {"{'projections': {}}",
     "projections: expected a list of at least one projection, found an object"},
    {"{'projections': [5]}", "projections[0]: expected an object, found 5"},
    {"{'unknown_events': 'drop', 'projections': []}",
     "unknown_events: expected one of fail, ignore, found \"drop\""},
    {"{'unknown_events': true, 'projections': []}",
     "unknown_events: expected one of fail, ignore, found true"},

    {FILE_OF("'table': 't', " KEY ", " EVENTS),
     "projections[0].aggregate_type: expected a string, found nothing"},
    {FILE_OF("'aggregate_type': 5, 'table': 't', " KEY ", " EVENTS),
     "projections[0].aggregate_type: expected a string, found 5"},
    {FILE_OF("'aggregate_type': '', 'table': 't', " KEY ", " EVENTS),
     "projections[0].aggregate_type: expected a name of 1 to 128 bytes, found \"\""},
    {FILE_OF("'aggregate_type': 'x', " KEY ", " EVENTS),
     "projections[0].table: expected a string, found nothing"},
    {FILE_OF("'aggregate_type': 'x', 'table': null, " KEY ", " EVENTS),
     "projections[0].table: expected a string, found null"},
    {FILE_OF("'aggregate_type': 'x', 'table': '', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER ", found \"\""},
    {FILE_OF("'aggregate_type': 'x', 'table': '1t', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER ", found \"1t\""},
    {FILE_OF("'aggregate_type': 'x', 'table': 'other.t', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER ", found \"other.t\""},
    {FILE_OF("'aggregate_type': 'x', 'table': 't`; DROP TABLE u', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER ", found \"t`; DROP TABLE u\""},
    {FILE_OF("'aggregate_type': 'x', 'table': '" NAME_64 "m', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER
     ", found \"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh\""},
    {FILE_OF("'aggregate_type': 'x', 'table': 't\xc3\xa4', " KEY ", " EVENTS),
     "projections[0].table: expected " IDENTIFIER ", found \"t\xc3\xa4\""},
    {FILE_OF(HEAD ", 'entities': '', " KEY ", " EVENTS),
     "projections[0].entities: expected the name of a collection (without $, not beginning with . "
     "or "
     "system.), found \"\""},
    {FILE_OF(HEAD ", 'entities': ['e'], " KEY ", " EVENTS),
     "projections[0].entities: expected a string, found an array"},
    {FILE_OF(HEAD ", 'allow_unique_keys': 1, " KEY ", " EVENTS),
     "projections[0].allow_unique_keys: expected true or false, found 1"},
    {FILE_OF(HEAD ", 'colums': {}, " KEY ", " EVENTS),
     "projections[0].colums: unknown key; known here: aggregate_type, table, entities, "
     "when, key, columns, children, always, events, allow_unique_keys"},
    {"{'projections': [{" HEAD ", " KEY ", " EVENTS "}, {" HEAD ", " KEY ", " EVENTS "}]}",
     "projections[1].table: another projection fills t already"},
    {"{'projections': [{" HEAD ", " KEY ", " EVENTS "}, {'aggregate_type': 'y', 'table': 'T', " KEY
     ", " EVENTS "}]}",
     "projections[1].table: another projection fills T already"},

    {FILE_OF(HEAD ", " EVENTS),
     "projections[0].key: expected an object with at least one column, found nothing"},
    {WITH_KEY("{}"),
     "projections[0].key: expected an object with at least one column, found an object"},
    {WITH_KEY("['id']"),
     "projections[0].key: expected an object with at least one column, found an array"},
    {WITH_KEY("{'id': 'varchar(36)'}"),
     "projections[0].key.id: expected an object, found \"varchar(36)\""},
    {WITH_KEY("{'id': {'type': 'int'}}"), "projections[0].key.id.from: " SOURCE_RULE "nothing"},
    {WITH_KEY("{'id': {'from': '$aggregate_id'}}"),
     "projections[0].key.id.type: expected a string, found nothing"},
    {WITH_KEY("{'id': {'from': '$id', 'type': 'int'}}"),
     "projections[0].key.id.from: " SOURCE_RULE "\"$id\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'int', 'null': true}}"),
     "projections[0].key.id.null: unknown key; known here: from, value, default, type"},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'int', 'compare': false}}"),
     "projections[0].key.id.compare: unknown key; known here: from, value, default, type"},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'text'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"text\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'json'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"json\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'double'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"double\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'float'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"float\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'bit(1)'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"bit(1)\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'time(3)'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"time(3)\""},
    {WITH_KEY("{'id': {'from': 'id', 'type': 'blob'}}"),
     "projections[0].key.id.type: expected a type that can be a primary key, found \"blob\""},
    {WITH_KEY("{'a b': {'from': 'id', 'type': 'int'}}"), "projections[0].key.a b: " NOT_IDENTIFIER},
    {WITH_KEY("{'': {'from': 'id', 'type': 'int'}}"), "projections[0].key.: " NOT_IDENTIFIER},

    {WITH_COLUMNS("[]"), "projections[0].columns: expected an object, found an empty array"},
    {WITH_COLUMNS("null"), "projections[0].columns: expected an object, found null"},
    {WITH_COLUMNS("{'a': 5}"), "projections[0].columns.a: expected an object, found 5"},
    {WITH_COLUMNS("{'a': {'from': 5, 'type': 'int'}}"),
     "projections[0].columns.a.from: " SOURCE_RULE "5"},
    {WITH_COLUMNS("{'a': {'from': '', 'type': 'int'}}"),
     "projections[0].columns.a.from: " SOURCE_RULE "\"\""},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 5}}"),
     "projections[0].columns.a.type: expected a string, found 5"},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'decimal(18,20)'}}"),
     "projections[0].columns.a.type: " TYPE_RULE "\"decimal(18,20)\""},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'int', 'null': 'yes'}}"),
     "projections[0].columns.a.null: expected true or false, found \"yes\""},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'int', 'compare': 0}}"),
     "projections[0].columns.a.compare: expected true or false, found 0"},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'int', 'else': 0}}"),
     "projections[0].columns.a.else: unknown key; known here: from, value, default, type, null, "
     "compare, json"},
    {WITH_COLUMNS("{'a': {'from': 'a', 'value': 1, 'type': 'int'}}"),
     "projections[0].columns.a: expected \"value\" alone, or \"from\" with or without \"default\""},
    {WITH_COLUMNS("{'a': {'value': 1, 'default': 1, 'type': 'int'}}"),
     "projections[0].columns.a: expected \"value\" alone, or \"from\" with or without \"default\""},
    {WITH_COLUMNS("{'a': {'default': 1, 'type': 'int'}}"),
     "projections[0].columns.a.from: " SOURCE_RULE "nothing"},
    {WITH_COLUMNS("{'a': {'from': [], 'type': 'int'}}"),
     "projections[0].columns.a.from: expected a list of at least one path, found an empty array"},
    {WITH_COLUMNS("{'a': {'from': ['b', 5], 'type': 'int'}}"),
     "projections[0].columns.a.from[1]: " SOURCE_RULE "5"},
    {WITH_COLUMNS("{'a': {'from': '/b~2', 'type': 'int'}}"),
     "projections[0].columns.a.from: " SOURCE_RULE "\"/b~2\""},
    {WITH_COLUMNS("{'a': {'from': '$payloads', 'type': 'int'}}"),
     "projections[0].columns.a.from: " SOURCE_RULE "\"$payloads\""},
    {WITH_COLUMNS("{'a': {'value': 'x', 'type': 'int'}}"),
     "projections[0].columns.a: value: expected int, found string of 1 bytes \"x\""},
    {WITH_COLUMNS("{'a': {'value': 2147483648, 'type': 'int'}}"),
     "projections[0].columns.a: value: expected int, found int64 2147483648"},
    {WITH_COLUMNS("{'a': {'value': null, 'type': 'int'}}"),
     "projections[0].columns.a: value: expected int, found null"},
    {WITH_COLUMNS("{'a': {'from': 'b', 'default': 1.5, 'type': 'int'}}"),
     "projections[0].columns.a: default: expected int, found double 1.5"},
    {WITH_COLUMNS("{'a': {'value': {'$oid': 'x'}, 'type': 'int'}}"),
     "projections[0].columns.a.value.$oid: expected 24 hexadecimal digits, found \"x\""},
    {WITH_COLUMNS("{'a': {'value': {'$numberDecimal': 'zz'}, 'type': 'json'}}"),
     "projections[0].columns.a.value.$numberDecimal: expected a number of at most 34 digits, "
     "found \"zz\""},
    {WITH_COLUMNS("{'a': {'value': [{'b': {'$numberDouble': '1,5'}}], 'type': 'json'}}"),
     "projections[0].columns.a.value[0].b.$numberDouble: expected a string with a number that a "
     "double can hold, found \"1,5\""},
    {WITH_CHILD("'from': 'b', 'default': 5"),
     "projections[0].children[0].default: expected [], found 5"},
    {WITH_CHILD("'from': 'b', 'default': [1]"),
     "projections[0].children[0].default: expected [], found an array"},
    {WITH_CHILD_COLUMN("['$item.a', '$metadata.a']"),
     "projections[0].children[0]: its column x comes from $metadata.a, which an entity does not "
     "have; expected $index, $item, $item.x, a payload path or $aggregate_id"},
    {WITH_CHILD_KEY("'$version'"),
     "projections[0].children[0]: its column n comes from $version, which an entity does not "
     "have; expected $index, $item, $item.x, a payload path or $aggregate_id"},
    {WITH_CHILD("'from': '$metadata.b'"),
     "projections[0].children[0]: expected the path of an array in the payload, found $metadata.b"},
    {WITH_CHILD("'from': ['b', '$aggregate_id']"),
     "projections[0].children[0]: expected the path of an array in the payload, found "
     "$aggregate_id"},
    {WITH_CHILD("'from': '$payload'"),
     "projections[0].children[0]: expected the path of an array in the payload, found $payload"},
    {WITH_COLUMNS("{'id': {'from': 'a', 'type': 'int'}}"),
     "projections[0].columns.id: this column is named twice"},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'int'}, 'A': {'from': 'b', 'type': 'int'}}"),
     "projections[0].columns.A: this column is named twice"},
    {WITH_COLUMNS("{'a`': {'from': 'a', 'type': 'int'}}"),
     "projections[0].columns.a`: " NOT_IDENTIFIER},

    {FILE_OF(HEAD ", " KEY),
     "projections[0].events: expected an object with at least one event type, found nothing"},
    {WITH_EVENTS("{}"),
     "projections[0].events: expected an object with at least one event type, found an object"},
    {WITH_EVENTS("['E']"),
     "projections[0].events: expected an object with at least one event type, found an array"},
    {WITH_EVENTS("{'': {'op': 'upsert'}}"),
     "projections[0].events.: expected the name of an event type, of 1 to 128 bytes"},
    {WITH_RULE("'upsert'"),
     "projections[0].events.E: expected an object with \"op\", found \"upsert\""},
    {WITH_RULE("{}"),
     "projections[0].events.E.op: expected upsert, update, add, subtract, delete, sql or ignore, "
     "found nothing"},
    {WITH_RULE("{'op': 'insert'}"),
     "projections[0].events.E.op: expected one of upsert, update, add, subtract, delete, sql, "
     "ignore, found \"insert\""},
    {WITH_RULE("{'op': 'upsert', 'columns': ['a']}"),
     "projections[0].events.E.columns: unknown key; known here: op, when"},
    {WITH_RULE("{'op': 'delete', 'statement': 'x'}"),
     "projections[0].events.E.statement: unknown key; known here: op, set, when"},
    {FILE_OF(HEAD ", " KEY ", " COLUMNS ", 'always': 'a', " EVENTS),
     "projections[0].always: expected a list of columns, found \"a\""},
    {FILE_OF(HEAD ", " KEY ", " COLUMNS ", 'always': ['id'], " EVENTS),
     "projections[0].always[0]: expected one of the projection's columns that is not part of the "
     "key, found \"id\""},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'text', 'json': 'plain'}}"),
     "projections[0].columns.a.json: expected it on a column of type json alone, found \"plain\""},
    {WITH_COLUMNS("{'a': {'from': 'a', 'type': 'json', 'json': 'flat'}}"),
     "projections[0].columns.a.json: expected one of extended, plain, found \"flat\""},
    {WITH_RULE("{'op': 'ignore', 'columns': ['a']}"),
     "projections[0].events.E.columns: unknown key; known here: op, when"},
    {WITH_RULE("{'op': 'ignore', 'when': {'path': 'a'}}"),
     "projections[0].events.E.when: expected one of \"is\", \"in\" and \"exists\" beside \"path\""},
    {WITH_RULE("{'op': 'upsert', 'when': true}"),
     "projections[0].events.E.when: expected an object, found true"},
    {WITH_RULE("{'op': 'upsert', 'when': {}}"),
     "projections[0].events.E.when.path: " SOURCE_RULE "nothing"},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a'}}"),
     "projections[0].events.E.when: expected one of \"is\", \"in\" and \"exists\" beside \"path\""},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a', 'is': 1, 'exists': true}}"),
     "projections[0].events.E.when: expected one of \"is\", \"in\" and \"exists\" beside \"path\""},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a', 'was': 1}}"),
     "projections[0].events.E.when.was: unknown key; known here: path, is, in, exists"},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a', 'is': [1]}}"),
     "projections[0].events.E.when.is: expected a text, a number, true, false, null or a value in "
     "extended JSON, found an array"},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a', 'in': []}}"),
     "projections[0].events.E.when.in: expected a list of at least one value, found an empty "
     "array"},
    {WITH_RULE("{'op': 'upsert', 'when': {'path': 'a', 'exists': 1}}"),
     "projections[0].events.E.when.exists: expected true or false, found 1"},
    {WITH_RULE("{'op': 'upsert', 'when': {'all': [], 'path': 'a'}}"),
     "projections[0].events.E.when.path: unknown key; known here: all"},
    {WITH_RULE("{'op': 'upsert', 'when': {'any': [{'not': {'path': 'a', 'is': 1, 'in': [1]}}]}}"),
     "projections[0].events.E.when.any[0].not: expected one of \"is\", \"in\" and \"exists\" "
     "beside "
     "\"path\""},
    {WITH_RULE("{'op': 'upsert', 'when': {'all': []}}"),
     "projections[0].events.E.when.all: expected a list of at least one condition, found an empty "
     "array"},
    {FILE_OF(HEAD ", " KEY ", 'columns': {'a': {'from': 'a', 'type': 'int', 'null': true},"
                  " 'b': {'from': 'b', 'type': 'int', 'null': true}},"
                  " 'events': {'E': {'op': 'upsert'}, 'F': {'op': 'delete', 'set': {'a': 'a'}},"
                  " 'G': {'op': 'delete', 'set': {'b': 'b'}}}"),
     "projections[0].events.G.set: expected a first, which marks the deleted rows of t"},
    {FILE_OF(HEAD ", 'when': {'path': '$event_type', 'is': 'E'}, " KEY ", " EVENTS),
     "projections[0].when.path: " ENTITY_RULE "\"$event_type\""},
    {FILE_OF(HEAD ", 'when': {'not': {'path': '$metadata.tenant', 'exists': true}}, " KEY
                  ", " EVENTS),
     "projections[0].when.not.path: " ENTITY_RULE "\"$metadata.tenant\""},
    {FILE_OF(HEAD ", 'when': {'path': ['kind', '$event_id'], 'exists': true}, " KEY ", " EVENTS),
     "projections[0].when.path: " ENTITY_RULE "an array"},
    {WITH_RULE("{'op': 'update'}"), "projections[0].events.E.columns: " UPDATE_RULE "nothing"},
    {WITH_RULE("{'op': 'update', 'columns': []}"),
     "projections[0].events.E.columns: " UPDATE_RULE "an empty array"},
    {WITH_RULE("{'op': 'update', 'columns': {}}"),
     "projections[0].events.E.columns: " UPDATE_RULE "an object"},
    {WITH_RULE("{'op': 'update', 'columns': 'a'}"),
     "projections[0].events.E.columns: " UPDATE_RULE "\"a\""},
    {WITH_RULE("{'op': 'update', 'columns': [5]}"),
     "projections[0].events.E.columns[0]: expected the name of a column, found 5"},
    {WITH_RULE("{'op': 'update', 'columns': ['a', 'b']}"),
     "projections[0].events.E.columns[1]: expected one of the projection's columns, found \"b\""},
    {WITH_RULE("{'op': 'update', 'columns': ['id']}"),
     "projections[0].events.E.columns[0]: expected one of the projection's columns, found \"id\", "
     "which is part of the key"},
    {WITH_RULE("{'op': 'update', 'columns': ['a', 'A']}"),
     "projections[0].events.E.columns[1]: this column is named twice"},
    {WITH_RULE("{'op': 'update', 'columns': {'a': 'x', 'A': 'y'}}"),
     "projections[0].events.E.columns.A: this column is named twice"},
    {WITH_RULE("{'op': 'update', 'columns': {'a': 5}}"),
     "projections[0].events.E.columns.a: " SOURCE_RULE "5"},
    {WITH_RULE("{'op': 'update', 'columns': ['a'], 'statement': 'x'}"),
     "projections[0].events.E.statement: unknown key; known here: op, columns, when"},
    {WITH_RULE("{'op': 'add'}"), "projections[0].events.E.columns: " DELTA_RULE "nothing"},
    {WITH_RULE("{'op': 'add', 'columns': ['a']}"),
     "projections[0].events.E.columns: " DELTA_RULE "an array"},
    {WITH_RULE("{'op': 'add', 'columns': {'t': 'n'}}"),
     "projections[0].events.E.columns.t: expected a column with numbers to add, found text"},
    {WITH_RULE("{'op': 'subtract', 'columns': {'t': 'n'}}"),
     "projections[0].events.E.columns.t: expected a column with numbers to subtract, found text"},
    {WITH_RULE("{'op': 'subtract', 'columns': {'id': 'n'}}"),
     "projections[0].events.E.columns.id: expected one of the projection's columns, found \"id\", "
     "which is part of the key"},
    {WITH_RULE("{'op': 'sql'}"),
     "projections[0].events.E.statement: expected a string, found nothing"},
    {WITH_RULE("{'op': 'sql', 'statement': ''}"),
     "projections[0].events.E.statement: expected a statement, found \"\""},
    {WITH_RULE("{'op': 'sql', 'statement': 'x = ?'}"),
     "projections[0].events.E.statement: expected named parameters like :amount instead of ?, "
     "found \"x = ?\""},
    {WITH_RULE("{'op': 'sql', 'statement': 'a; b'}"),
     "projections[0].events.E.statement: expected one statement, found \"a; b\""},
    {WITH_RULE("{'op': 'sql', 'statement': 'SET @a = :n'}"),
     "projections[0].events.E.statement: expected one INSERT, UPDATE, DELETE or REPLACE, found "
     "\"SET @a = :n\""},
    {WITH_RULE("{'op': 'sql', 'statement': 'x', 'columns': ['a']}"),
     "projections[0].events.E.columns: unknown key; known here: op, statement, when"},
};

static void test_wrong_files(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(wrong_files); i++) {
    Failure failure = {0};
    g_autoptr(Mapping) mapping = mapping_from(wrong_files[i].file, &failure);
    check_that(wrong_files[i].file, !mapping, "it is refused");
    check_text(wrong_files[i].file, failure.message, wrong_files[i].message);
    check_number(wrong_files[i].file, failure.class, FAILURE_CONFIG);
  }
}

static void test_unknown_events(void **state) {
  (void)state;
  static const struct {
    const char *setting;
    bool ignored;
  } cases[] = {
      {"", false}, {"'unknown_events': 'fail',", false}, {"'unknown_events': 'ignore',", true}};
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    g_autofree char *file =
        g_strdup_printf("{%s 'projections': [{" HEAD ", " KEY ", " EVENTS "}]}", cases[i].setting);
    Failure failure;
    g_autoptr(Mapping) mapping = mapping_from(file, &failure);
    check_number(cases[i].setting, mapping_ignores_unknown(mapping), cases[i].ignored);
  }
}

/* Several projections of one aggregate type: their rules come in the file's order. */
static void test_several_projections(void **state) {
  (void)state;
  Failure failure = {0};
  g_autoptr(Mapping) mapping = mapping_from(
      "{'projections': ["
      "{'aggregate_type': 'x', 'table': 't1', " KEY ", 'events': {'E': {'op': 'upsert'}}},"
      "{'aggregate_type': 'y', 'table': 't2', " KEY ", 'events': {'E': {'op': 'delete'}}},"
      "{'aggregate_type': 'x', 'table': 't3', " KEY
      ", 'events': {'E': {'op': 'ignore'}, 'F': {'op': 'delete'}}}]}",
      &failure);
  check_text("file", failure.message, "");
  const Rule *const *both = mapping_rules(mapping, "x", 1, "E", 1);
  check_text("first", both[0]->projection->table, "t1");
  check_text("second", both[1]->projection->table, "t3");
  check_that("end", !both[2], "no third one");
  const Rule *const *one = mapping_rules(mapping, "y", 1, "E", 1);
  check_text("other type", one[0]->projection->table, "t2");
  check_that("other type", !one[1] && !mapping_rules(mapping, "y", 1, "F", 1), "no more");
  for (unsigned i = 0; i < 3; i++)
    check_number("index", mapping_projection(mapping, i)->index, i);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bank_columns),
      cmocka_unit_test(test_bank_rules),
      cmocka_unit_test(test_look_ups),
      cmocka_unit_test(test_good_files),
      cmocka_unit_test(test_wrong_files),
      cmocka_unit_test(test_unknown_events),
      cmocka_unit_test(test_several_projections),
  };
  return RUN_TESTS(tests);
}

/* test_statement.c - sources, and the statements of sql rules: what is a parameter and what is
 * not. */
#include "projector/domain/statement.h"
#include "tests/unit/support.h"

#include <string.h>

#define PATH_RULE                                                                                  \
  "after : a payload path, a JSON Pointer, $payload or one of $event_id, $aggregate_id, "          \
  "$version, $occurred_at, $event_type, $metadata.x"

#define UNCLEAR_RULE                                                                               \
  "a blank after the JSON Pointer of a parameter, whose names have only letters, digits, _ . $ "   \
  "and ~ (for one with others: JSON_VALUE(:$payload, '$.\"a-b\"'))"

#define EXECUTABLE_RULE "a statement without /*! comments, which not every server runs"

static const struct {
  const char *text, *statement;
  const char *parameters; /* sources, separated by blanks; after "!" what was expected */
} statement_cases[] = {
    {"DELETE FROM t", "DELETE FROM t", ""},
    {"UPDATE t SET a = :amount", "UPDATE t SET a = ?", "amount"},
    {":a:b", "??", "a b"},
    {"a=:a,b=:b WHERE d=:$aggregate_id", "a=?,b=? WHERE d=?", "a b $aggregate_id"},
    {":a + :a", "? + ?", "a a"},
    {"x = :deep.path.0", "x = ?", "deep.path.0"},
    {"x = :$event_id", "x = ?", "$event_id"},
    {"x = :$version", "x = ?", "$version"},
    {"x = :$occurred_at", "x = ?", "$occurred_at"},
    {"x = :$event_type", "x = ?", "$event_type"},
    {"x = :$metadata.tenant", "x = ?", "$metadata.tenant"},
    {"(:a)", "(?)", "a"},
    {"x = :$payload", "x = ?", "$payload"},
    {"x = :/a.b/$id~1,:c", "x = ?,?", "/a.b/$id~1 c"},
    {"x = :/a*2", "x = ?*2", "/a"},
    {"x = :/a - 2", "x = ? - 2", "/a"},
    {"x IN (:/a,:/b)", "x IN (?,?)", "/a /b"},
    {"x = :/a-b", NULL, UNCLEAR_RULE},
    {"x = :/a@b", NULL, UNCLEAR_RULE},
    {"x = :/a:b", NULL, UNCLEAR_RULE},
    {"x = :/a/*b*/", NULL, UNCLEAR_RULE},
    {"x = :a-b", "x = ?-b", "a"},
    {"x = :/", "x = ?", "/"},
    {"x = :a.", "x = ?.", "a"},
    {"x = :a_b1", "x = ?", "a_b1"},
    {"x = :gr\xc3\xb6\xc3\x9f"
     "e",
     "x = ?",
     "gr\xc3\xb6\xc3\x9f"
     "e"},

    /* quotes */
    {"x = ':a'", "x = ':a'", ""},
    {"x = \":a\"", "x = \":a\"", ""},
    {"x = `:a`", "x = `:a`", ""},
    {"x = 'it''s :a' AND y = :b", "x = 'it''s :a' AND y = ?", "b"},
    {"x = 'it\\'s :a' AND y = :b", "x = 'it\\'s :a' AND y = ?", "b"},
    {"x = '\\\\' AND y = :b", "x = '\\\\' AND y = ?", "b"},
    {"x = \"a\"\":b\" AND y = :c", "x = \"a\"\":b\" AND y = ?", "c"},
    {"x = `a``:b` AND y = :c", "x = `a``:b` AND y = ?", "c"},
    {"`a\\` = :b", "`a\\` = ?", "b"}, /* no escapes in names */
    {"x = '?' AND y = '; DROP'", "x = '?' AND y = '; DROP'", ""},
    {"x = '-- no comment' AND y = :b", "x = '-- no comment' AND y = ?", "b"},
    {"x = 'a\n:b'", "x = 'a\n:b'", ""},
    {"x = '", "x = '", ""},
    {"x = ':a", "x = ':a", ""},
    {"x = '\\", "x = '\\", ""},
    {"x = ''", "x = ''", ""},
    {"x = :a''", "x = ?''", "a"},
    {"x->'$.a:b' = :c", "x->'$.a:b' = ?", "c"},

    /* comments */
    {"x = :a -- :b ? ;\n AND y = :c", "x = ? -- :b ? ;\n AND y = ?", "a c"},
    {"x = :a --\t:b\n+ :c", "x = ? --\t:b\n+ ?", "a c"},
    {"x = :a # :b ? ;\n + :c", "x = ? # :b ? ;\n + ?", "a c"},
    {"x = :a /* :b ? ; ' */ + :c", "x = ? /* :b ? ; ' */ + ?", "a c"},
    {"x = :a /* :b", "x = ? /* :b", "a"},
    {"x = 5--:a", "x = 5--?", "a"}, /* minus minus: not a comment without the blank */
    {"x = 5 --\n:a", "x = 5 --\n?", "a"},
    {"x = :a --\r:b '\n+ :c", "x = ? --\r:b '\n+ ?", "a c"},
    {"x = :a --\x01:b '\n+ :c", "x = ? --\x01:b '\n+ ?", "a c"},
    {"x = :a --", "x = ? --", "a"},
    {"x = 6/:a", "x = 6/?", "a"},
    {"x = 6-:a", "x = 6-?", "a"},

    /* colons that are not parameters */
    {"SET @a := 5", "SET @a := 5", ""},
    {"SET @a:=:b", "SET @a:=?", "b"},
    {"SELECT x::int", "SELECT x::int", ""},
    {"SELECT x::int, :a", "SELECT x::int, ?", "a"},
    {"x = : a", "x = : a", ""},
    {"x :", "x :", ""},

    /* ends */
    {"DELETE FROM t;", "DELETE FROM t", ""},
    {"DELETE FROM t ; \n\t ", "DELETE FROM t", ""},
    {"  DELETE FROM t  ", "DELETE FROM t", ""},

    {"DELETE FROM t; DELETE FROM u", NULL, "one statement"},
    {"DELETE FROM t;;", NULL, "one statement"},
    {"DELETE FROM t; :a", NULL, "one statement"},
    {"DELETE FROM t; -- gone", NULL, "one statement"},
    {"DELETE FROM t; 'x'", NULL, "one statement"},
    {"x = ?", NULL, "named parameters like :amount instead of ?"},
    {"x = :a AND y = ?", NULL, "named parameters like :amount instead of ?"},
    {"", NULL, "a statement"},
    {" \n\t", NULL, "a statement"},
    {";", NULL, "a statement"},
    {"x = 1 /*! + :a */", NULL, EXECUTABLE_RULE},
    {"x = 1 /*!80000 + 1 */", NULL, EXECUTABLE_RULE},
    {"x = 1 /*M!100100 + 1 */", NULL, EXECUTABLE_RULE},
    {"x = '/*! quoted */'", "x = '/*! quoted */'", ""},
    {"x = :$password", NULL, PATH_RULE},
    {"x = :$metadata", NULL, PATH_RULE},
    {"x = :$metadata.", NULL, PATH_RULE},
    {"x = :a$b", NULL, PATH_RULE},
    {"x = :a..b", NULL, PATH_RULE},
    {"x = :.a", NULL, PATH_RULE},
    {"x = :$", NULL, PATH_RULE},
};

static char *parameter_texts(const Rule *rule) {
  GString *text = g_string_new("");
  for (unsigned i = 0; i < rule->parameter_count; i++)
    g_string_append_printf(text, "%s%s", i ? " " : "", rule->parameters[i].from.text);
  return g_string_free(text, FALSE);
}

static void test_statements(void **state) {
  (void)state;
  const Projection projection = {.table = "t"};
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(statement_cases); i++) {
    const char *text = statement_cases[i].text, *wrong = "nothing";
    Rule rule = {.projection = &projection};
    bool good = statement_parse(text, arena, &rule, &wrong);
    check_text(text, rule.statement, statement_cases[i].statement);
    if (good) {
      g_autofree char *parameters = parameter_texts(&rule);
      check_text(text, parameters, statement_cases[i].parameters);
    } else {
      check_text(text, wrong, statement_cases[i].parameters);
    }
    g_free(rule.parameters);
  }
}

static void test_parameters_take_their_columns(void **state) {
  (void)state;
  Column columns[] = {{.name = "id", .from = {.text = "$aggregate_id"}},
                      {.name = "balance", .from = {.text = "amount"}}};
  const Projection projection = {.table = "t", .column_count = 2, .columns = columns};
  g_autoptr(Arena) arena = arena_new();
  Rule rule = {.projection = &projection};
  const char *wrong;
  check_that("statement",
             statement_parse(":amount :$aggregate_id :balance :aggregate_id", arena, &rule, &wrong),
             "it is read");
  static const int expected[] = {1, 0, -1, -1};
  for (size_t i = 0; i < COUNT_OF(expected); i++)
    check_number(rule.parameters[i].from.text, rule.parameters[i].column, expected[i]);
  g_free(rule.parameters);
}

static const struct {
  const char *text;
  bool own_row;
} row_cases[] = {
    {"UPDATE t SET a = 1 WHERE id = :$aggregate_id AND part = :p", true},
    {"update `t` set `a` = t.a + 1, b = CONCAT(b, ' x') where part=:p and t.id=:$aggregate_id;",
     true},
    {"UPDATE t SET a = IF(b IS NULL, -1, (a + :x) * 2), b = :$aggregate_id"
     " WHERE id = :$aggregate_id AND part = :p",
     true},
    {"UPDATE t SET unmapped = unmapped + 1 WHERE id = :$aggregate_id AND part = :p", true},
    {"UPDATE t SET a = b->>'$.x' /* (SELECT 1) */ WHERE id = :$aggregate_id AND part = :p", true},
    /* more than the row, or another */
    {"UPDATE t SET a = 1", false},
    {"UPDATE t SET a = 1 WHERE id = :$aggregate_id", false},
    {"UPDATE t SET a = 1 WHERE id = :$aggregate_id OR part = :p", false},
    {"UPDATE t SET a = 1 WHERE id = :$aggregate_id AND part = :p OR a = 1", false},
    {"UPDATE t SET a = 1 WHERE id = :$aggregate_id AND id = :$aggregate_id", false},
    {"UPDATE t SET a = 1 WHERE id = :other AND part = :p", false},
    {"UPDATE t SET a = 1 WHERE id = :p AND part = :$aggregate_id", false},
    {"UPDATE t SET a = 1 WHERE id <> :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = 1 WHERE id = 'x' AND part = :p", false},
    {"UPDATE u SET a = 1 WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t, u SET a = 1 WHERE id = :$aggregate_id AND part = :p", false},
    {"DELETE FROM t WHERE id = :$aggregate_id AND part = :p", false},
    {"WITH x AS (SELECT 1) UPDATE t SET a = 1 WHERE id = :$aggregate_id AND part = :p", false},
    /* another key */
    {"UPDATE t SET id = 'x' WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = 1, `PART` = 2 WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET t.id = 'x' WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET T.id = 'x' WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET bank.t.id = 'x' WHERE id = :$aggregate_id AND part = :p", false},
    /* what it takes is not only the row's */
    {"UPDATE t SET a = (SELECT MAX(a) FROM t) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = (TABLE u) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = (VALUES ROW(1)) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = 2nd_of(b) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = sum_of(b) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = `CONCAT`(b) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = b(1) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = LAST_INSERT_ID() WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = NEXT VALUE FOR s WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = @x WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = (@x := 1) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = unmapped WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = u.b WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET a = 1) WHERE id = :$aggregate_id AND part = :p", false},
    {"UPDATE t SET WHERE id = :$aggregate_id AND part = :p", false},
};

static void test_what_touches_only_its_own_row(void **state) {
  (void)state;
  Column columns[] = {{.name = "id", .from = {.text = "$aggregate_id"}},
                      {.name = "part", .from = {.text = "p"}},
                      {.name = "a", .from = {.text = "a"}},
                      {.name = "b", .from = {.text = "b"}}};
  const Projection projection = {
      .table = "t", .key_count = 2, .column_count = COUNT_OF(columns), .columns = columns};
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(row_cases); i++) {
    const char *text = row_cases[i].text, *wrong = "nothing";
    Rule rule = {.projection = &projection};
    check_that(text, statement_parse(text, arena, &rule, &wrong), wrong);
    check_number(text, rule.key_parameters != NULL, row_cases[i].own_row);
    for (unsigned k = 0; rule.key_parameters && k < projection.key_count; k++)
      check_number(text, rule.parameters[rule.key_parameters[k]].column, k);
    g_free(rule.parameters);
  }
}

static void test_too_many_parameters(void **state) {
  (void)state;
  const Projection projection = {.table = "t"};
  g_autoptr(Arena) arena = arena_new();
  g_autoptr(GString) text = g_string_new("x");
  for (int i = 0; i < 65535; i++)
    g_string_append(text, " :a");
  Rule rule = {.projection = &projection};
  const char *wrong;
  check_that("65535", statement_parse(text->str, arena, &rule, &wrong), "they are taken");
  check_number("65535", rule.parameter_count, 65535);
  g_free(rule.parameters);
  rule = (Rule){.projection = &projection};
  g_string_append(text, " :a");
  check_that("65536", !statement_parse(text->str, arena, &rule, &wrong), "they are refused");
}

/* --- what a statement does ------------------------------------------------------------------- */

static const struct {
  const char *text;
  bool changes_rows;
} verb_cases[] = {
    {"INSERT INTO t VALUES (1)", true},
    {"insert into t select * from u", true},
    {"UPDATE t SET a = 1", true},
    {"Delete From t", true},
    {"REPLACE t SET a = 1", true},
    {"\n\t /* SET */ -- COMMIT\n# CALL\n UPDATE t SET a = 1", true},
    {"WITH c AS (SELECT 1) UPDATE t SET a = 1", true},
    {"WITH RECURSIVE c (n) AS (SELECT 1 UNION SELECT n + 1 FROM c), d AS (SELECT 2) DELETE FROM t",
     true},
    {"WITH `delete` AS (SELECT 1) DELETE FROM t", true},
    {"UPDATE(t) SET a = 1", true},
    {"WITH c AS (SELECT 1) SELECT 1", false},
    {"WITH c AS (DELETE FROM t) SELECT 1", false},
    {"WITH `update` AS (SELECT 1) TABLE c", false},
    {"WITH c) AS (SELECT 1) DELETE FROM t", false},
    {"WITH", false},
    {"", false},
    {"-- UPDATE", false},
    {"/*! COMMIT */", false},
    {"'UPDATE' t", false},
    {"UPDATED t", false},
    {"SELECT 1", false},
    {"SELECT * FROM t FOR UPDATE", false},
    {"TRUNCATE t", false},
    {"TRUNCATE TABLE t", false},
    {"COMMIT", false},
    {"ROLLBACK", false},
    {"START TRANSACTION", false},
    {"BEGIN", false},
    {"CALL p()", false},
    {"DO SLEEP(1)", false},
    {"SET @a := 1", false},
    {"SET SESSION sql_mode = ''", false},
    {"CREATE TABLE u AS SELECT 1", false},
    {"ALTER TABLE t ADD a INT", false},
    {"DROP TABLE t", false},
    {"RENAME TABLE t TO u", false},
    {"LOCK TABLES t WRITE", false},
    {"LOAD DATA INFILE 'x' INTO TABLE t", false},
    {"EXPLAIN DELETE FROM t", false},
    {"GRANT DELETE ON t TO u", false},
    {"(DELETE FROM t)", false},
    {"(COMMIT) DELETE FROM t", false},
    {": DELETE FROM t", false},
    {"`x` DELETE FROM t", false},
    {"XA COMMIT 'x'", false},
    {"EXECUTE s", false},
    {"HANDLER t OPEN", false},
};

static void test_only_changes_of_rows(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(verb_cases); i++)
    check_number(verb_cases[i].text, statement_changes_rows(verb_cases[i].text),
                 verb_cases[i].changes_rows);
}

/* --- sources --------------------------------------------------------------------------------- */

static const struct {
  const char *text;
  bool good, in_payload, dotted;
  const char *path;
} source_cases[] = {
    {"amount", true, true, false, "amount"},
    {"a.b", true, true, true, "a.b"},
    {"a.0.b", true, true, true, "a.0.b"},
    {"with blank", true, true, false, "with blank"},
    {"\xc3\xa4", true, true, false, "\xc3\xa4"},
    {"_id", true, true, false, "_id"}, /* the payload's */
    {"$event_id", true, false, false, "_id"},
    {"$aggregate_id", true, false, false, "aggregate_id"},
    {"$version", true, false, false, "version"},
    {"$occurred_at", true, false, false, "occurred_at"},
    {"$event_type", true, false, false, "event_type"},
    {"$metadata.x", true, false, true, "metadata.x"},
    {"$metadata.x.y", true, false, true, "metadata.x.y"},
    {"", false},
    {".", false},
    {"a.", false},
    {".a", false},
    {"a..b", false},
    {"$", false},
    {"$payload", true, true, false, "payload"},
    {"$payload.x", false},
    {"/", true, true, false, NULL},
    {"/a.b/$c/0", true, true, false, NULL},
    {"/a~0b/~1", true, true, false, NULL},
    {"/a~", false},
    {"/a~2", false},
    {"$aggregate_type", false},
    {"$metadata", false},
    {"$metadata.", false},
    {"$metadata..x", false},
    {"$metadata.$x", false},
    {"$metadatax", false},
    {"$Event_id", false},
    {"$event_id.x", false},
    {"a.$b", false},
    {"a$", false},
};

static void test_sources(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < COUNT_OF(source_cases); i++) {
    const char *text = source_cases[i].text;
    g_autofree char *exact = g_memdup2(text, strlen(text) + 1);
    Source source = {0};
    check_number(text, source_parse(exact, strlen(text), arena, &source), source_cases[i].good);
    check_text(text, source.path, source_cases[i].path);
    if (!source_cases[i].good)
      continue;
    check_text(text, source.text, text);
    check_number(text, source.in_payload, source_cases[i].in_payload);
    check_number(text, source.dotted, source_cases[i].dotted);
  }
}

static void test_source_with_nul(void **state) {
  (void)state;
  g_autoptr(Arena) arena = arena_new();
  Source source;
  check_that("NUL", !source_parse("a\0b", 3, arena, &source), "it is refused");
  check_that("NUL", !source_parse("$version\0b", 10, arena, &source), "it is refused");
  check_that("NUL", !source_parse("$metadata.a\0b", 13, arena, &source), "it is refused");
}

static const struct {
  const char *text, *other; /* NULL: refused */
} retarget_cases[] = {
    {"UPDATE account SET name = CONCAT(name, ' account') WHERE id = :$aggregate_id",
     "UPDATE account__new SET name = CONCAT(name, ' account') WHERE id = :$aggregate_id"},
    {"update `account` a set a.n = :account WHERE `account`.id = 1 -- account\n",
     "update `account__new` a set a.n = :account WHERE `account__new`.id = 1 -- account\n"},
    {"UPDATE account AS a SET n = 1", "UPDATE account__new AS a SET n = 1"},
    {"/* account */ INSERT INTO account(id) VALUES (:account.id)",
     "/* account */ INSERT INTO account__new(id) VALUES (:account.id)"},
    {"INSERT INTO account (id) SELECT account.id FROM accounts",
     "INSERT INTO account__new (id) SELECT account__new.id FROM accounts"},
    {"REPLACE account VALUES (1)", "REPLACE account__new VALUES (1)"},
    {"DELETE FROM account WHERE id = 1", "DELETE FROM account__new WHERE id = 1"},
    {"DELETE FROM account", "DELETE FROM account__new"},
    {"UPDATE accounts SET n = 1", NULL},
    {"UPDATE other SET n = (SELECT MAX(n) FROM account)", NULL},
    {"UPDATE account, other SET other.n = 1", NULL},
    {"UPDATE account JOIN other USING (id) SET other.n = 1", NULL},
    {"UPDATE account a JOIN other USING (id) SET other.n = 1", NULL},
    {"UPDATE db.account SET n = 1", NULL},
    {"UPDATE account SET n = db.account.n", NULL},
    {"UPDATE account SET n = `db`.`account`.n", NULL},
    {"INSERT INTO audit SELECT * FROM account", NULL},
    {"INSERT IGNORE INTO account VALUES (1)", NULL},
    {"DELETE account FROM account JOIN other", NULL},
    {"DELETE FROM account USING account JOIN other", NULL},
    {"WITH x AS (SELECT 1) UPDATE account SET n = 1", NULL},
    {"UPDATE", NULL},
    {"", NULL},
};

static void test_another_table(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(retarget_cases); i++) {
    g_autofree char *other = statement_retarget(retarget_cases[i].text, "account", "account__new");
    check_text(retarget_cases[i].text, other, retarget_cases[i].other);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_statements),
      cmocka_unit_test(test_parameters_take_their_columns),
      cmocka_unit_test(test_what_touches_only_its_own_row),
      cmocka_unit_test(test_too_many_parameters),
      cmocka_unit_test(test_only_changes_of_rows),
      cmocka_unit_test(test_sources),
      cmocka_unit_test(test_source_with_nul),
      cmocka_unit_test(test_another_table),
  };
  return RUN_TESTS(tests);
}

/* test_types.c - reading the column types of the mapping file. */
#include "projector/domain/mapping.h"
#include "tests/unit/support.h"

#define REFUSED ((TypeKind)-1)

static const struct {
  const char *text;
  TypeKind kind;
  bool is_unsigned;
  unsigned length, scale;
} type_cases[] = {
    {"boolean", TYPE_BOOLEAN, false, 0, 0},
    {"tinyint", TYPE_TINYINT, false, 0, 0},
    {"smallint", TYPE_SMALLINT, false, 0, 0},
    {"mediumint", TYPE_MEDIUMINT, false, 0, 0},
    {"int", TYPE_INT, false, 0, 0},
    {"bigint", TYPE_BIGINT, false, 0, 0},
    {"tinyint unsigned", TYPE_TINYINT, true, 0, 0},
    {"smallint unsigned", TYPE_SMALLINT, true, 0, 0},
    {"mediumint unsigned", TYPE_MEDIUMINT, true, 0, 0},
    {"int unsigned", TYPE_INT, true, 0, 0},
    {"bigint unsigned", TYPE_BIGINT, true, 0, 0},
    {"double", TYPE_DOUBLE, false, 0, 0},
    {"decimal(18,2)", TYPE_DECIMAL, false, 18, 2},
    {"decimal(1,0)", TYPE_DECIMAL, false, 1, 0},
    {"decimal(1,1)", TYPE_DECIMAL, false, 1, 1},
    {"decimal(65,30)", TYPE_DECIMAL, false, 65, 30},
    {"decimal(65,0)", TYPE_DECIMAL, false, 65, 0},
    {"char(1)", TYPE_CHAR, false, 1, 0},
    {"char(255)", TYPE_CHAR, false, 255, 0},
    {"varchar(36)", TYPE_VARCHAR, false, 36, 0},
    {"varchar(16383)", TYPE_VARCHAR, false, 16383, 0},
    {"tinytext", TYPE_TINYTEXT, false, 255, 0},
    {"text", TYPE_TEXT, false, 65535, 0},
    {"mediumtext", TYPE_MEDIUMTEXT, false, 16777215, 0},
    {"longtext", TYPE_LONGTEXT, false, 4294967295U, 0},
    {"binary(16)", TYPE_BINARY, false, 16, 0},
    {"binary(255)", TYPE_BINARY, false, 255, 0},
    {"varbinary(1)", TYPE_VARBINARY, false, 1, 0},
    {"varbinary(65535)", TYPE_VARBINARY, false, 65535, 0},
    {"tinyblob", TYPE_TINYBLOB, false, 255, 0},
    {"blob", TYPE_BLOB, false, 65535, 0},
    {"mediumblob", TYPE_MEDIUMBLOB, false, 16777215, 0},
    {"longblob", TYPE_LONGBLOB, false, 4294967295U, 0},
    {"date", TYPE_DATE, false, 0, 0},
    {"datetime", TYPE_DATETIME, false, 0, 0},
    {"datetime(0)", TYPE_DATETIME, false, 0, 0},
    {"datetime(3)", TYPE_DATETIME, false, 3, 0},
    {"datetime(6)", TYPE_DATETIME, false, 6, 0},
    {"timestamp", TYPE_TIMESTAMP, false, 0, 0},
    {"timestamp(6)", TYPE_TIMESTAMP, false, 6, 0},
    {"json", TYPE_JSON, false, 0, 0},
    {"uuid", TYPE_UUID, false, 16, 0},
    {"", REFUSED},
    {" ", REFUSED},
    {"(", REFUSED},
    {"number", REFUSED},
    {"integer", REFUSED},
    {"INT", REFUSED},
    {"int ", REFUSED},
    {" int", REFUSED},
    {"int(11)", REFUSED},
    {"int  unsigned", REFUSED},
    {"int unsigned ", REFUSED},
    {"int signed", REFUSED},
    {"double unsigned", REFUSED},
    {"decimal(18,2) unsigned", REFUSED},
    {"boolean unsigned", REFUSED},
    {"decimal", REFUSED},
    {"decimal(18)", REFUSED},
    {"decimal(18,)", REFUSED},
    {"decimal(,2)", REFUSED},
    {"decimal(0,0)", REFUSED},
    {"decimal(66,0)", REFUSED},
    {"decimal(65,31)", REFUSED},
    {"decimal(2,3)", REFUSED},
    {"decimal(18,-2)", REFUSED},
    {"decimal(18, 2)", REFUSED},
    {"decimal(18,2", REFUSED},
    {"decimal(18,2))", REFUSED},
    {"char", REFUSED},
    {"char(0)", REFUSED},
    {"char(256)", REFUSED},
    {"char(-1)", REFUSED},
    {"char(+1)", REFUSED},
    {"char( 1)", REFUSED},
    {"varchar", REFUSED},
    {"varchar(10", REFUSED},
    {"decimal", REFUSED},
    {"decimal(5,2", REFUSED},
    {"decimal(5,2)x", REFUSED},
    {"time(3", REFUSED},
    {"time(3)x", REFUSED},
    {"enum", REFUSED},
    {"enum(", REFUSED},
    {"enum('a", REFUSED},
    {"enum('a'", REFUSED},
    {"enum('a')x", REFUSED},
    {"varchar()", REFUSED},
    {"varchar(x)", REFUSED},
    {"varchar(16384)", REFUSED},
    {"varchar(4294967297)", REFUSED},
    {"varchar(99999999999999999999999)", REFUSED},
    {"varchar(10) binary", REFUSED},
    {"text(10)", REFUSED},
    {"binary", REFUSED},
    {"binary(0)", REFUSED},
    {"binary(256)", REFUSED},
    {"varbinary(65536)", REFUSED},
    {"date(3)", REFUSED},
    {"datetime(7)", REFUSED},
    {"datetime()", REFUSED},
    {"datetime(3", REFUSED},
    {"timestamp(7)", REFUSED},
    {"json(1)", REFUSED},
    {"uuid(16)", REFUSED},
    {"bigint; DROP TABLE x", REFUSED},
};

static void test_types(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(type_cases); i++) {
    const char *text = type_cases[i].text;
    ColumnType type = {.kind = REFUSED};
    bool good = column_type_parse(text, &type);
    check_number(text, good, type_cases[i].kind != REFUSED);
    check_number(text, type.kind, type_cases[i].kind);
    if (!good)
      continue;
    check_number(text, type.is_unsigned, type_cases[i].is_unsigned);
    check_number(text, type.length, type_cases[i].length);
    check_number(text, type.scale, type_cases[i].scale);
    check_text(text, type.text, text);
  }
}

static const struct {
  TypeKind kind;
  bool integer, numeric, text;
} family_cases[] = {
    {TYPE_BOOLEAN, false, false, false}, {TYPE_TINYINT, true, true, false},
    {TYPE_BIGINT, true, true, false},    {TYPE_DOUBLE, false, true, false},
    {TYPE_DECIMAL, false, true, false},  {TYPE_CHAR, false, false, true},
    {TYPE_VARCHAR, false, false, true},  {TYPE_LONGTEXT, false, false, true},
    {TYPE_BINARY, false, false, false},  {TYPE_JSON, false, false, false},
    {TYPE_UUID, false, false, false},    {TYPE_DATE, false, false, false},
};

static void test_families(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(family_cases); i++) {
    check_number("integer", type_is_integer(family_cases[i].kind), family_cases[i].integer);
    check_number("numeric", type_is_numeric(family_cases[i].kind), family_cases[i].numeric);
    check_number("text", type_is_text(family_cases[i].kind), family_cases[i].text);
  }
}

static void test_operation_names(void **state) {
  (void)state;
  static const char *const names[] = {"upsert", "update", "add",   "subtract",
                                      "delete", "sql",    "ignore"};
  for (size_t i = 0; i < COUNT_OF(names); i++)
    check_text("operation", operation_name((Operation)i), names[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_types),
      cmocka_unit_test(test_families),
      cmocka_unit_test(test_operation_names),
  };
  return RUN_TESTS(tests);
}

/* test_failure.c - failure classes, messages and backoff. */
#include "projector/domain/failure.h"
#include "tests/unit/support.h"

#include <string.h>

typedef struct ClassCase {
  int code;
  FailureClass class;
} ClassCase;

static const ClassCase mysql_cases[] = {
    {2002, FAILURE_UNAVAILABLE}, {2003, FAILURE_UNAVAILABLE}, {2006, FAILURE_UNAVAILABLE},
    {2013, FAILURE_UNAVAILABLE}, {2055, FAILURE_UNAVAILABLE}, {1040, FAILURE_UNAVAILABLE},
    {1053, FAILURE_UNAVAILABLE}, {1158, FAILURE_UNAVAILABLE}, {1159, FAILURE_UNAVAILABLE},
    {1160, FAILURE_UNAVAILABLE}, {1161, FAILURE_UNAVAILABLE}, {1203, FAILURE_UNAVAILABLE},
    {1129, FAILURE_UNAVAILABLE}, {2026, FAILURE_UNAVAILABLE}, {3955, FAILURE_UNAVAILABLE},
    {1226, FAILURE_UNAVAILABLE}, {3168, FAILURE_UNAVAILABLE}, {4031, FAILURE_UNAVAILABLE},
    {1290, FAILURE_UNAVAILABLE}, {1792, FAILURE_UNAVAILABLE}, {1836, FAILURE_UNAVAILABLE},
    {1205, FAILURE_CONFLICT},    {1213, FAILURE_CONFLICT},    {1020, FAILURE_CONFLICT},
    {1206, FAILURE_CONFLICT},    {1180, FAILURE_CONFLICT},    {1317, FAILURE_CONFLICT},
    {3024, FAILURE_CONFLICT},    {1048, FAILURE_DATA},        {1062, FAILURE_DATA},
    {1526, FAILURE_DATA},        {1264, FAILURE_DATA},        {1265, FAILURE_DATA},
    {1292, FAILURE_DATA},        {1364, FAILURE_DATA},        {1366, FAILURE_DATA},
    {1406, FAILURE_DATA},        {1451, FAILURE_DATA},        {1452, FAILURE_DATA},
    {1690, FAILURE_DATA},        {3140, FAILURE_DATA},        {3157, FAILURE_DATA},
    {3819, FAILURE_DATA},        {3854, FAILURE_DATA},        {3988, FAILURE_DATA},
    {4025, FAILURE_DATA},        {1054, FAILURE_MAPPING},     {1064, FAILURE_MAPPING},
    {1136, FAILURE_MAPPING},     {1146, FAILURE_MAPPING},     {1044, FAILURE_CONFIG},
    {1045, FAILURE_CONFIG},      {1049, FAILURE_CONFIG},      {1142, FAILURE_CONFIG},
    {1227, FAILURE_CONFIG},      {1130, FAILURE_CONFIG},      {1251, FAILURE_CONFIG},
    {1524, FAILURE_CONFIG},      {1698, FAILURE_CONFIG},      {1820, FAILURE_CONFIG},
    {1862, FAILURE_CONFIG},      {2059, FAILURE_CONFIG},      {2061, FAILURE_CONFIG},
    {3118, FAILURE_CONFIG},      {3159, FAILURE_CONFIG},      {4151, FAILURE_CONFIG},
    {1021, FAILURE_SPACE},       {1114, FAILURE_SPACE},       {1153, FAILURE_SIZE},
    {2020, FAILURE_SIZE},        {1390, FAILURE_SIZE},        {1197, FAILURE_SIZE},
    {1301, FAILURE_SIZE},        {1157, FAILURE_UNKNOWN},     {1162, FAILURE_UNKNOWN},
    {3139, FAILURE_UNKNOWN},     {3158, FAILURE_UNKNOWN},     {0, FAILURE_UNKNOWN},
    {-1, FAILURE_UNKNOWN},       {99999, FAILURE_UNKNOWN},    {1037, FAILURE_UNAVAILABLE},
    {1041, FAILURE_UNAVAILABLE}, {1135, FAILURE_UNAVAILABLE}, {1461, FAILURE_UNAVAILABLE},
    {1637, FAILURE_UNAVAILABLE}, {3015, FAILURE_UNAVAILABLE}, {3985, FAILURE_UNAVAILABLE},
    {4081, FAILURE_UNAVAILABLE}, {1615, FAILURE_CONFLICT},    {1878, FAILURE_SPACE},
    {3019, FAILURE_SPACE},       {4082, FAILURE_UNKNOWN},     {1036, FAILURE_MAPPING},
    {1449, FAILURE_MAPPING},     {1812, FAILURE_MAPPING},     {1932, FAILURE_MAPPING},
    {1059, FAILURE_MAPPING},     {1060, FAILURE_MAPPING},     {1061, FAILURE_UNKNOWN},
    {1066, FAILURE_UNKNOWN},     {1067, FAILURE_MAPPING},     {1071, FAILURE_MAPPING},
    {1074, FAILURE_MAPPING},     {1075, FAILURE_MAPPING},     {1076, FAILURE_UNKNOWN},
    {1097, FAILURE_MAPPING},     {1101, FAILURE_MAPPING},     {1117, FAILURE_MAPPING},
    {1118, FAILURE_MAPPING},     {1119, FAILURE_UNKNOWN},     {1170, FAILURE_MAPPING},
    {1291, FAILURE_MAPPING},     {1293, FAILURE_MAPPING},     {1426, FAILURE_MAPPING},
    {1439, FAILURE_MAPPING},
};

static void test_mysql_classes(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(mysql_cases); i++) {
    g_autofree char *name = g_strdup_printf("MySQL %d", mysql_cases[i].code);
    check_text(name, failure_class_name(failure_class_of_mysql(mysql_cases[i].code)),
               failure_class_name(mysql_cases[i].class));
  }
}

static const ClassCase mongodb_cases[] = {
    {6, FAILURE_UNAVAILABLE},     {7, FAILURE_UNAVAILABLE},     {89, FAILURE_UNAVAILABLE},
    {91, FAILURE_UNAVAILABLE},    {189, FAILURE_UNAVAILABLE},   {9001, FAILURE_UNAVAILABLE},
    {10107, FAILURE_UNAVAILABLE}, {11600, FAILURE_UNAVAILABLE}, {11602, FAILURE_UNAVAILABLE},
    {13435, FAILURE_UNAVAILABLE}, {13436, FAILURE_UNAVAILABLE}, {112, FAILURE_CONFLICT},
    {43, FAILURE_HISTORY},        {260, FAILURE_HISTORY},       {280, FAILURE_HISTORY},
    {286, FAILURE_HISTORY},       {10334, FAILURE_HISTORY},     {13, FAILURE_CONFIG},
    {73, FAILURE_CONFIG},         {18, FAILURE_CONFIG},         {40573, FAILURE_CONFIG},
    {121, FAILURE_DATA},          {14031, FAILURE_SPACE},       {1, FAILURE_UNKNOWN},
    {0, FAILURE_UNKNOWN},         {11603, FAILURE_UNKNOWN},     {287, FAILURE_UNKNOWN},
};

static void test_mongodb_classes(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(mongodb_cases); i++) {
    g_autofree char *name = g_strdup_printf("MongoDB %d", mongodb_cases[i].code);
    check_text(name, failure_class_name(failure_class_of_mongodb(mongodb_cases[i].code)),
               failure_class_name(mongodb_cases[i].class));
  }
}

static void test_atlas_tells_by_text(void **state) {
  (void)state;
  static const char full[] = "you are over your space quota, using 512 MB of 512 MB",
                    denied[] = "user is not allowed to do action [insert] on [bank.outbox]";
  check_text("full", failure_class_name(failure_class_of_mongodb_text(8000, full)), "space");
  check_text("denied", failure_class_name(failure_class_of_mongodb_text(8000, denied)), "config");
  check_text("another", failure_class_name(failure_class_of_mongodb_text(13, full)), "config");
}

static void test_class_names(void **state) {
  (void)state;
  static const char *const names[] = {"none",    "unavailable", "conflict", "data",
                                      "mapping", "config",      "space",    "size",
                                      "fenced",  "history",     "unknown"};
  for (size_t i = 0; i < COUNT_OF(names); i++)
    check_text(names[i], failure_class_name((FailureClass)i), names[i]);
}

static const struct {
  const char *name;
  int attempts;
  int64_t base_ms, max_ms;
  uint32_t random;
  int64_t delay_ms;
} backoff_cases[] = {
    {"no attempt yet", 0, 1000, 300000, UINT32_MAX, 1000},
    {"first attempt, longest", 1, 1000, 300000, UINT32_MAX, 1000},
    {"first attempt, shortest", 1, 1000, 300000, 0, 1},
    {"first attempt, half", 1, 1000, 300000, UINT32_C(1) << 31, 501},
    {"second attempt doubles", 2, 1000, 300000, UINT32_MAX, 2000},
    {"fifth attempt", 5, 1000, 300000, UINT32_MAX, 16000},
    {"ninth attempt", 9, 1000, 300000, UINT32_MAX, 256000},
    {"tenth attempt meets the limit", 10, 1000, 300000, UINT32_MAX, 300000},
    {"many attempts stay there", 1000000000, 1000, 300000, UINT32_MAX, 300000},
    {"the limit's shortest", 20, 1000, 300000, 0, 1},
    {"the limit's half", 20, 1000, 300000, UINT32_C(1) << 31, 150001},
    {"base above the limit", 1, 5000, 300, UINT32_MAX, 300},
    {"no base", 7, 0, 300000, UINT32_MAX, 1},
    {"a negative base", 7, -5, 300000, UINT32_MAX, 1},
    {"negative attempts", -3, 1000, 300000, UINT32_MAX, 1000},
    {"a limit of 1", 4, 1000, 1, UINT32_MAX, 1},
};

static void test_backoff(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(backoff_cases); i++)
    check_number(backoff_cases[i].name,
                 backoff_delay_ms(backoff_cases[i].attempts, backoff_cases[i].base_ms,
                                  backoff_cases[i].max_ms, backoff_cases[i].random),
                 backoff_cases[i].delay_ms);
}

static void test_backoff_grows_with_random(void **state) {
  (void)state;
  int64_t before = 0;
  for (uint32_t random = 0; random < UINT32_MAX - (1U << 24); random += 1U << 24) {
    int64_t delay = backoff_delay_ms(4, 1000, 300000, random);
    check_that("backoff", delay > before && delay <= 8000, "more random bits wait longer");
    before = delay;
  }
}

static void test_messages(void **state) {
  (void)state;
  Failure failure;
  check_that("set", !failure_set(&failure, FAILURE_DATA, SOURCE_MYSQL, 1264, "%s %d", "row", 7),
             "it returns false");
  check_number("class", failure.class, FAILURE_DATA);
  check_number("source", failure.source, SOURCE_MYSQL);
  check_number("code", failure.code, 1264);
  check_text("message", failure.message, "row 7");
  check_that("prefix", !failure_prefix(&failure, "table %s", "account"), "it returns false");
  check_text("prefixed", failure.message, "table account: row 7");
  check_number("class after prefix", failure.class, FAILURE_DATA);
  check_that("nowhere", !failure_set(NULL, FAILURE_DATA, SOURCE_MYSQL, 0, "x"), "NULL is allowed");
  check_that("nowhere", !failure_prefix(NULL, "x"), "NULL is allowed");
}

static void test_long_messages_are_cut(void **state) {
  (void)state;
  Failure failure;
  g_autofree char *text = g_strnfill(2 * sizeof failure.message, 'x');
  failure_set(&failure, FAILURE_DATA, SOURCE_EVENT, 0, "%s", text);
  check_number("set", (int64_t)strlen(failure.message), sizeof failure.message - 1);
  failure_prefix(&failure, "a");
  check_number("prefix", (int64_t)strlen(failure.message), sizeof failure.message - 1);
  check_that("prefix", g_str_has_prefix(failure.message, "a: xxx"), "the context comes first");
  failure_prefix(&failure, "%s", text);
  check_number("long prefix", (int64_t)strlen(failure.message), sizeof failure.message - 1);
}

/* The message becomes a string in MongoDB, so it must be UTF-8 wherever it is cut. */
static void test_cut_messages_stay_utf8(void **state) {
  (void)state;
  for (size_t shift = 0; shift < 4; shift++) {
    g_autoptr(GString) text = g_string_new(NULL);
    for (size_t i = 0; i < shift; i++)
      g_string_append_c(text, 'x');
    for (size_t i = 0; i < 200; i++)
      g_string_append(text, "\xf0\x9f\x92\xb6");
    Failure failure;
    failure_set(&failure, FAILURE_DATA, SOURCE_EVENT, 0, "%s", text->str);
    check_that("set", g_utf8_validate(failure.message, -1, NULL), "the cut message is UTF-8");
    failure_prefix(&failure, "y");
    check_that("prefix", g_utf8_validate(failure.message, -1, NULL), "the cut message is UTF-8");
    failure_prefix(&failure, "%s", text->str);
    check_that("context", g_utf8_validate(failure.message, -1, NULL), "the cut message is UTF-8");
  }
}

static void test_a_part_of_a_text_stays_utf8(void **state) {
  (void)state;
  Failure failure;
  failure_set(&failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "found \"%.4s\", no name",
              "x\u00e9\u00e9");
  check_text("cut in a quote", failure.message, "found \"x\u00e9\", no name");
  failure_set(&failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
              "\xff"
              "a\xc3");
  check_text("no characters", failure.message, "a");
}

/* What the log shows of a message of MySQL or MariaDB. */
static const struct {
  int code;
  const char *message, *told;
} told_cases[] = {
    {1062, "Duplicate entry 'Ada' for key 'account.by_name'",
     "Duplicate entry … for key 'account.by_name'"},
    {1062, "Duplicate entry 'O'Hara' for key 'x' for key 'account.by_name'",
     "Duplicate entry … for key 'account.by_name'"},
    {1366, "Incorrect decimal value: 'secret' for column 'balance' at row 1",
     "Incorrect decimal value: … for column 'balance' at row 1"},
    {1292, "Incorrect datetime value: 'secret' for column `b`.`t`.`c` at row 1",
     "Incorrect datetime value: … for column `b`.`t`.`c` at row 1"},
    {1292, "Truncated incorrect DOUBLE value: ''", "Truncated incorrect DOUBLE value: …"},
    {1690, "DECIMAL value is out of range in '(`b`.`t`.`balance` + 5.00)'",
     "DECIMAL value is out of range in …"},
    {1411, "Incorrect datetime value: 'secret' for function str_to_date",
     "Incorrect datetime value: … for function str_to_date"},
    {1064, "You have an error near 'x = 'secret'' at line 1", "You have an error near … at line 1"},
    {1366, "Incorrect string value: 'sec", "Incorrect string value: …"},
    {9999, "Something about \"secret\" here", "Something about … here"},
    {1644, "a trigger's own 'words'", "a trigger…"},
    {1406, "Data too long for column 'name' at row 1", "Data too long for column 'name' at row 1"},
    {1048, "Column 'name' cannot be null", "Column 'name' cannot be null"},
    {1054, "Unknown column 'x' in 'field list'", "Unknown column 'x' in 'field list'"},
    {1146, "Table 'b.t' doesn't exist", "Table 'b.t' doesn't exist"},
    {1136, "Column count doesn't match value count at row 1",
     "Column count doesn't match value count at row 1"},
    {2003, "Can't connect to MySQL server on 'db1:3306' (111)",
     "Can't connect to MySQL server on 'db1:3306' (111)"},
    {1045, "Access denied for user 'u'@'h' (using password: YES)",
     "Access denied for user 'u'@'h' (using password: YES)"},
    {3118, "Access denied for user 'u'@'h'. Account is locked.",
     "Access denied for user 'u'@'h'. Account is locked."},
    {3819, "Check constraint 'positive' is violated.", "Check constraint 'positive' is violated."},
    {0, "the user's own 'message'", "the user's own 'message'"},
};

static void test_values_are_not_told(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(told_cases); i++) {
    Failure failure;
    failure_set(&failure, FAILURE_DATA, SOURCE_MYSQL, told_cases[i].code, "%s",
                told_cases[i].message);
    Failure told = failure_without_values(&failure);
    check_text(told_cases[i].message, told.message, told_cases[i].told);
    check_text(told_cases[i].message, failure.message, told_cases[i].message);
    check_number(told_cases[i].message, told.code, told_cases[i].code);
    failure.source = SOURCE_EVENT;
    told = failure_without_values(&failure);
    check_text("an event's own", told.message, told_cases[i].message);
  }
}

static void test_the_values_of_a_key_in_mongodb_are_not_told(void **state) {
  (void)state;
  Failure failure;
  failure_set(
      &failure, FAILURE_UNKNOWN, SOURCE_MONGODB, 11000, "%s",
      "the feed f: E11000 duplicate key error collection: b.f index: mail_1 dup key: { mail: "
      "\"ada@example.org\" }");
  Failure told = failure_without_values(&failure);
  check_text("told", told.message,
             "the feed f: E11000 duplicate key error collection: b.f index: mail_1");
}

static void test_a_longest_message_stays_within_its_bounds(void **state) {
  (void)state;
  Failure failure;
  g_autofree char *filler = g_strnfill(477, 'x');
  failure_set(&failure, FAILURE_DATA, SOURCE_MYSQL, 1366, "%s''", filler);
  Failure told = failure_without_values(&failure);
  check_text("cut", told.message, filler);
  check_that("whole", g_str_has_suffix(failure.message, "''"), "the failure itself stays");
}

static void a_full_disk_is_told_by_the_text(void **state) {
  (void)state;
  static const struct {
    int code;
    const char *message;
    FailureClass class;
  } cases[] = {
      {1030, "Got error 28 - 'No space left on device' from storage engine", FAILURE_SPACE},
      {1030, "Got error 168 - 'Unknown (generic) error from engine' from storage engine",
       FAILURE_UNKNOWN},
      {1030, "Got error 280 from storage engine", FAILURE_UNKNOWN},
      {3, "Error writing file '/tmp/MYfd=5' (OS errno 28 - No space left on device)",
       FAILURE_SPACE},
      {1026, "Error writing file 'x' (errno: 28 - No space left on device)", FAILURE_SPACE},
      {1030, "Got error 122 - 'Internal (unspecified) error in handler' from storage engine",
       FAILURE_UNKNOWN},
      {1026, "Error writing file 'x' (errno: 122 - Disk quota exceeded)", FAILURE_SPACE},
      {1366, "Incorrect value: 'errno: 28' for column", FAILURE_DATA},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_int_equal(failure_class_of_mysql_text(cases[i].code, cases[i].message), cases[i].class);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_full_disk_is_told_by_the_text),
      cmocka_unit_test(test_mysql_classes),
      cmocka_unit_test(test_mongodb_classes),
      cmocka_unit_test(test_atlas_tells_by_text),
      cmocka_unit_test(test_class_names),
      cmocka_unit_test(test_backoff),
      cmocka_unit_test(test_backoff_grows_with_random),
      cmocka_unit_test(test_messages),
      cmocka_unit_test(test_long_messages_are_cut),
      cmocka_unit_test(test_cut_messages_stay_utf8),
      cmocka_unit_test(test_a_part_of_a_text_stays_utf8),
      cmocka_unit_test(test_values_are_not_told),
      cmocka_unit_test(test_the_values_of_a_key_in_mongodb_are_not_told),
      cmocka_unit_test(test_a_longest_message_stays_within_its_bounds),
  };
  return RUN_TESTS(tests);
}

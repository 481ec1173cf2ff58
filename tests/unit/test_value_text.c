/* test_value_text.c - what a server sends and what a user writes, as a value of the column. */
#include "projector/domain/value_text.h"
#include "tests/unit/support.h"

#include <string.h>

typedef bool (*Reader)(const char *text, size_t length, const ColumnType *type, Arena *arena,
                       Value *ret_value);

typedef struct TextCase {
  const char *type, *text, *expected; /* "-": refused */
} TextCase;

static void check_reader(Reader read, const TextCase *cases, size_t count) {
  g_autoptr(Arena) arena = arena_new();
  for (size_t i = 0; i < count; i++) {
    g_autofree char *name = g_strdup_printf("%s from %s", cases[i].type, cases[i].text);
    ColumnType type;
    Value value = {.kind = VALUE_NULL};
    check_that(name, column_type_parse(cases[i].type, &type), "the type is known");
    bool good = read(cases[i].text, strlen(cases[i].text), &type, arena, &value);
    g_autofree char *found = good ? value_text(&value) : g_strdup("-");
    check_text(name, found, cases[i].expected);
  }
}

static void test_a_server_s_text_is_the_column_s_value(void **state) {
  (void)state;
  static const TextCase cases[] = {
      {"boolean", "1", "int 1"},
      {"tinyint", "-128", "int -128"},
      {"smallint", "32767", "int 32767"},
      {"mediumint unsigned", "16777215", "uint 16777215"},
      {"int", "x", "-"},
      {"int", "", "-"},
      {"bigint unsigned", "18446744073709551615", "uint 18446744073709551615"},
      {"bigint unsigned", "18446744073709551616", "-"},
      {"double", "0.5", "double 0.5"},
      {"decimal(18,2)", "10.50", "decimal 10.5"},
      {"decimal(18,2)", "ten", "-"},
      {"date", "2024-02-29", "date 2024-02-29"},
      {"date", "2024-02-30", "-"},
      {"datetime(3)", "2024-05-06 07:08:09.123", "datetime 2024-05-06 07:08:09.123"},
      {"timestamp", "2024-05-06 07:08:09", "datetime 2024-05-06 07:08:09"},
      {"datetime", "0000-00-00 00:00:00", "-"},
      {"datetime", "2024-05-06 07:08:09.123456789012345678", "-"},
      {"binary(2)", "ab", "bytes 6162"},
      {"varbinary(2)", "ab", "bytes 6162"},
      {"tinyblob", "ab", "bytes 6162"},
      {"blob", "ab", "bytes 6162"},
      {"mediumblob", "ab", "bytes 6162"},
      {"longblob", "ab", "bytes 6162"},
      {"uuid", "00112233-4455-6677-8899-aabbccddeeff", "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", "00112233-4455-6677-8899-aabbccddeegg",
       "bytes 30303131323233332d343435352d363637372d383839392d616162626363646465656767"},
      {"varchar(5)", "Ada", "text Ada"},
  };
  check_reader(value_from_sql, cases, COUNT_OF(cases));
}

static void test_a_user_writes_bytes_in_hexadecimal(void **state) {
  (void)state;
  static const TextCase cases[] = {
      {"varbinary(9)", "0x00ff", "bytes 00ff"},
      {"longblob", "0x", "bytes "},
      {"binary(1)", "ff", "-"},
      {"binary(1)", "0", "-"},
      {"binary(1)", "", "-"},
      {"binary(1)", "0xf", "-"},
      {"binary(1)", "0xfg", "-"},
      {"binary(1)", "0xgf", "-"},
      {"uuid", "00112233-4455-6677-8899-aabbccddeeff", "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", "0x00112233445566778899aabbccddeeff", "bytes 00112233445566778899aabbccddeeff"},
      {"uuid", "no uuid", "-"},
      {"varchar(5)", "0x00", "text 0x00"},
      {"int", "7", "int 7"},
  };
  check_reader(value_from_text, cases, COUNT_OF(cases));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_server_s_text_is_the_column_s_value),
      cmocka_unit_test(test_a_user_writes_bytes_in_hexadecimal),
  };
  return RUN_TESTS(tests);
}

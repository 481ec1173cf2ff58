// The bank of the demo: folding its events gives its entities, over many seeds.
#include "outbox/cli/bank.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

// An account as a reader of the events knows it.
typedef struct {
  bool open;
  char name[BANK_NAME_MAX_BYTES + 64];
  int64_t cents;
} reader_t;

static int64_t cents_at(const bson_t *document, const char *field) {
  bson_iter_t iter;
  bson_decimal128_t decimal;
  char text[BSON_DECIMAL128_STRING];
  assert_true(bson_iter_init_find(&iter, document, field));
  assert_true(bson_iter_decimal128(&iter, &decimal));
  bson_decimal128_to_string(&decimal, text);
  char *point = strchr(text, '.');
  assert_non_null(point);
  assert_int_equal(strlen(point), 3); // two decimals
  memmove(point, point + 1, 3);
  return g_ascii_strtoll(text, NULL, 10);
}

static const char *text_at(const bson_t *document, const char *field) {
  bson_iter_t iter;
  assert_true(bson_iter_init_find(&iter, document, field));
  assert_true(BSON_ITER_HOLDS_UTF8(&iter));
  return bson_iter_utf8(&iter, NULL);
}

static void fold(reader_t *reader, const bank_move_t *move) {
  const bson_t *payload = &move->payload;
  if (strcmp(move->event_type, "AccountOpened") == 0) {
    reader->open = true;
    reader->cents = cents_at(payload, "balance");
    g_strlcpy(reader->name, text_at(payload, "name"), sizeof reader->name);
  } else if (strcmp(move->event_type, "MoneyDeposited") == 0) {
    reader->cents += cents_at(payload, "amount");
  } else if (strcmp(move->event_type, "MoneyWithdrawn") == 0) {
    reader->cents -= cents_at(payload, "amount");
  } else if (strcmp(move->event_type, "AccountRenamed") == 0) {
    g_strlcpy(reader->name, text_at(payload, "name"), sizeof reader->name);
  } else if (strcmp(move->event_type, "AccountFrozen") == 0) {
    g_strlcat(reader->name, " (frozen)", sizeof reader->name);
  } else if (strcmp(move->event_type, "AccountClosed") == 0) {
    *reader = (reader_t){0};
  } else {
    assert_string_equal(move->event_type, "StatementSent");
  }
}

static void test_fold(void **unused) {
  (void)unused;
  for (guint32 seed = 0; seed < 50; seed++) {
    GRand *random = g_rand_new_with_seed(seed);
    bank_account_t account = {0};
    reader_t reader = {0};
    for (int i = 0; i < 1000; i++) {
      bank_move_t move;
      bank_next(random, &account, 1700000000000, &move);
      fold(&reader, &move);
      assert_int_equal(move.after.open, reader.open);
      assert_string_equal(move.after.name, reader.name);
      assert_int_equal(move.after.cents, reader.cents);
      assert_true(reader.cents >= 0);
      assert_true(g_utf8_validate(reader.name, -1, NULL));
      assert_true(g_utf8_strlen(reader.name, -1) <= BANK_NAME_MAX_CHARS);
      assert_int_equal(move.kind == OUTBOX_DELETE, account.open && !move.after.open);
      assert_true(!account.open || !move.after.open || strcmp(account.id, move.after.id) == 0);
      account = move.after;
      bank_move_clear(&move);
    }
    g_rand_free(random);
  }
}

// A name that is already long is not frozen once more.
static void test_long_names_stay_within_their_column(void **unused) {
  (void)unused;
  GRand *random = g_rand_new_with_seed(1);
  bank_account_t account = {.open = true, .cents = 5};
  memset(account.name, 'x', BANK_NAME_MAX_CHARS - 8);
  for (int i = 0; i < 5000; i++) {
    bank_move_t move;
    bank_next(random, &account, 0, &move);
    assert_true(strcmp(move.event_type, "AccountFrozen") != 0);
    bank_move_clear(&move);
  }
  g_rand_free(random);
}

static void test_decimals(void **unused) {
  (void)unused;
  static const struct {
    int64_t cents;
    const char *text;
  } cases[] = {{0, "0.00"}, {5, "0.05"}, {-5, "-0.05"}, {100, "1.00"}, {-123456, "-1234.56"}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    bson_decimal128_t decimal = bank_decimal(cases[i].cents);
    char text[BSON_DECIMAL128_STRING];
    bson_decimal128_to_string(&decimal, text);
    assert_string_equal(text, cases[i].text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fold),
      cmocka_unit_test(test_long_names_stay_within_their_column),
      cmocka_unit_test(test_decimals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

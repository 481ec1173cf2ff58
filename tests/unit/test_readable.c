/* test_readable.c - documents with texts that are not UTF-8. */
#include "projector/domain/readable.h"
#include "tests/unit/support.h"

#include <string.h>

#define BAD "a\xff"
#define REPAIRED "a\xef\xbf\xbd"

static void assert_reads(const bson_t *document, const char *expected, bool whole) {
  bson_t readable = BSON_INITIALIZER;
  assert_null(bson_as_relaxed_extended_json(document, NULL));
  assert_int_equal(readable_append(document, &readable), whole);
  char *json = bson_as_relaxed_extended_json(&readable, NULL);
  assert_string_equal(json, expected);
  bson_free(json);
  bson_destroy(&readable);
}

static void test_texts_and_names_are_repaired_at_every_level(void **state) {
  (void)state;
  bson_t *document = BCON_NEW("whole", BCON_INT32(1), "text", BCON_UTF8(BAD), BAD, BCON_NULL, "in",
                              "{", "list", "[", BCON_UTF8(BAD), BCON_DOUBLE(0.5), "]", "}");
  assert_reads(document,
               "{ \"whole\" : 1, \"text\" : \"" REPAIRED "\", \"" REPAIRED "\" : null, \"in\" : { "
               "\"list\" : [ \"" REPAIRED "\", 0.5 ] } }",
               true);
  bson_destroy(document);
}

static void test_every_type_that_has_a_text(void **state) {
  (void)state;
  bson_t *document = bson_new(), *scope = BCON_NEW("s", BCON_UTF8(BAD));
  bson_oid_t oid;
  bson_oid_init_from_string(&oid, "65a0000000aabbccddeeff01");
  BSON_APPEND_SYMBOL(document, "symbol", BAD);
  BSON_APPEND_CODE(document, "code", BAD);
  BSON_APPEND_CODE_WITH_SCOPE(document, "scoped", BAD, scope);
  BSON_APPEND_REGEX(document, "regex", BAD, "i");
  BSON_APPEND_DBPOINTER(document, "pointer", BAD, &oid);
  assert_reads(document,
               "{ \"symbol\" : { \"$symbol\" : \"" REPAIRED
               "\" }, \"code\" : { \"$code\" : \"" REPAIRED "\" }, "
               "\"scoped\" : { \"$code\" : \"" REPAIRED "\", \"$scope\" : { \"s\" : \"" REPAIRED
               "\" } }, \"regex\" : { \"$regularExpression\" : { \"pattern\" : \"" REPAIRED
               "\", \"options\" : \"i\" } }, \"pointer\" : { \"$dbPointer\" : { \"$ref\" : "
               "\"" REPAIRED "\", \"$id\" : { \"$oid\" : \"65a0000000aabbccddeeff01\" } } } }",
               true);
  bson_destroy(scope);
  bson_destroy(document);
}

/* Good texts stay as they are, with their zero bytes. */
static void test_good_texts_stay(void **state) {
  (void)state;
  bson_t *document = BCON_NEW("bad", BCON_UTF8(BAD));
  bson_append_utf8(document, "zero", -1, "x\0y", 3);
  BSON_APPEND_UTF8(document, "good", "ä€😀");
  assert_reads(document,
               "{ \"bad\" : \"" REPAIRED "\", \"zero\" : \"x\\u0000y\", \"good\" : \"ä€😀\" }",
               true);
  bson_destroy(document);
}

/* An old binary value whose second length is not that of its bytes. */
static void test_what_cannot_be_read_is_left_out(void **state) {
  (void)state;
  static const uint8_t bytes[24] = {24,
                                    0,
                                    0,
                                    0,
                                    BSON_TYPE_INT32,
                                    'a',
                                    0,
                                    1,
                                    0,
                                    0,
                                    0, /* a: 1 */
                                    BSON_TYPE_BINARY,
                                    'b',
                                    0,
                                    4,
                                    0,
                                    0,
                                    0,
                                    2,
                                    9,
                                    0,
                                    0,
                                    0,
                                    0};
  bson_t nested, *document = BCON_NEW("id", BCON_UTF8("e"));
  assert_true(bson_init_static(&nested, bytes, sizeof bytes));
  BSON_APPEND_DOCUMENT(document, "payload", &nested);
  BSON_APPEND_INT32(document, "after", 2);
  assert_reads(document, "{ \"id\" : \"e\", \"payload\" : { \"a\" : 1 }, \"after\" : 2 }", false);
  bson_destroy(document);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_texts_and_names_are_repaired_at_every_level),
      cmocka_unit_test(test_every_type_that_has_a_text),
      cmocka_unit_test(test_good_texts_stay),
      cmocka_unit_test(test_what_cannot_be_read_is_left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

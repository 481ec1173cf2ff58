// The digest by which a command is told from another one that was given its id.
#include "outbox/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void assert_digest(const void *bytes, size_t length, const char *hex) {
  uint8_t digest[OUTBOX_SHA256_BYTES];
  char text[2 * OUTBOX_SHA256_BYTES + 1];
  outbox_sha256(bytes, length, digest);
  for (int i = 0; i < OUTBOX_SHA256_BYTES; i++) {
    bson_snprintf(text + (size_t)i * 2, 3, "%02x", digest[i]);
  }
  assert_string_equal(text, hex);
}

// FIPS 180-4's examples, and lengths around those at which the padding takes a block more
// (coreutils' sha256sum says the same).
static void test_sha256(void **unused) {
  (void)unused;
  char a[1000];
  memset(a, 'a', sizeof a);
  assert_digest("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert_digest("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  assert_digest(a, 55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  assert_digest(a, 64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  assert_digest(a, 1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
}

static bool is_same(const char *type, const char *payload, const char *other_type,
                    const char *other_payload) {
  uint8_t digest[OUTBOX_SHA256_BYTES], other_digest[OUTBOX_SHA256_BYTES];
  bson_t *one = bson_new_from_json((const uint8_t *)payload, -1, NULL);
  bson_t *other = bson_new_from_json((const uint8_t *)other_payload, -1, NULL);
  assert_non_null(one);
  assert_non_null(other);
  outbox_content(type, one, digest);
  outbox_content(other_type, other, other_digest);
  bson_destroy(one);
  bson_destroy(other);
  return memcmp(digest, other_digest, sizeof digest) == 0;
}

static void test_the_order_of_fields_does_not_count_and_all_else_does(void **unused) {
  (void)unused;
  const char *payload = "{\"b\": {\"y\": [{\"q\": 1, \"p\": 2}, 3], \"x\": null}, \"a\": \"1\"}";
  assert_true(is_same("E", payload, "E",
                      "{\"a\": \"1\", \"b\": {\"x\": null, \"y\": [{\"p\": 2, \"q\": 1}, 3]}}"));
  assert_false(is_same("E", payload, "F", payload));
  static const char *const others[] = {
      "{\"b\": {\"y\": [3, {\"q\": 1, \"p\": 2}], \"x\": null}, \"a\": \"1\"}",
      "{\"b\": {\"y\": [{\"q\": 1, \"p\": 2}, 3], \"x\": null}, \"a\": 1}",
      "{\"b\": {\"y\": [{\"q\": 1, \"p\": 2}, 3]}, \"a\": \"1\"}",
      "{\"b\": {\"y\": [{\"q\": 1, \"p\": 4}, 3], \"x\": null}, \"a\": \"1\"}",
      "{\"y\": [{\"q\": 1, \"p\": 2}, 3], \"x\": null, \"a\": \"1\"}",
      "{}",
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    assert_false(is_same("E", payload, "E", others[i]));
  }
  assert_false(is_same("E", "{\"n\": 1}", "E", "{\"n\": {\"$numberLong\": \"1\"}}"));
}

static void test_fields_are_sorted_by_bytes(void **unused) {
  (void)unused;
  uint8_t digest[OUTBOX_SHA256_BYTES], expected[OUTBOX_SHA256_BYTES];
  bson_t *payload = bson_new_from_json(
      (const uint8_t *)"{\"b\": 1, \"\": 2, \"\xc3\xa9\": 3, \"B\": 4}", -1, NULL);
  bson_t *document = BCON_NEW("event_type", "E", "payload", "{", "", BCON_INT32(2), "B",
                              BCON_INT32(4), "b", BCON_INT32(1), "\xc3\xa9", BCON_INT32(3), "}");
  outbox_content("E", payload, digest);
  outbox_sha256(bson_get_data(document), document->len, expected);
  assert_memory_equal(digest, expected, sizeof digest);
  bson_destroy(payload);
  bson_destroy(document);
}

static void test_ids(void **unused) {
  (void)unused;
  bson_value_t five = outbox_id_int64(5), six = outbox_id_int64(6), text = outbox_id_string("5");
  bson_value_t other = outbox_id_string("50"), small = {.value_type = BSON_TYPE_INT32};
  uint8_t bytes[2][16] = {{1}, {2}};
  bson_value_t uuid = outbox_id_uuid(bytes[0]), other_uuid = outbox_id_uuid(bytes[1]);
  small.value.v_int32 = 5;
  assert_true(outbox_id_equal(&five, &small));
  assert_false(outbox_id_equal(&five, &six));
  assert_false(outbox_id_equal(&five, &text));
  assert_false(outbox_id_equal(&text, &other));
  assert_true(outbox_id_equal(&uuid, &uuid));
  assert_false(outbox_id_equal(&uuid, &other_uuid));
  assert_false(outbox_id_equal(&uuid, &text));
  bson_value_t same = outbox_id_string("5"), seven = outbox_id_string("7"), as_bytes = uuid,
               shorter = uuid;
  as_bytes.value.v_binary.subtype = BSON_SUBTYPE_BINARY;
  shorter.value.v_binary.data_len = 15;
  assert_true(outbox_id_equal(&text, &same));
  assert_false(outbox_id_equal(&text, &seven));
  assert_false(outbox_id_equal(&uuid, &as_bytes));
  assert_false(outbox_id_equal(&uuid, &shorter));
  bson_value_t object = {.value_type = BSON_TYPE_OID}, other_object = object,
               none = {.value_type = BSON_TYPE_NULL};
  other_object.value.v_oid.bytes[11] = 1;
  assert_true(outbox_id_equal(&object, &object));
  assert_false(outbox_id_equal(&object, &other_object));
  assert_false(outbox_id_equal(&none, &none));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sha256),
      cmocka_unit_test(test_the_order_of_fields_does_not_count_and_all_else_does),
      cmocka_unit_test(test_fields_are_sorted_by_bytes),
      cmocka_unit_test(test_ids),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* fuzz_value.c - every value of a document as every type of column.
 *
 * Promises: what a column takes is the same number, text, bytes or time, by a comparison that knows
 * nothing of how it was converted; what fits exactly is taken; what is refused says so in UTF-8.
 * What was taken survives its text and its SQL literal. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/literals.h"

#include "projector/domain/datetime.h"
#include "projector/domain/value.h"
#include "projector/domain/value_text.h"
#include "projector/infra/mysql/literal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(bson_t, bson_destroy)

static const char *const type_texts[] = {
    "boolean",
    "tinyint",
    "tinyint unsigned",
    "smallint",
    "smallint unsigned",
    "mediumint",
    "mediumint unsigned",
    "int",
    "int unsigned",
    "bigint",
    "bigint unsigned",
    "double",
    "decimal(1,0)",
    "decimal(18,2)",
    "decimal(30,30)",
    "decimal(65,0)",
    "decimal(65,30)",
    "char(1)",
    "char(36)",
    "varchar(1)",
    "varchar(100)",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "binary(1)",
    "binary(16)",
    "varbinary(1)",
    "varbinary(100)",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "date",
    "datetime",
    "datetime(1)",
    "datetime(3)",
    "datetime(6)",
    "timestamp",
    "timestamp(3)",
    "timestamp(6)",
    "json",
    "uuid",
};

/* --- numbers, by their digits --------------------------------------------------------------- */

/* A number as its digits without zeros at either end: 0.0120 is +, "12", exponent -3. */
typedef struct Digits {
  bool negative;
  GString *digits;  /* "" is zero */
  int64_t exponent; /* of the last digit */
} Digits;

static void digits_clear(Digits *digits) {
  g_string_free(digits->digits, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Digits, digits_clear)

/* The digits of "[+-]digits[.digits][e[+-]digits]"; the text is known to be a number. */
static Digits digits_of(const char *text, size_t length) {
  Digits result = {.digits = g_string_new(NULL)};
  const char *at = text, *end = text + length;
  if (at < end && (*at == '-' || *at == '+'))
    result.negative = *at++ == '-';
  for (bool point = false; at < end && *at != 'e' && *at != 'E'; at++) {
    point |= *at == '.';
    if (*at == '.')
      continue;
    g_string_append_c(result.digits, *at);
    result.exponent -= point;
  }
  if (at < end) {
    g_autofree char *exponent = g_strndup(at + 1, (gsize)(end - at - 1));
    result.exponent += g_ascii_strtoll(exponent, NULL, 10);
  }
  while (result.digits->len > 0 && result.digits->str[result.digits->len - 1] == '0') {
    g_string_truncate(result.digits, result.digits->len - 1);
    result.exponent++;
  }
  g_string_erase(result.digits, 0, (gssize)strspn(result.digits->str, "0"));
  if (result.digits->len == 0) {
    result.negative = false;
    result.exponent = 0;
  }
  return result;
}

static bool digits_equal(const Digits *a, const Digits *b) {
  return a->negative == b->negative && a->exponent == b->exponent &&
         g_string_equal(a->digits, b->digits);
}

static int64_t digits_before_point(const Digits *digits) {
  return digits->digits->len ? MAX((int64_t)digits->digits->len + digits->exponent, 0) : 0;
}

/* Whether it is an integer of at most `limit` (given as digits); the negative side allows one
 * more. */
static bool is_integer_up_to(const Digits *digits, const char *limit) {
  if (digits->exponent < 0)
    return false;
  if (digits_before_point(digits) != (int64_t)strlen(limit))
    return digits_before_point(digits) < (int64_t)strlen(limit);
  g_autofree char *all =
      g_strdup_printf("%s%.*s", digits->digits->str, (int)digits->exponent, "00000000000000000000");
  return strcmp(all, limit) <= 0;
}

static bool number_fits(const Digits *digits, const ColumnType *type) {
  static const struct {
    const char *least, *most, *natural;
  } limits[] = {
      [TYPE_TINYINT] = {"128", "127", "255"},
      [TYPE_SMALLINT] = {"32768", "32767", "65535"},
      [TYPE_MEDIUMINT] = {"8388608", "8388607", "16777215"},
      [TYPE_INT] = {"2147483648", "2147483647", "4294967295"},
      [TYPE_BIGINT] = {"9223372036854775808", "9223372036854775807", "18446744073709551615"},
  };
  if (type->kind == TYPE_DECIMAL)
    return digits->exponent >= -(int64_t)type->scale &&
           digits_before_point(digits) <= (int64_t)(type->length - type->scale);
  if (type->is_unsigned)
    return !digits->negative && is_integer_up_to(digits, limits[type->kind].natural);
  return is_integer_up_to(digits,
                          digits->negative ? limits[type->kind].least : limits[type->kind].most);
}

/* --- what the document says ----------------------------------------------------------------- */

/* Longer texts are not read in full here; that they are refused loses nothing. */
enum { NUMBER_TEXT_MAX = 100 };

static bool is_number_text(const char *text, size_t length) {
  g_autofree char *copy = g_strndup(text, length);
  return strlen(copy) == length && length <= NUMBER_TEXT_MAX &&
         g_regex_match_simple("^[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]{1,4})?$", copy,
                              G_REGEX_DOLLAR_ENDONLY, 0);
}

/* NULL: not a number, or one without digits to compare. */
static char *number_text(const bson_iter_t *iter, bool texts) {
  bson_decimal128_t decimal;
  char text[BSON_DECIMAL128_STRING];
  uint32_t length;
  if (BSON_ITER_HOLDS_INT(iter))
    return g_strdup_printf("%lld", (long long)bson_iter_as_int64(iter));
  if (BSON_ITER_HOLDS_DECIMAL128(iter)) {
    bson_iter_decimal128(iter, &decimal);
    bson_decimal128_to_string(&decimal, text);
    return strpbrk(text, "nN") ? NULL : g_strdup(text); /* Infinity, NaN */
  }
  if (!BSON_ITER_HOLDS_UTF8(iter) || !texts)
    return NULL;
  const char *utf8 = bson_iter_utf8(iter, &length);
  return is_number_text(utf8, length) ? g_strndup(utf8, length) : NULL;
}

static bool is_utf8(const char *text, size_t length) {
  for (const char *end = text + length; text < end; text++)
    if (!g_utf8_validate(text, end - text, &text) && (text >= end || *text))
      return false; /* a NUL is a character of MySQL's texts */
  return true;
}

static size_t count_characters(const char *text, size_t length) {
  size_t count = 0;
  for (const char *at = text; at < text + length; at = g_utf8_next_char(at))
    count++;
  return count;
}

/* --- promises by type ----------------------------------------------------------------------- */

static void check_number(const bson_iter_t *iter, const ColumnType *type, bool taken,
                         const Value *value) {
  bool texts = type->kind == TYPE_DECIMAL;
  g_autofree char *found = number_text(iter, texts);
  g_autoptr(GString) text = g_string_new(NULL);
  if (taken)
    value_append_text(text, value);
  if (BSON_ITER_HOLDS_DOUBLE(iter)) {
    PROMISE(!taken || g_ascii_strtod(text->str, NULL) == bson_iter_double(iter),
            "%s takes %s for another double", type->text, text->str);
    return;
  }
  if (!found) {
    bool long_text = texts && BSON_ITER_HOLDS_UTF8(iter);
    PROMISE(!taken || long_text, "%s takes what is no number: %s", type->text, text->str);
    return;
  }
  g_auto(Digits) expected = digits_of(found, strlen(found));
  PROMISE(taken == number_fits(&expected, type), "%s %s %s", type->text,
          taken ? "takes" : "refuses", found);
  if (taken) {
    g_auto(Digits) digits = digits_of(text->str, text->len);
    PROMISE(digits_equal(&expected, &digits), "%s makes %s of %s", type->text, text->str, found);
  }
}

static void check_double(const bson_iter_t *iter, bool taken, const Value *value) {
  if (BSON_ITER_HOLDS_DOUBLE(iter)) {
    double real = bson_iter_double(iter);
    PROMISE(taken == (bool)isfinite(real), "double and %g", real);
    PROMISE(!taken || value->real == real, "another double");
  } else if (BSON_ITER_HOLDS_INT(iter)) {
    int64_t number = bson_iter_as_int64(iter);
    PROMISE(taken == ((__int128)(double)number == number), "double and %lld", (long long)number);
    PROMISE(!taken || (__int128)value->real == number, "another number");
  } else {
    PROMISE(!taken, "double takes something else");
  }
}

static void check_text(const bson_iter_t *iter, const ColumnType *type, bool taken,
                       const Value *value) {
  uint32_t length;
  if (!BSON_ITER_HOLDS_UTF8(iter)) {
    PROMISE(!taken || is_utf8(value->text, value->length), "a text that is no UTF-8");
    return;
  }
  const char *text = bson_iter_utf8(iter, &length);
  bool characters = type->kind == TYPE_CHAR || type->kind == TYPE_VARCHAR;
  bool valid = is_utf8(text, length);
  bool fits = valid && (characters ? count_characters(text, length) : length) <= type->length;
  if (type->kind == TYPE_CHAR && length > 0 && text[length - 1] == ' ')
    fits = false;
  PROMISE(taken == fits, "%s %s a text of %u bytes", type->text, taken ? "takes" : "refuses",
          length);
  PROMISE(!taken || (value->length == length && !memcmp(value->text, text, length)),
          "another text");
}

static void check_bytes(const bson_iter_t *iter, const ColumnType *type, bool taken,
                        const Value *value) {
  bson_subtype_t subtype;
  uint32_t length;
  const uint8_t *bytes;
  if (!BSON_ITER_HOLDS_BINARY(iter)) {
    PROMISE(!taken || BSON_ITER_HOLDS_OID(iter), "%s takes what is no bytes", type->text);
    return;
  }
  bson_iter_binary(iter, &subtype, &length, &bytes);
  bool fits = type->kind == TYPE_BINARY ? length == type->length : length <= type->length;
  PROMISE(taken == fits, "%s %s %u bytes", type->text, taken ? "takes" : "refuses", length);
  PROMISE(!taken ||
              (value->length == length && (length == 0 || !memcmp(value->bytes, bytes, length))),
          "other bytes");
}

/* "2024-05-06T07:08:09.12Z" as it would be with six digits: the missing ones are zeros. */
static char *time_text(const bson_iter_t *iter, bool date) {
  uint32_t length;
  const char *found = bson_iter_utf8(iter, &length);
  g_autofree char *text = g_strndup(found, length);
  if (date)
    return g_steal_pointer(&text);
  char *point = strchr(text, '.');
  size_t found_digits = point ? strspn(point + 1, "0123456789") : 0;
  size_t digits = MIN(found_digits, 6); /* the others are zeros */
  return g_strdup_printf("%.10s %.8s.%.*s%.*s", text, text + 11, (int)digits,
                         point ? point + 1 : "", (int)(6 - digits), "000000");
}

/* Not with an offset, which the conversion removes. */
static bool ends_in_utc(const bson_iter_t *iter) {
  uint32_t length;
  const char *found = bson_iter_utf8(iter, &length);
  return length > 0 && found[length - 1] == 'Z';
}

static void check_time(const bson_iter_t *iter, const ColumnType *type, bool taken,
                       const Value *value) {
  static const int64_t units[] = {1000000, 100000, 10000, 1000, 100, 10, 1};
  static const int64_t year_1_ms = INT64_C(-62135596800000);
  bool date = type->kind == TYPE_DATE;
  if (BSON_ITER_HOLDS_DATE_TIME(iter)) {
    int64_t ms = bson_iter_date_time(iter);
    int64_t unit_us = date ? INT64_C(86400000000) : units[type->length];
    bool fits = ms >= year_1_ms && ms <= DATETIME_LAST_MS && ms * 1000 % unit_us == 0;
    if (type->kind == TYPE_TIMESTAMP) /* "1970-01-01 00:00:01" to "2038-01-19 03:14:07.999999" */
      fits = fits && ms >= 1000 && ms < INT64_C(2147483648000);
    PROMISE(taken == fits, "%s %s %lld ms", type->text, taken ? "takes" : "refuses", (long long)ms);
    PROMISE(!taken || value->us == ms * 1000, "another time");
  } else if (!BSON_ITER_HOLDS_UTF8(iter)) {
    PROMISE(!taken, "%s takes what is no time", type->text);
  } else if (taken && (date || ends_in_utc(iter))) {
    char text[DATETIME_TEXT_SIZE];
    g_autofree char *expected = time_text(iter, date);
    size_t length = datetime_format(value->us, date ? 0 : 6, text);
    text[date ? length - strlen(" 00:00:00") : length] = '\0';
    PROMISE(!strcmp(text, expected), "%s makes %s of %s", type->text, text, expected);
  }
}

static void check_json(const bson_iter_t *iter, const Value *value) {
  bson_error_t error;
  json_t *json = json_loadb(value->text, value->length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
  PROMISE(json, "json takes what is none: %.*s", (int)value->length, value->text);
  json_decref(json);
  if (bson_iter_type(iter) == BSON_TYPE_SYMBOL || bson_iter_type(iter) == BSON_TYPE_CODEWSCOPE)
    return; /* libbson does not read back everything it writes */
  g_autofree char *object = g_strdup_printf("{\"v\" : %.*s}", (int)value->length, value->text);
  g_autoptr(bson_t) again = bson_new_from_json((const uint8_t *)object, -1, &error);
  if (!again)
    return;
  size_t length;
  char *text = bson_as_relaxed_extended_json(again, &length);
  PROMISE(text, "JSON that cannot be written again: %s", object);
  bson_free(text);
}

static void check_uuid(const bson_iter_t *iter, bool taken, const Value *value) {
  uint32_t length;
  PROMISE(!taken || value->length == 16, "a UUID of %u bytes", value->length);
  if (!taken || !BSON_ITER_HOLDS_UTF8(iter))
    return;
  char text[ID_TEXT_SIZE];
  const Id id = {.kind = ID_UUID, .length = 16, .bytes = value->bytes};
  id_text(&id, text);
  const char *found = bson_iter_utf8(iter, &length);
  PROMISE(strlen(text) == length && !g_ascii_strncasecmp(text, found, length), "another UUID");
}

static void check_boolean(const bson_iter_t *iter, bool taken, const Value *value) {
  int64_t number = BSON_ITER_HOLDS_BOOL(iter)  ? bson_iter_bool(iter)
                   : BSON_ITER_HOLDS_INT(iter) ? bson_iter_as_int64(iter)
                                               : -1;
  PROMISE(taken == (number == 0 || number == 1), "boolean and %lld", (long long)number);
  PROMISE(!taken || value->integer == number, "another boolean");
}

static void check_by_type(const bson_iter_t *iter, const ColumnType *type, bool taken,
                          const Value *value) {
  if (type->kind == TYPE_BOOLEAN)
    check_boolean(iter, taken, value);
  else if (type->kind == TYPE_DOUBLE)
    check_double(iter, taken, value);
  else if (type_is_numeric(type->kind))
    check_number(iter, type, taken, value);
  else if (type_is_text(type->kind))
    check_text(iter, type, taken, value);
  else if (type->kind >= TYPE_BINARY && type->kind <= TYPE_LONGBLOB)
    check_bytes(iter, type, taken, value);
  else if (type->kind >= TYPE_DATE && type->kind <= TYPE_TIMESTAMP)
    check_time(iter, type, taken, value);
  else if (type->kind == TYPE_UUID)
    check_uuid(iter, taken, value);
  else if (taken)
    check_json(iter, value);
}

/* --- promises about every value that was taken ----------------------------------------------- */

static void check_arithmetic(const Value *value, const Column *column, Arena *arena) {
  Value negative = value_negate(value, arena), sum, same;
  PROMISE(value_add(value, &negative, column, arena, &sum), "a number and its negative do not add");
  PROMISE(value_add(&sum, value, column, arena, &same), "nothing and a number do not add");
  PROMISE(value_compare(&same, value) == 0, "0 + a number is another one");
}

static void check_taken(const Value *value, const Column *column, Arena *arena) {
  g_autoptr(GString) text = g_string_new(NULL), sql = g_string_new(NULL);
  Value copy = value_copy(value, arena), read;
  PROMISE(value_equal(value, &copy) && value_compare(value, &copy) == 0 &&
              values_hash(value, 1) == values_hash(&copy, 1),
          "a copy of a value differs");
  value_append_text(text, value);
  PROMISE(value_from_text(text->str, text->len, &column->type, arena, &read),
          "the text of a value is not read: %s", text->str);
  PROMISE(value_equal(value, &read), "the text of a value is another value: %s", text->str);
  literal_append(sql, value);
  check_literal(sql->str, sql->len, value);
  if (type_is_numeric(column->type.kind))
    check_arithmetic(value, column, arena);
}

static void check_refused(const Failure *failure) {
  PROMISE(failure->class == FAILURE_DATA && *failure->message, "refused without a reason");
  PROMISE(g_utf8_validate(failure->message, -1, NULL), "the reason is no UTF-8");
}

static void check_column(const Event *event, const char *key, const char *type_text, Arena *arena) {
  Column column = {.name = "c", .from = {.in_payload = true, .path = key, .text = key}};
  Value value;
  Failure failure = {0};
  bson_iter_t iter;
  PROMISE(column_type_parse(type_text, &column.type), "no type: %s", type_text);
  bool taken = value_for_column(event, &column.from, &column, arena, &value, &failure);
  PROMISE(source_find(&column.from, event, &iter), "the value of %s is not found", key);
  if (bson_iter_type(&iter) == BSON_TYPE_NULL || bson_iter_type(&iter) == BSON_TYPE_UNDEFINED)
    PROMISE(!taken, "a column that may not be NULL takes null");
  else
    check_by_type(&iter, &column.type, taken, &value);
  if (taken)
    check_taken(&value, &column, arena);
  else
    check_refused(&failure);
}

static void check_parameter(const Event *event, const char *key, Arena *arena) {
  const Parameter parameter = {.from = {.in_payload = true, .path = key, .text = key},
                               .column = -1};
  Value value;
  Failure failure = {0};
  if (!value_for_parameter(event, &parameter, NULL, arena, &value, &failure)) {
    check_refused(&failure);
    return;
  }
  g_autoptr(GString) sql = g_string_new(NULL);
  literal_append(sql, &value);
  check_literal(sql->str, sql->len, &value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *at = data;
  g_autoptr(bson_t) document = fuzz_next_document(&at, data + size);
  g_autoptr(Arena) arena = arena_new();
  Event event = {0};
  bson_iter_t iter;
  if (!document || !bson_iter_init(&iter, document))
    return 0;
  event.payload = bson_get_data(document);
  while (bson_iter_next(&iter)) {
    if (!g_utf8_validate(bson_iter_key(&iter), -1, NULL) || *bson_iter_key(&iter) == '$')
      continue; /* no path in a mapping file can name it */
    for (size_t i = 0; i < G_N_ELEMENTS(type_texts); i++)
      check_column(&event, bson_iter_key(&iter), type_texts[i], arena);
    check_parameter(&event, bson_iter_key(&iter), arena);
  }
  return 0;
}

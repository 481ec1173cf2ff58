/* value.c - exact conversion from BSON to the types of MySQL columns. */
#include "projector/domain/value.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/domain/describe.h"
#include "projector/domain/real.h"
#include "projector/domain/value_special.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* --- numbers ------------------------------------------------------------------------------ */

/* The decimal number with the fewest digits that reads back as the same double: what was written
 * originally. */
static bool decimal_from_double(double real, Decimal *ret_decimal) {
  char text[REAL_TEXT_SIZE];
  if (!isfinite(real))
    return false;
  real_format(real, text);
  return decimal_parse(text, strlen(text), ret_decimal);
}

static bool read_decimal(const bson_iter_t *iter, bool texts, Decimal *ret_decimal) {
  bson_decimal128_t number;
  char text[BSON_DECIMAL128_STRING];
  uint32_t length;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64: decimal_from_int64(bson_iter_as_int64(iter), ret_decimal); return true;
  case BSON_TYPE_DOUBLE: return decimal_from_double(bson_iter_double(iter), ret_decimal);
  case BSON_TYPE_DECIMAL128:
    bson_iter_decimal128(iter, &number);
    bson_decimal128_to_string(&number, text);
    return decimal_parse(text, strlen(text), ret_decimal);
  case BSON_TYPE_UTF8: {
    const char *utf8 = bson_iter_utf8(iter, &length);
    return texts && decimal_parse(utf8, length, ret_decimal);
  }
  default: return false;
  }
}

static bool integer_in_range(const Decimal *decimal, const ColumnType *type, Value *ret_value) {
  static const unsigned bits_of[] = {[TYPE_TINYINT] = 8,
                                     [TYPE_SMALLINT] = 16,
                                     [TYPE_MEDIUMINT] = 24,
                                     [TYPE_INT] = 32,
                                     [TYPE_BIGINT] = 64};
  unsigned bits = bits_of[type->kind];
  if (type->is_unsigned) {
    uint64_t number;
    if (!decimal_to_uint64(decimal, &number) || (bits < 64 && number >> bits != 0))
      return false;
    *ret_value = (Value){.kind = VALUE_UINT, .natural = number};
    return true;
  }
  int64_t number, limit = (int64_t)((UINT64_C(1) << (bits - 1)) - 1);
  if (!decimal_to_int64(decimal, &number) || number > limit || number < -limit - 1)
    return false;
  *ret_value = (Value){.kind = VALUE_INT, .integer = number};
  return true;
}

static Value decimal_value(const Decimal *decimal, Arena *arena) {
  char text[DECIMAL_TEXT_SIZE];
  size_t length = decimal_format(decimal, text);
  return (Value){
      .kind = VALUE_DECIMAL, .length = (uint32_t)length, .text = arena_copy(arena, text, length)};
}

static bool number_fits(const Decimal *decimal, const ColumnType *type, Arena *arena,
                        Value *ret_value) {
  if (type_is_integer(type->kind))
    return integer_in_range(decimal, type, ret_value);
  if (!decimal_fits(decimal, type->length, type->scale))
    return false;
  *ret_value = decimal_value(decimal, arena);
  return true;
}

static bool to_number(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                      Value *ret_value) {
  if (BSON_ITER_HOLDS_INT(iter) && type->kind == TYPE_BIGINT &&
      !type->is_unsigned) { /* the common case, which needs no digits */
    *ret_value = (Value){.kind = VALUE_INT, .integer = bson_iter_as_int64(iter)};
    return true;
  }
  Decimal decimal;
  return read_decimal(iter, type->kind == TYPE_DECIMAL, &decimal) &&
         number_fits(&decimal, type, arena, ret_value);
}

static bool to_double(const bson_iter_t *iter, Value *ret_value) {
  double real;
  if (BSON_ITER_HOLDS_DOUBLE(iter)) {
    real = bson_iter_double(iter);
  } else if (BSON_ITER_HOLDS_INT(iter)) {
    int64_t number = bson_iter_as_int64(iter);
    real = (double)number;
    if (real >= 9223372036854775808.0 || (int64_t)real != number)
      return false;
  } else {
    return false;
  }
  if (!isfinite(real))
    return false;
  *ret_value = (Value){.kind = VALUE_DOUBLE, .real = real};
  return true;
}

static bool to_boolean(const bson_iter_t *iter, Value *ret_value) {
  int64_t number = -1;
  if (BSON_ITER_HOLDS_BOOL(iter))
    number = bson_iter_bool(iter);
  else if (BSON_ITER_HOLDS_INT(iter))
    number = bson_iter_as_int64(iter);
  *ret_value = (Value){.kind = VALUE_INT, .integer = number};
  return number == 0 || number == 1;
}

/* --- texts and bytes ------------------------------------------------------------------------ */

static size_t count_characters(const char *text, size_t length) {
  size_t count = 0;
  for (size_t i = 0; i < length; i++)
    count += ((uint8_t)text[i] & 0xC0) != 0x80; /* all bytes except continuation bytes */
  return count;
}

static bool to_text(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                    Value *ret_value) {
  Value value = {.kind = VALUE_TEXT};
  if (BSON_ITER_HOLDS_UTF8(iter)) {
    value.text = bson_iter_utf8(iter, &value.length);
    if (!utf8_is_valid(value.text, value.length))
      return false;
  } else { /* UUIDs, ObjectIds and integers have one usual text form */
    Id id;
    char text[ID_TEXT_SIZE];
    if (!id_from_iter(iter, &id))
      return false;
    value.length = (uint32_t)id_text(&id, text);
    value.text = arena_copy(arena, text, value.length);
  }
  if (type->kind == TYPE_CHAR && value.length > 0 && value.text[value.length - 1] == ' ')
    return false; /* CHAR strips blanks at the end */
  *ret_value = value;
  return (type->kind == TYPE_CHAR || type->kind == TYPE_VARCHAR
              ? count_characters(value.text, value.length)
              : value.length) <= type->length;
}

static bool read_bytes(const bson_iter_t *iter, Value *ret_value) {
  Value value = {.kind = VALUE_BINARY};
  if (BSON_ITER_HOLDS_BINARY(iter)) {
    bson_subtype_t subtype;
    bson_iter_binary(iter, &subtype, &value.length, &value.bytes);
  } else if (BSON_ITER_HOLDS_OID(iter)) {
    value.bytes = bson_iter_oid(iter)->bytes;
    value.length = 12;
  } else {
    return false;
  }
  *ret_value = value;
  return true;
}

static bool to_bytes(const bson_iter_t *iter, const ColumnType *type, Value *ret_value) {
  if (!read_bytes(iter, ret_value))
    return false;
  /* BINARY(n) pads with zeros, so a value of another length would change. */
  return type->kind == TYPE_BINARY ? ret_value->length == type->length
                                   : ret_value->length <= type->length;
}

static bool to_uuid(const bson_iter_t *iter, Arena *arena, Value *ret_value) {
  uint8_t bytes[16];
  if (BSON_ITER_HOLDS_UTF8(iter)) {
    uint32_t length;
    const char *text = bson_iter_utf8(iter, &length);
    Id id;
    if (!id_from_text(ID_UUID, text, length, bytes, &id))
      return false;
    *ret_value = (Value){.kind = VALUE_BINARY, .length = sizeof bytes};
    ret_value->text = arena_copy(arena, bytes, sizeof bytes);
    return true;
  }
  bson_subtype_t subtype = BSON_SUBTYPE_BINARY;
  const uint8_t *found;
  uint32_t length;
  if (BSON_ITER_HOLDS_BINARY(iter))
    bson_iter_binary(iter, &subtype, &length, &found);
  return subtype == BSON_SUBTYPE_UUID && read_bytes(iter, ret_value) && ret_value->length == 16;
}

/* --- dates and JSON ------------------------------------------------------------------------- */

static bool read_time(const bson_iter_t *iter, bool time, int64_t *ret_us) {
  if (BSON_ITER_HOLDS_DATE_TIME(iter)) {
    int64_t ms = bson_iter_date_time(iter);
    if (!datetime_fits_column(ms))
      return false;
    *ret_us = ms * 1000;
    return true;
  }
  uint32_t length;
  if (!BSON_ITER_HOLDS_UTF8(iter))
    return false;
  const char *text = bson_iter_utf8(iter, &length);
  return datetime_parse(text, length, time, ret_us);
}

static bool to_date(const bson_iter_t *iter, Value *ret_value) {
  *ret_value = (Value){.kind = VALUE_DATE};
  return read_time(iter, false, &ret_value->us) && ret_value->us % (86400LL * 1000000) == 0;
}

static bool timestamp_holds(int64_t us) {
  static const int64_t first = 1000000, end = 2147483648LL * 1000000;
  return us >= first && us < end;
}

static bool to_datetime(const bson_iter_t *iter, const ColumnType *type, Value *ret_value) {
  static const int64_t units[] = {1000000, 100000, 10000, 1000, 100, 10, 1};
  *ret_value = (Value){.kind = VALUE_DATETIME, .length = type->length};
  if (!read_time(iter, true, &ret_value->us) || ret_value->us % units[type->length] != 0)
    return false;
  return type->kind != TYPE_TIMESTAMP || timestamp_holds(ret_value->us);
}

static bool to_json(const bson_iter_t *iter, Arena *arena, Value *ret_value) {
  bson_t wrapped = BSON_INITIALIZER; /* a bare value's JSON is that of {"v": value}, unwrapped */
  size_t length = 0;
  char *json = NULL;
  if (bson_append_iter(&wrapped, "v", 1, iter))
    json = bson_as_relaxed_extended_json(&wrapped, &length);
  bson_destroy(&wrapped);
  if (!json)
    return false;
  const char *start = strchr(json, ':') + 1;
  const char *end = json + length - 1; /* at the closing brace */
  while (*start == ' ')
    start++;
  while (end[-1] == ' ')
    end--;
  g_autoptr(GString) text = g_string_sized_new((size_t)(end - start));
  json_append_short(text, start, (size_t)(end - start));
  *ret_value = (Value){.kind = VALUE_TEXT, .length = (uint32_t)text->len};
  ret_value->text = arena_copy(arena, text->str, text->len);
  bson_free(json);
  return true;
}

/* --- conversion ----------------------------------------------------------------------------- */

static bool convert(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                    Value *ret_value) {
  if (type_is_special(type))
    return special_convert(iter, type, arena, ret_value);
  switch (type->kind) {
  case TYPE_BOOLEAN: return to_boolean(iter, ret_value);
  case TYPE_TINYINT:
  case TYPE_SMALLINT:
  case TYPE_MEDIUMINT:
  case TYPE_INT:
  case TYPE_BIGINT:
  case TYPE_DECIMAL: return to_number(iter, type, arena, ret_value);
  case TYPE_DOUBLE: return to_double(iter, ret_value);
  case TYPE_CHAR:
  case TYPE_VARCHAR:
  case TYPE_TINYTEXT:
  case TYPE_TEXT:
  case TYPE_MEDIUMTEXT:
  case TYPE_LONGTEXT: return to_text(iter, type, arena, ret_value);
  case TYPE_BINARY:
  case TYPE_VARBINARY:
  case TYPE_TINYBLOB:
  case TYPE_BLOB:
  case TYPE_MEDIUMBLOB:
  case TYPE_LONGBLOB: return to_bytes(iter, type, ret_value);
  case TYPE_DATE: return to_date(iter, ret_value);
  case TYPE_DATETIME:
  case TYPE_TIMESTAMP: return to_datetime(iter, type, ret_value);
  case TYPE_JSON: return to_json(iter, arena, ret_value);
  case TYPE_UUID: return to_uuid(iter, arena, ret_value);
  default: break;
  }
  return false;
}

static bool is_null(const bson_iter_t *iter) {
  return BSON_ITER_HOLDS_NULL(iter) || bson_iter_type(iter) == BSON_TYPE_UNDEFINED;
}

static bool is_time(TypeKind kind) {
  return kind == TYPE_DATE || kind == TYPE_DATETIME || kind == TYPE_TIMESTAMP;
}

/* A text that is no time, or not one that the column holds exactly. */
static char *describe_time(const ColumnType *type, const char *text, size_t length,
                           const char *found) {
  static const char example[] = "2024-01-31T12:34:56.789012";
  int64_t us;
  if (type->kind == TYPE_DATE)
    return g_strdup_printf("%s that is no date written 2024-01-31", found);
  if (type->kind == TYPE_TIMESTAMP && datetime_parse(text, length, true, &us) &&
      !timestamp_holds(us))
    return g_strdup_printf("%s that is not between 1970-01-01T00:00:01Z and 2038-01-19T03:14:07Z",
                           found);
  return g_strdup_printf("%s that is no time written %.*sZ", found,
                         (int)(type->length ? 20 + type->length : 19), example);
}

static char *describe_plain(const bson_iter_t *iter) {
  char found[DESCRIPTION_SIZE];
  bson_iter_t misfit;
  g_autofree char *path = plain_json_misfit(iter, &misfit);
  bson_describe(&misfit, found, sizeof found);
  return g_strconcat(found, *path ? " in " : "", path, " that plain JSON does not hold exactly",
                     NULL);
}

/* What was found and, where it is not obvious, what is wrong with it. */
static char *describe_for(const ColumnType *type, const bson_iter_t *iter) {
  Decimal decimal;
  char found[DESCRIPTION_SIZE];
  uint32_t length = 0;
  const char *utf8 = BSON_ITER_HOLDS_UTF8(iter) ? bson_iter_utf8(iter, &length) : NULL;
  bool number = type->kind == TYPE_DECIMAL && read_decimal(iter, true, &decimal);
  bson_describe(iter, found, sizeof found);
  if (utf8 && !utf8_is_valid(utf8, length))
    return g_strdup(found);
  if (type->plain)
    return describe_plain(iter);
  if (type->kind == TYPE_DECIMAL && utf8 && !number)
    return g_strconcat(found, " that is no number", NULL);
  if (number && decimal.scale > type->scale)
    return g_strdup_printf("%s, which has more than %u digits behind the point", found,
                           type->scale);
  if (is_time(type->kind) && utf8)
    return describe_time(type, utf8, length, found);
  return g_strdup(found);
}

/* A list of labels may be longer than a message. */
enum { EXPECTED_SHOWN = 120 };

static bool unfit(const Source *place, const char *expected, const char *found,
                  Failure *ret_failure) {
  g_autofree char *name = source_name(place);
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "%s: expected %.*s, found %s",
                     name, EXPECTED_SHOWN, expected, found);
}

static bool missing(const Source *source, const char *expected, Failure *ret_failure) {
  g_autofree char *names = source_names(source);
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "%s: expected %.*s, found nothing",
                     names, EXPECTED_SHOWN, expected);
}

bool value_for_column(const Event *event, const Source *source, const Column *column, Arena *arena,
                      Value *ret_value, Failure *ret_failure) {
  bson_iter_t iter;
  const Source *place = source_find(source, event, &iter);
  if (!place || is_null(&iter)) {
    *ret_value = (Value){.kind = VALUE_NULL};
    return column->nullable || (place ? unfit(place, column->type.text, "null", ret_failure)
                                      : missing(source, column->type.text, ret_failure));
  }
  if (convert(&iter, &column->type, arena, ret_value))
    return true;
  g_autofree char *text = describe_for(&column->type, &iter);
  return unfit(place, column->type.text, text, ret_failure);
}

bool value_of_default(const Column *column, Arena *arena, Value *ret_value) {
  const Event nothing = {0};
  const Source *source = &column->from;
  Failure unfit;
  while (source && !source->constant)
    source = source->otherwise;
  return source && value_for_column(&nothing, source, column, arena, ret_value, &unfit);
}

static bool natural_value(const bson_iter_t *iter, Arena *arena, Value *ret_value) {
  static const ColumnType boolean = {TYPE_BOOLEAN}, bigint = {TYPE_BIGINT}, real = {TYPE_DOUBLE},
                          decimal = {TYPE_DECIMAL, .length = 95, .scale = 30},
                          text = {TYPE_LONGTEXT, .length = UINT32_MAX},
                          blob = {TYPE_LONGBLOB, .length = UINT32_MAX},
                          datetime = {TYPE_DATETIME, .length = 3}, json = {TYPE_JSON};
  const ColumnType *type = &json;
  bson_subtype_t subtype;
  uint32_t length;
  const uint8_t *bytes;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_BOOL: type = &boolean; break;
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64: type = &bigint; break;
  case BSON_TYPE_DOUBLE: type = &real; break;
  case BSON_TYPE_DECIMAL128: type = &decimal; break;
  case BSON_TYPE_UTF8:
  case BSON_TYPE_OID: type = &text; break;
  case BSON_TYPE_BINARY:
    bson_iter_binary(iter, &subtype, &length, &bytes);
    type = subtype == BSON_SUBTYPE_UUID && length == 16 ? &text : &blob;
    break;
  case BSON_TYPE_DATE_TIME: type = &datetime; break;
  default: break;
  }
  return convert(iter, type, arena, ret_value);
}

bool value_for_parameter(const Event *event, const Parameter *parameter,
                         const Projection *projection, Arena *arena, Value *ret_value,
                         Failure *ret_failure) {
  if (parameter->column >= 0)
    return value_for_column(event, &parameter->from, &projection->columns[parameter->column], arena,
                            ret_value, ret_failure);
  bson_iter_t iter;
  if (!source_find(&parameter->from, event, &iter))
    return missing(&parameter->from, "a value", ret_failure);
  if (is_null(&iter)) {
    *ret_value = (Value){.kind = VALUE_NULL};
    return true;
  }
  if (natural_value(&iter, arena, ret_value))
    return true;
  char text[DESCRIPTION_SIZE];
  bson_describe(&iter, text, sizeof text);
  return unfit(&parameter->from, "a value that SQL can hold", text, ret_failure);
}

/* --- arithmetic ----------------------------------------------------------------------------- */

bool value_equal(const Value *a, const Value *b) {
  if (a->kind != b->kind)
    return false;
  switch (a->kind) {
  case VALUE_NULL: return true;
  case VALUE_INT: return a->integer == b->integer;
  case VALUE_UINT: return a->natural == b->natural;
  case VALUE_DOUBLE: return a->real == b->real;
  case VALUE_DATE:
  case VALUE_DATETIME: return a->us == b->us;
  case VALUE_DECIMAL:
  case VALUE_TEXT:
  case VALUE_BINARY:
    return a->length == b->length && (a->length == 0 || !memcmp(a->text, b->text, a->length));
  }
  return false;
}

static bool has_bytes(const Value *value) {
  return value->kind == VALUE_TEXT || value->kind == VALUE_BINARY || value->kind == VALUE_DECIMAL;
}

Value value_copy(const Value *value, Arena *arena) {
  Value copy = *value;
  if (has_bytes(value))
    copy.text = arena_copy(arena, value->bytes, value->length);
  return copy;
}

uint64_t values_hash(const Value *values, unsigned count) {
  XXH64_hash_t hash = 0;
  for (unsigned i = 0; i < count; i++) {
    const Value *value = &values[i];
    const void *data = has_bytes(value) ? (const void *)value->bytes : &value->integer;
    size_t length = has_bytes(value) ? value->length : sizeof value->integer;
    hash = XXH3_64bits_withSeed(length ? data : "", length, hash);
  }
  return hash;
}

bool values_equal(const Value *a, const Value *b, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    if (!value_equal(&a[i], &b[i]))
      return false;
  return true;
}

guint value_key_hash(gconstpointer key) {
  const ValueKey *of = key;
  return (guint)values_hash(of->values, of->count);
}

gboolean value_key_equal(gconstpointer a, gconstpointer b) {
  const ValueKey *x = a, *y = b;
  return x->count == y->count && values_equal(x->values, y->values, x->count);
}

static void append_time(GString *text, int64_t us, unsigned fraction, size_t cut) {
  char time[DATETIME_TEXT_SIZE];
  size_t length = datetime_format(us, fraction, time);
  g_string_append_len(text, time, (gssize)(length - cut));
}

void value_append_text(GString *text, const Value *value) {
  char number[REAL_TEXT_SIZE];
  switch (value->kind) {
  case VALUE_NULL: g_string_append(text, "NULL"); return;
  case VALUE_INT: g_string_append_printf(text, "%" G_GINT64_FORMAT, value->integer); return;
  case VALUE_UINT: g_string_append_printf(text, "%" G_GUINT64_FORMAT, value->natural); return;
  case VALUE_DOUBLE:
    real_format(value->real, number);
    g_string_append(text, number);
    return;
  case VALUE_DECIMAL:
  case VALUE_TEXT: g_string_append_len(text, value->text, value->length); return;
  case VALUE_BINARY:
    g_string_append(text, "0x");
    for (uint32_t i = 0; i < value->length; i++)
      g_string_append_printf(text, "%02x", value->bytes[i]);
    return;
  case VALUE_DATE: append_time(text, value->us, 0, strlen(" 00:00:00")); return;
  case VALUE_DATETIME: append_time(text, value->us, value->length, 0); return;
  }
}

static bool value_decimal(const Value *value, Decimal *ret_decimal) {
  switch (value->kind) {
  case VALUE_INT: decimal_from_int64(value->integer, ret_decimal); return true;
  case VALUE_UINT: decimal_from_uint64(value->natural, ret_decimal); return true;
  case VALUE_DECIMAL: return decimal_parse(value->text, value->length, ret_decimal);
  default: return false;
  }
}

static int compare_bytes(const Value *a, const Value *b) {
  uint32_t length = MIN(a->length, b->length);
  int order = length ? memcmp(a->bytes, b->bytes, length) : 0;
  return order ? (order > 0) - (order < 0) : (a->length > b->length) - (a->length < b->length);
}

static int compare_decimals(const Value *a, const Value *b) {
  Decimal x, y, difference;
  if (!value_decimal(a, &x) || !value_decimal(b, &y))
    return 0;
  y.negative = y.count > 0 && !y.negative;
  if (!decimal_add(&x, &y, &difference) || difference.count == 0)
    return 0;
  return difference.negative ? -1 : 1;
}

int value_compare(const Value *a, const Value *b) {
  if (a->kind != b->kind)
    return (a->kind > b->kind) - (a->kind < b->kind);
  switch (a->kind) {
  case VALUE_NULL: return 0;
  case VALUE_INT: return (a->integer > b->integer) - (a->integer < b->integer);
  case VALUE_UINT: return (a->natural > b->natural) - (a->natural < b->natural);
  case VALUE_DOUBLE: return (a->real > b->real) - (a->real < b->real);
  case VALUE_DECIMAL: return compare_decimals(a, b);
  case VALUE_TEXT:
  case VALUE_BINARY: return compare_bytes(a, b);
  case VALUE_DATE:
  case VALUE_DATETIME: return (a->us > b->us) - (a->us < b->us);
  }
  return 0;
}

bool value_add(const Value *base, const Value *delta, const Column *column, Arena *arena,
               Value *ret_sum) {
  if (base->kind == VALUE_DOUBLE) {
    *ret_sum = (Value){.kind = VALUE_DOUBLE, .real = base->real + delta->real};
    return isfinite(ret_sum->real);
  }
  Decimal a, b, sum;
  if (!value_decimal(base, &a) || !value_decimal(delta, &b) || !decimal_add(&a, &b, &sum))
    return false;
  if (column)
    return number_fits(&sum, &column->type, arena, ret_sum);
  *ret_sum = decimal_value(&sum, arena);
  return true;
}

Value value_negate(const Value *value, Arena *arena) {
  if (value->kind == VALUE_DOUBLE)
    return (Value){.kind = VALUE_DOUBLE, .real = -value->real};
  Decimal decimal;
  if (!value_decimal(value, &decimal))
    return *value;
  decimal.negative = decimal.count > 0 && !decimal.negative;
  return decimal_value(&decimal, arena);
}

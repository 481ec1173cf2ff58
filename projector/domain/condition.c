/* condition.c - reads conditions from the mapping file and evaluates them. */
#include "projector/domain/condition.h"

#include "projector/domain/datetime.h"
#include "projector/domain/decimal.h"
#include "projector/domain/json.h"
#include "projector/domain/real.h"

#include <math.h>
#include <string.h>

typedef enum Test { TEST_ALL, TEST_ANY, TEST_NOT, TEST_IS, TEST_EXISTS } Test;

typedef struct Constant {
  const uint8_t *bytes;
  uint32_t length;
} Constant;

struct Condition {
  Test test;
  unsigned count;          /* of parts, or of constants */
  const Condition **parts; /* all, any, not */
  Source source;           /* is, exists */
  Constant *constants;     /* is: one of these */
  bool wanted;             /* with exists */
};

enum { DEEPEST = 16 };

/* --- reading -------------------------------------------------------------------------------- */

static bool parse_constant(const json_t *json, const char *path, Arena *arena, Constant *constant,
                           Failure *ret_failure) {
  bool plain = json_is_string(json) || json_is_number(json) || json_is_boolean(json) ||
               json_is_null(json) || json_is_object(json);
  if (!json || !plain)
    return json_complain(path, "a text, a number, true, false, null or a value in extended JSON",
                         json, ret_failure);
  return constant_from_json(json, path, arena, &constant->bytes, &constant->length, ret_failure);
}

static bool parse_constants(const json_t *json, const char *path, Arena *arena,
                            Condition *condition, Failure *ret_failure) {
  if (!json_is_array(json) || json_array_size(json) == 0)
    return json_complain(path, "a list of at least one value", json, ret_failure);
  condition->constants = arena_alloc(arena, json_array_size(json), sizeof *condition->constants);
  size_t i;
  const json_t *member;
  json_array_foreach(json, i, member) {
    g_autofree char *full = g_strdup_printf("%s[%zu]", path, i);
    if (!parse_constant(member, full, arena, &condition->constants[condition->count++],
                        ret_failure))
      return false;
  }
  return true;
}

static bool parse_path(const json_t *json, const char *path, ConditionScope scope, Arena *arena,
                       Condition *condition, Failure *ret_failure) {
  g_autofree char *full = json_path(path, "path");
  const json_t *text = json_object_get(json, "path");
  if (!source_from_json(text, full, arena, &condition->source, ret_failure) ||
      !source_check_event(&condition->source, full, ret_failure))
    return false;
  if (scope == CONDITION_OF_ENTITY && !source_is_of_entity(&condition->source))
    return json_complain(full,
                         "a path that an entity has too: into the payload, or $aggregate_id (a "
                         "refresh reads the entity, which has no event)",
                         text, ret_failure);
  return true;
}

static bool parse_test(const json_t *json, const char *path, ConditionScope scope, Arena *arena,
                       Condition *condition, Failure *ret_failure) {
  static const char *const keys[] = {"path", "is", "in", "exists", NULL};
  const json_t *is = json_object_get(json, "is"), *in = json_object_get(json, "in"),
               *exists = json_object_get(json, "exists");
  if (!json_check_object(json, path, keys, ret_failure) ||
      !parse_path(json, path, scope, arena, condition, ret_failure))
    return false;
  if (!!is + !!in + !!exists != 1)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                       "%s: expected one of \"is\", \"in\" and \"exists\" beside \"path\"", path);
  g_autofree char *full = json_path(path, is ? "is" : "in");
  condition->test = exists ? TEST_EXISTS : TEST_IS;
  if (exists)
    return json_take_bool(json, path, "exists", &condition->wanted, ret_failure);
  if (in)
    return parse_constants(in, full, arena, condition, ret_failure);
  condition->constants = arena_alloc(arena, 1, sizeof *condition->constants);
  condition->count = 1;
  return parse_constant(is, full, arena, condition->constants, ret_failure);
}

typedef struct ConditionReader {
  ConditionScope scope;
  Arena *arena;
  Failure *failure;
} ConditionReader;

static const Condition *parse(const json_t *json, const char *path, int depth,
                              const ConditionReader *reader);

static bool parse_parts(const json_t *json, const char *path, int depth,
                        const ConditionReader *reader, Condition *condition) {
  bool list = condition->test != TEST_NOT;
  if (list && (!json_is_array(json) || json_array_size(json) == 0))
    return json_complain(path, "a list of at least one condition", json, reader->failure);
  condition->count = list ? (unsigned)json_array_size(json) : 1;
  condition->parts = arena_alloc(reader->arena, condition->count, sizeof *condition->parts);
  for (unsigned i = 0; i < condition->count; i++) {
    g_autofree char *full = list ? g_strdup_printf("%s[%u]", path, i) : g_strdup(path);
    condition->parts[i] = parse(list ? json_array_get(json, i) : json, full, depth + 1, reader);
    if (!condition->parts[i])
      return false;
  }
  return true;
}

static const Condition *parse(const json_t *json, const char *path, int depth,
                              const ConditionReader *reader) {
  static const char *const names[] = {[TEST_ALL] = "all", [TEST_ANY] = "any", [TEST_NOT] = "not"};
  Condition *condition = arena_alloc(reader->arena, 1, sizeof *condition);
  if (depth > DEEPEST) {
    failure_set(reader->failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                "%s: conditions may be nested %d deep", path, DEEPEST);
    return NULL;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    const char *const keys[] = {names[i], NULL};
    const json_t *parts = json_object_get(json, names[i]);
    if (!parts)
      continue;
    g_autofree char *full = json_path(path, names[i]);
    condition->test = (Test)i;
    return json_check_object(json, path, keys, reader->failure) &&
                   parse_parts(parts, full, depth, reader, condition)
               ? condition
               : NULL;
  }
  return parse_test(json, path, reader->scope, reader->arena, condition, reader->failure)
             ? condition
             : NULL;
}

const Condition *condition_parse(const json_t *json, const char *path, ConditionScope scope,
                                 Arena *arena, Failure *ret_failure) {
  const ConditionReader reader = {scope, arena, ret_failure};
  return parse(json, path, 0, &reader);
}

/* --- comparing ------------------------------------------------------------------------------ */

static bool is_null(const bson_iter_t *iter) {
  return BSON_ITER_HOLDS_NULL(iter) || bson_iter_type(iter) == BSON_TYPE_UNDEFINED;
}

/* Numbers of all types compare by value: 1, 1.0 and Decimal128 1.00 are equal. */
static bool read_number(const bson_iter_t *iter, Decimal *ret_decimal) {
  char text[MAX(BSON_DECIMAL128_STRING, REAL_TEXT_SIZE)];
  bson_decimal128_t number;
  switch (bson_iter_type(iter)) {
  case BSON_TYPE_INT32:
  case BSON_TYPE_INT64: decimal_from_int64(bson_iter_as_int64(iter), ret_decimal); return true;
  case BSON_TYPE_DOUBLE:
    if (!isfinite(bson_iter_double(iter)))
      return false;
    real_format(bson_iter_double(iter), text);
    break;
  case BSON_TYPE_DECIMAL128:
    bson_iter_decimal128(iter, &number);
    bson_decimal128_to_string(&number, text);
    break;
  default: return false;
  }
  return decimal_parse(text, strlen(text), ret_decimal);
}

static bool same_number(const bson_iter_t *a, const bson_iter_t *b) {
  Decimal x, y, difference;
  if (!read_number(a, &x) || !read_number(b, &y))
    return bson_iter_type(a) == BSON_TYPE_DOUBLE && bson_iter_type(b) == BSON_TYPE_DOUBLE &&
           real_distance(bson_iter_double(a), bson_iter_double(b)) == 0;
  y.negative = y.count > 0 && !y.negative;
  return decimal_add(&x, &y, &difference) && difference.count == 0;
}

/* A text in the file may also be the text form of an id or of a time. */
static bool same_text(const bson_iter_t *found, const bson_iter_t *wanted) {
  uint32_t length, found_length;
  const char *text = bson_iter_utf8(wanted, &length);
  if (BSON_ITER_HOLDS_UTF8(found)) {
    const char *other = bson_iter_utf8(found, &found_length);
    return length == found_length && !memcmp(text, other, length);
  }
  int64_t us;
  if (BSON_ITER_HOLDS_DATE_TIME(found))
    return datetime_parse(text, length, true, &us) && us % 1000 == 0 &&
           us / 1000 == bson_iter_date_time(found);
  Id id, other;
  uint8_t bytes[16];
  return id_from_iter(found, &id) && (id.kind == ID_UUID || id.kind == ID_OBJECTID) &&
         id_from_text(id.kind, text, length, bytes, &other) && id_equal(&id, &other);
}

static bool same(const bson_iter_t *found, const bson_iter_t *wanted);

/* Members in the same order, each by the rules of a single value. */
static bool same_members(const bson_iter_t *found, const bson_iter_t *wanted) {
  bson_iter_t a, b;
  if (bson_iter_type(found) != bson_iter_type(wanted) || !bson_iter_recurse(found, &a) ||
      !bson_iter_recurse(wanted, &b))
    return false;
  for (;;) {
    bool another = bson_iter_next(&a);
    if (another != bson_iter_next(&b))
      return false;
    if (!another)
      return true;
    if (strcmp(bson_iter_key(&a), bson_iter_key(&b)) != 0 || !same(&a, &b))
      return false;
  }
}

static bool same(const bson_iter_t *found, const bson_iter_t *wanted) {
  if (BSON_ITER_HOLDS_DOCUMENT(wanted) || BSON_ITER_HOLDS_ARRAY(wanted))
    return same_members(found, wanted);
  if (is_null(found) || is_null(wanted))
    return is_null(found) && is_null(wanted);
  if (BSON_ITER_HOLDS_UTF8(wanted))
    return same_text(found, wanted);
  Decimal number;
  if (read_number(wanted, &number) || BSON_ITER_HOLDS_DOUBLE(wanted))
    return same_number(found, wanted);
  bson_iter_t x_iter = *found, y_iter = *wanted; /* bson_iter_value keeps its result in them */
  const bson_value_t *a = bson_iter_value(&x_iter), *b = bson_iter_value(&y_iter);
  if (a->value_type != b->value_type)
    return false;
  bson_t x = BSON_INITIALIZER, y = BSON_INITIALIZER;
  bson_append_value(&x, "v", 1, a);
  bson_append_value(&y, "v", 1, b);
  bool equal = bson_equal(&x, &y);
  bson_destroy(&x);
  bson_destroy(&y);
  return equal;
}

static bool is_one_of(const Condition *condition, const bson_iter_t *found) {
  for (unsigned i = 0; i < condition->count; i++) {
    bson_iter_t wanted;
    if (constant_find(condition->constants[i].bytes, condition->constants[i].length, &wanted) &&
        same(found, &wanted))
      return true;
  }
  return false;
}

/* --- answering ------------------------------------------------------------------------------ */

static bool test_holds(const Condition *condition, const Event *event, bool *ret_holds,
                       Failure *ret_failure) {
  bson_iter_t found;
  bool there = source_find(&condition->source, event, &found) != NULL;
  if (condition->test == TEST_EXISTS) {
    *ret_holds = there == condition->wanted;
    return true;
  }
  if (!there) {
    g_autofree char *names = source_names(&condition->source);
    return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0,
                       "%s: expected a value to compare with in \"when\", found nothing", names);
  }
  *ret_holds = is_one_of(condition, &found);
  return true;
}

bool condition_holds(const Condition *condition, const Event *event, bool *ret_holds,
                     Failure *ret_failure) {
  if (condition->test == TEST_IS || condition->test == TEST_EXISTS)
    return test_holds(condition, event, ret_holds, ret_failure);
  bool any = condition->test == TEST_ANY, holds = !any;
  for (unsigned i = 0; i < condition->count; i++) {
    if (!condition_holds(condition->parts[i], event, &holds, ret_failure))
      return false;
    if (condition->test != TEST_NOT && holds == any)
      break; /* other types compare as they are */
  }
  *ret_holds = condition->test == TEST_NOT ? !holds : holds;
  return true;
}

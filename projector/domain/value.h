/* value.h - one SQL value, and its exact conversion from BSON.
 *
 * A conversion is exact or it fails: nothing is rounded, truncated, padded or defaulted. */
#pragma once

#include "projector/domain/arena.h"
#include "projector/domain/event.h"
#include "projector/domain/mapping.h"

typedef enum ValueKind {
  VALUE_NULL,
  VALUE_INT,
  VALUE_UINT,
  VALUE_DOUBLE,
  VALUE_DECIMAL, /* text: "-12.50" */
  VALUE_TEXT,    /* UTF-8 */
  VALUE_BINARY,
  VALUE_DATE,     /* us */
  VALUE_DATETIME, /* us, UTC */
} ValueKind;

typedef struct Value {
  ValueKind kind;
  uint32_t length; /* of text or bytes; fraction digits of VALUE_DATETIME */
  union {
    int64_t integer;
    uint64_t natural;
    double real;
    const char *text; /* not NUL-terminated; lives as long as the event or the arena */
    const uint8_t *bytes;
    int64_t us; /* microseconds since 1970 */
  };
} Value;

/* Finds what the source names in the event; false when it is missing. */
bool source_find(const Source *source, const Event *event, bson_iter_t *ret_iter);

/* The source's value as the column's type. Missing and null become VALUE_NULL when the column may
 * be NULL. The failure names path, expected and found. New bytes go into the arena. */
bool value_for_column(const Event *event, const Source *source, const Column *column, Arena *arena,
                      Value *ret_value, Failure *ret_failure);

/* The value of an `sql` parameter: as its column's type, or as BSON's own type suggests. */
bool value_for_parameter(const Event *event, const Parameter *parameter,
                         const Projection *projection, Arena *arena, Value *ret_value,
                         Failure *ret_failure);

bool value_equal(const Value *a, const Value *b);

/* `base` + `delta` of a numeric column, as the server would compute it; both not NULL. Without
 * `column` the sum of two deltas, which need not fit the column yet. False: does not fit. */
bool value_add(const Value *base, const Value *delta, const Column *column, Arena *arena,
               Value *ret_sum);
/* The value with the other sign; a number. */
Value value_negate(const Value *value, Arena *arena);

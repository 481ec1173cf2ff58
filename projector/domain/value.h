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
  bool wide;       /* JSON with a number of more digits than a double has (json_number.h) */
  union {
    int64_t integer;
    uint64_t natural;
    double real;
    const char *text; /* not NUL-terminated; lives as long as the event or the arena */
    const uint8_t *bytes;
    int64_t us; /* microseconds since 1970 */
  };
} Value;

/* The source's value as the column's type. Missing and null become VALUE_NULL when the column may
 * be NULL. The failure names path, expected and found. New bytes go into the arena. */
bool value_for_column(const Event *event, const Source *source, const Column *column, Arena *arena,
                      Value *ret_value, Failure *ret_failure);

/* What the column holds when a writer does not set it: its `value` or `default`. False if it has
 * neither. */
bool value_of_default(const Column *column, Arena *arena, Value *ret_value);

/* The value of an `sql` parameter: as its column's type, or as BSON's own type suggests. */
bool value_for_parameter(const Event *event, const Parameter *parameter,
                         const Projection *projection, Arena *arena, Value *ret_value,
                         Failure *ret_failure);

/* With bytes of its own in the arena. */
Value value_copy(const Value *value, Arena *arena);
bool value_equal(const Value *a, const Value *b);
/* Numbers and dates by size, texts and bytes by their bytes; values of different kinds by kind. */
int value_compare(const Value *a, const Value *b);
/* Of `count` values, for tables of keys: equal values have equal hashes. */
uint64_t values_hash(const Value *values, unsigned count);
bool values_equal(const Value *a, const Value *b, unsigned count);
/* GLib adapters: keys are ValueKey*. */
typedef struct ValueKey {
  const Value *values;
  unsigned count;
} ValueKey;

guint value_key_hash(gconstpointer key);
gboolean value_key_equal(gconstpointer a, gconstpointer b);
/* The value in readable form: 12.5, 2024-01-02 03:04:05.678, 0x00ff, NULL; texts as they are. */
void value_append_text(GString *text, const Value *value);

/* `base` + `delta` of a numeric column, as the server would compute it; both not NULL. Without
 * `column` the sum of two deltas, which need not fit the column yet. Returns false when it does not
 * fit. */
bool value_add(const Value *base, const Value *delta, const Column *column, Arena *arena,
               Value *ret_sum);
/* The value with the other sign; a number. */
Value value_negate(const Value *value, Arena *arena);

/* value_special.h - conversions of the rarer types: enum, year, time, bit(1), float, and json as
 * plain values. Exact, as those of value.h. */
#pragma once

#include "projector/domain/value.h"

/* Whether the type is one of these. */
bool type_is_special(const ColumnType *type);
bool special_convert(const bson_iter_t *iter, const ColumnType *type, Arena *arena,
                     Value *ret_value);
/* From the text in which MySQL sends a column of that type. */
bool special_from_sql(const char *text, size_t length, const ColumnType *type, Arena *arena,
                      Value *ret_value);
/* The innermost value that plain JSON does not hold, after a conversion that failed. Returns its
 * path behind that of `iter`, "a.0" or "", shortened. Free with g_free. */
char *plain_json_misfit(const bson_iter_t *iter, bson_iter_t *ret_value);

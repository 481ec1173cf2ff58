/* value_text.h - values from text: as MySQL sends them, and as a user writes them. */
#pragma once

#include "projector/domain/value.h"

/* From the text in which MySQL sends a column of that type; exact, or false. */
bool value_from_sql(const char *text, size_t length, const ColumnType *type, Arena *arena,
                    Value *ret_value);
/* From user input: the same, with UUIDs in their usual form and bytes as 0x00ff. */
bool value_from_text(const char *text, size_t length, const ColumnType *type, Arena *arena,
                     Value *ret_value);

/* json_literal.h - JSON as an expression in which MySQL keeps every digit of its numbers. */
#pragma once

#include "projector/domain/value.h"

/* For a value that is `wide` (domain/value.h): JSON_OBJECT and JSON_ARRAY around DECIMALs. MariaDB
 * keeps the text, and needs none of it. */
void json_literal_append(GString *sql, const Value *value);

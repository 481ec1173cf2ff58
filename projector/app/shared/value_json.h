/* value_json.h - values and ids as JSON, for what commands and the page print. */
#pragma once

#include "projector/domain/value.h"

#include <jansson.h>

/* Texts from outside, made valid UTF-8; NULL of a column is null. */
json_t *text_json(const char *text, size_t length);
json_t *value_json(const Value *value);
/* The same in the form that MySQL shows for that column: 37.70 for a decimal(18,2). */
json_t *column_json(const Column *column, const Value *value);
json_t *id_json(const Id *id);

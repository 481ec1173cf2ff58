/* statement.h - the one SQL statement of an `sql` rule: named parameters become placeholders. */
#pragma once

#include "projector/domain/mapping.h"

/* Reads a dotted path into the payload, or `$event_id`, `$aggregate_id`, `$version`,
 * `$occurred_at`,
 * `$event_type`, `$metadata.x`. False when it is neither. Strings go into `chunk`. */
bool source_parse(const char *text, size_t length, GStringChunk *chunk, Source *ret_source);

/* Fills statement, parameter_count and parameters of the rule from ":name" marks outside quotes and
 * comments. Refuses an empty statement and more than one. `ret_wrong` says what was expected. */
bool statement_parse(const char *text, GStringChunk *chunk, Rule *rule, const char **ret_wrong);

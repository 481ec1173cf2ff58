/* readable.h - documents that cannot be written as JSON, as they can: MongoDB also keeps texts that
 * are not UTF-8. */
#pragma once

#include <bson/bson.h>
#include <stdbool.h>

/* Appends the document with U+FFFD in place of the bytes that are not UTF-8, in texts and in names.
 * Returns false if a part of it could not be read and was left out. */
bool readable_append(const bson_t *document, bson_t *to);

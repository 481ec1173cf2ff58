/* json_document.h - documents that stand as text in the mapping file, in cases and in payloads. */
#pragma once

#include "projector/domain/failure.h"

#include <bson/bson.h>

/* The document of a text in (Extended) JSON; `path` is where it stands. NULL: a configuration
 * failure that says where something is no value. Free with bson_destroy. */
bson_t *json_document_read(const char *text, size_t length, const char *path, Failure *ret_failure);

/* The same for the text of another program: what has more digits than a double becomes a
 * Decimal128, or is refused. */
bson_t *json_document_read_exactly(const char *text, size_t length, const char *path,
                                   Failure *ret_failure);

/* Whether a text is to be read as a document: it begins with a brace. */
bool json_document_begins(const char *text, size_t length);

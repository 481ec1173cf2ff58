/* literal.h - values as SQL literals that cannot be misread.
 *
 * A quoted literal holds only bytes from a short list without quotes and backslashes; every other
 * text and all binary values are written in hexadecimal. Nothing needs escaping, and no server mode
 * changes how they are read. */
#pragma once

#include "projector/domain/value.h"

void literal_append(GString *sql, const Value *value);
void literal_append_text(GString *sql, const void *bytes, size_t length);
void literal_append_binary(GString *sql, const void *bytes, size_t length);
/* For VARBINARY columns that mostly contain plain text: quoted if it is, otherwise hexadecimal. */
void literal_append_bytes(GString *sql, const void *bytes, size_t length);
/* `name`; names come from the checked mapping file and never hold a backtick. */
void literal_append_name(GString *sql, const char *name);

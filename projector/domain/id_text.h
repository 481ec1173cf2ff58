/* id_text.h - the text forms of the kinds of ids, for event.c. */
#pragma once

#include "projector/domain/event.h"

bool id_read_uuid(const char *text, size_t length, uint8_t bytes[static 16]);
bool id_read_objectid(const char *text, size_t length, uint8_t bytes[static 12]);
/* Only the text form itself: "007" and "+7" are other ids than 7. */
bool id_read_int(const char *text, size_t length, int64_t *ret_number);

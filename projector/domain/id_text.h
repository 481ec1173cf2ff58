/* id_text.h - the text forms of the kinds of ids, for event.c, and of an event's `_id` that breaks
 * the contract. */
#pragma once

#include "projector/domain/event.h"

bool id_read_uuid(const char *text, size_t length, uint8_t bytes[static 16]);
bool id_read_objectid(const char *text, size_t length, uint8_t bytes[static 12]);
/* Only the text form itself: "007" and "+7" are other ids than 7. */
bool id_read_int(const char *text, size_t length, int64_t *ret_number);

/* The `_id` of kind ID_OTHER as relaxed Extended JSON; NULL: there is none, or it has none. Free
 * with g_free. */
char *id_other_json(const Id *id);
/* The same, or "(not a valid id)"; a long one is cut to the buffer and ends with "…". Returns the
 * length. */
size_t id_other_text(const Id *id, char text[static ID_TEXT_SIZE]);
/* The value in {"": value} that the text means as Extended JSON, if MongoDB can have it as an `_id`
 * and it breaks the contract; else NULL. Destroy it. */
bson_t *id_other_from_text(const char *text);

// Makes foreign text harmless for a terminal: nothing in it moves the cursor, changes the reading
// direction or begins a new line.
#ifndef OUTBOX_TEXT_CLEAN_H
#define OUTBOX_TEXT_CLEAN_H

#include <glib.h>
#include <stdbool.h>

// A control character, a line separator, or one that turns the direction of what follows.
bool is_hidden_character(gunichar c);

// Hidden characters become \x1b or \u202e, bytes that are no UTF-8 \xff. Those in `also` (ASCII,
// may be "") get a backslash.
void text_append_clean(GString *to, const char *text, const char *also);

// The same for valid JSON: inside its strings \u202e means the same character. Free with g_free.
char *json_text_clean(const char *text);

#endif

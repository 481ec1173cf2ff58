/* log_writer.h - writes lines to stderr in a separate thread, in order.
 *
 * Logging never blocks, neither on an unread pipe nor on a stopped terminal. Lines that find no
 * room are dropped and counted, and replaced by one line with their number. */
#pragma once

#include <stdint.h>

/* From here on lines are queued; before, they are written at once. `notice` makes the line that
 * says how many were dropped, for g_free. May be called again. */
void log_writer_start(char *(*notice)(int64_t dropped));

/* Takes ownership of the line, allocated by g_malloc, without its newline. */
void log_writer_put(char *line);

/* Waits at most that long until everything has been written. */
void log_writer_flush(int64_t limit_ms);

/* Lines that were never written: no room, or stderr refused them. */
int64_t log_writer_dropped(void);

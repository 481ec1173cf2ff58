/* log_writer.h - takes lines to stderr in a thread of its own, in order.
 *
 * Whoever logs never waits: not for a pipe that nobody reads, not for a terminal that was stopped.
 * Lines that find no room are dropped and counted, and one line in their place says how many. */
#pragma once

#include <stdint.h>

/* From here on lines are queued; before, they are written at once. `notice` makes the line that
 * says how many were dropped, for g_free. May be called again. */
void log_writer_start(char *(*notice)(int64_t dropped));

/* Takes the line, which g_malloc gave, without its newline. */
void log_writer_put(char *line);

/* Waits at most that long until everything has been written. */
void log_writer_flush(int64_t limit_ms);

/* Lines that were never written: no room, or stderr refused them. */
int64_t log_writer_dropped(void);

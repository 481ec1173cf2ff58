/* journal.h - the progress of a long command in a file, so that it can be resumed after kill -9.
 *
 * Lines are only appended: a header, the printed lines, and checkpoints. Findings after the last
 * checkpoint are found again by the resumed command, except repaired ones, which therefore count.
 */
#pragma once

#include "projector/app/shared/config.h"

#include <jansson.h>

typedef struct Journal Journal;

/* Takes a line of an earlier part. */
typedef void (*JournalLine)(const json_t *line, void *data);

/* Opens the file, which no other process may have open. With `resume`, passes the earlier part's
 * lines to `take` and its last checkpoint to `*ret_checkpoint` (NULL: nothing to resume); it must
 * have begun with the same header. Takes ownership of the header. */
Journal *journal_open(const char *path, json_t *header, bool resume, JournalLine take, void *data,
                      json_t **ret_checkpoint, Failure *ret_failure);
/* With NULL, for a command without a journal, does nothing. */
void journal_line(Journal *journal, const json_t *line);
/* Takes ownership of the checkpoint. */
void journal_checkpoint(Journal *journal, json_t *checkpoint);
/* Ends the command and deletes the file, unless it `failed`. */
void journal_close(Journal *journal, bool failed);

/* The default path of the command's file for a projector of that name. Free with g_free. */
char *journal_path(const char *name, const char *command);
/* What must be the same when the command is resumed: stores, tables and mapping. */
json_t *journal_header(const Config *config, const char *command);

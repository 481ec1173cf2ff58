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

typedef struct JournalOptions {
  const char *command;
  const char *state; /* the file; NULL: the command's own, in the user's state directory */
  bool resume;
  JournalLine take;
  void *data;
} JournalOptions;

/* Opens the file, which no other process may have open. With `resume`, passes the earlier part's
 * lines to `take` and its last checkpoint to `*ret_checkpoint` (NULL: nothing to resume); it must
 * have begun with the same stores, tables and mapping, and the same `own` options, whose ownership
 * is taken. Without `resume`, a file that cannot be opened is no failure: stderr says so, and
 * `*ret_journal` is NULL. */
bool journal_begin(const JournalOptions *options, const Config *config, json_t *own,
                   Journal **ret_journal, json_t **ret_checkpoint, Failure *ret_failure);
/* With NULL, for a command without a journal, does nothing. */
void journal_line(Journal *journal, const json_t *line);
/* Takes ownership of the checkpoint. */
void journal_checkpoint(Journal *journal, json_t *checkpoint);
/* Ends the command and deletes the file, unless it `failed`. */
void journal_close(Journal *journal, bool failed);

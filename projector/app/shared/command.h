/* command.h - the commands of the program and what they share.
 *
 * Results go to stdout, the log to stderr. Each command parses its own options. */
#pragma once

#include "projector/app/shared/config.h"

#include <glib.h>
#include <stdio.h>

typedef enum ExitStatus {
  EXIT_GOOD = 0,
  EXIT_NO = 1,          /* the answer is no: differences, not healthy, nothing to do */
  EXIT_WRONG = 2,       /* wrong use or configuration */
  EXIT_UNREACHABLE = 3, /* a store could not be reached */
} ExitStatus;

int command_archive(int argc, char **argv);
int command_check(int argc, char **argv);
int command_events(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_list(int argc, char **argv);
int command_pause(int argc, char **argv);
int command_rebuild(int argc, char **argv);
int command_reconcile(int argc, char **argv);
int command_refresh(int argc, char **argv);
int command_replay(int argc, char **argv);
int command_resume(int argc, char **argv);
int command_retry(int argc, char **argv);
int command_run(int argc, char **argv);
int command_schema(int argc, char **argv);
int command_skip(int argc, char **argv);
int command_status(int argc, char **argv);
int command_try(int argc, char **argv);
int command_wait(int argc, char **argv);

/* The text of --help. */
typedef struct CommandHelp {
  const char *usage;           /* after the command's name */
  const char *summary;         /* what it does */
  const GOptionEntry *options; /* its own; or NULL */
} CommandHelp;

/* Parses the options of a command and the common -c FILE, and loads the file. Returns false when
 * the command ends here (--help, or wrong use) with exit status `*ret_status`. */
bool command_begin(int *argc, char ***argv, const CommandHelp *help, Config **ret_config,
                   int *ret_status);
/* The same for a command that needs no store: of the file only the projections are read. */
bool command_begin_without_stores(int *argc, char ***argv, const CommandHelp *help,
                                  Config **ret_config, int *ret_status);

/* To stdout: JSON text that stays valid JSON and is harmless for a terminal. */
void command_print_json_text(const char *text);
/* To stdout, with jansson's flags and a newline. */
void command_print_json(const json_t *json, size_t flags);

/* The projections that a command works on: the one that fills `table`, or (NULL) all that have
 * `entities`. `purpose` completes the error message: "compare with". Adds to `projections`. */
bool command_projections(const Config *config, const char *table, const char *purpose,
                         GPtrArray *projections, Failure *ret_failure);

/* Whether part of the results could not be written to stdout, except when the reader of a pipe has
 * exited. */
bool command_output_is_lost(void);

/* Parses an aggregate's version; NULL gives 0, any. Prints an error and returns false when it is
 * invalid. */
bool command_version(const char *text, int64_t *ret_version);

/* Prints which arguments were expected; returns EXIT_WRONG. */
int command_misuse(const char *expected);

/* Prints foreign text; see outbox/text/clean.h. */
void print_clean(FILE *to, const char *text);

/* Prints the failure as one line on stderr and returns the exit status for its class. */
int command_fail(const Failure *failure);

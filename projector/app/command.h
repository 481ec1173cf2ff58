/* command.h - the commands of the program and what they share.
 *
 * Results go to stdout, the log to stderr. Each command parses its own options. */
#pragma once

#include "projector/app/config.h"

#include <glib.h>

typedef enum ExitStatus {
  EXIT_GOOD = 0,
  EXIT_NO = 1,          /* the answer is no: differences, not healthy, nothing to do */
  EXIT_WRONG = 2,       /* wrong use or configuration */
  EXIT_UNREACHABLE = 3, /* a store could not be reached */
} ExitStatus;

int command_check(int argc, char **argv);
int command_list(int argc, char **argv);
int command_refresh(int argc, char **argv);
int command_retry(int argc, char **argv);
int command_run(int argc, char **argv);
int command_schema(int argc, char **argv);
int command_skip(int argc, char **argv);
int command_status(int argc, char **argv);

/* Parses the options of a command (`own` may be NULL) and the common -c FILE, and loads the file.
 * `usage` is what stands behind the command's name in --help, `summary` what it does. False: parsed
 * to the end already (--help) or wrong; `*ret_status` is the exit status. */
bool command_begin(int *argc, char ***argv, const char *usage, const char *summary,
                   const GOptionEntry *own, Config **ret_config, int *ret_status);

/* Says what was expected of the arguments; returns EXIT_WRONG. */
int command_misuse(const char *expected);

/* Says the failure in one line on stderr and gives the exit status for its class. */
int command_fail(const Failure *failure);

// The program `outbox`: chooses the command.
#include "outbox/cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} COMMANDS[] = {
    {"init", cli_init, "create the outbox collection and its indexes"},
    {"put", cli_put, "write events, given as JSON on stdin, with or without their entities"},
    {"demo", cli_demo, "write the events of a small bank at a rate"},
};

static void print_help(FILE *to) {
  fputs("Usage: outbox COMMAND [options]\n\n"
        "The write side of an outbox in MongoDB.\n\n",
        to);
  for (size_t i = 0; i < G_N_ELEMENTS(COMMANDS); i++) {
    fprintf(to, "  %-6s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
  }
  fputs(
      "\n'outbox COMMAND --help' shows the options of a command.\n"
      "Exit status: 0 good, 1 the answer is \"no\", 2 wrong use or input, 3 MongoDB not reached.\n",
      to);
}

static int dispatch(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return STATUS_WRONG;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
      strcmp(argv[1], "help") == 0) {
    print_help(stdout);
    return STATUS_GOOD;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("outbox %s\n", OUTBOX_VERSION);
    return STATUS_GOOD;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(COMMANDS); i++) {
    if (strcmp(argv[1], COMMANDS[i].name) == 0) {
      return COMMANDS[i].run(argc - 1, argv + 1);
    }
  }
  cli_say("there is no command '%s' (try 'outbox --help')", argv[1]);
  return STATUS_WRONG;
}

// A closed descriptor would become a connection to MongoDB, and our output would go there.
// Opened the wrong way round, reading and writing fail as expected.
static void fill_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      abort();
}

int main(int argc, char **argv) {
  fill_descriptors();
  mongoc_init();
  // Errors are reported once, by the command.
  mongoc_log_set_handler(NULL, NULL);
  int status = dispatch(argc, argv);
  mongoc_cleanup();
  if (fflush(stdout) != 0 || ferror(stdout)) {
    cli_say("stdout: cannot be written");
    return status == STATUS_GOOD ? STATUS_WRONG : status;
  }
  return status;
}

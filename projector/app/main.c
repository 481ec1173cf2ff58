/* main.c - the program `projector`: finds the command and runs it. */
#include "projector/app/shared/command.h"
#include "projector/infra/log.h"

#include <fcntl.h>
#include <malloc.h>
#include <mongoc/mongoc.h>
#include <mysql.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} commands[] = {
    {"run", command_run, "apply the outbox's events until stopped (--once: until none is left)"},
    {"check", command_check,
     "check file, stores, privileges and tables: problems and how to fix them"},
    {"schema", command_schema, "print the required tables; --apply creates missing ones"},
    {"status", command_status, "outbox by state, lag, owner and stores; --json for machines"},
    {"list", command_list, "failed, dead, held or other events, each with its reason"},
    {"events", command_events, "print archived events as JSON lines; --follow"},
    {"explain", command_explain, "one aggregate on one screen: entity, events, position, rows"},
    {"retry", command_retry, "retry failed or dead events, with all their attempts"},
    {"skip", command_skip, "continue without failed or dead events"},
    {"refresh", command_refresh, "rewrite one aggregate's rows from its current entity"},
    {"pause", command_pause, "apply nothing until resume; the owner keeps the lease"},
    {"resume", command_resume, "end a pause"},
    {"wait", command_wait, "wait until MySQL accounts for an aggregate's version"},
    {"reconcile", command_reconcile,
     "compare the entities with the rows; --repair corrects the rows"},
    {"rebuild", command_rebuild, "fill tables from the entities; --shadow swaps in a new one"},
    {"try", command_try,
     "show what events would change, without a store; --expect runs test cases"},
    {"archive", command_archive, "verify: whether archived events alone reproduce the entities"},
    {"replay", command_replay, "fill a table from the archived events"},
};

static void print_help(FILE *to) {
  fprintf(to, "projector - keeps MySQL tables in step with a MongoDB outbox\n\n"
              "usage: projector COMMAND -c FILE [options]\n\n");
  for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
    fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].summary);
  fprintf(to, "\n`projector COMMAND --help` shows the options of a command.\n"
              "Exit status: 0 good, 1 the answer is no, 2 wrong use or configuration, "
              "3 a store could not be reached.\n");
}

/* libmongoc's own log would mix lines of another format into ours. */
static void no_log(mongoc_log_level_t level, const char *domain, const char *message, void *data) {
  (void)level, (void)domain, (void)message, (void)data;
}

/* libmongoc keeps counters in shared memory named after the process id. A killed process leaves
 * them behind, and a later process with that id would complain about them on stderr. */
static void forget_counters(void) {
  char name[32];
  g_snprintf(name, sizeof name, "/mongoc-%d", (int)getpid());
  shm_unlink(name);
}

/* If a standard descriptor is closed, a connection to a store would get its number, and text meant
 * for the terminal would go to the store. Opened the wrong way round, reading and writing fail as
 * expected. */
static void fill_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
      abort();
}

int main(int argc, char **argv) {
  fill_descriptors();
  if (argc < 2) {
    print_help(stderr);
    return EXIT_WRONG;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
    print_help(stdout);
    return EXIT_GOOD;
  }
  if (!strcmp(argv[1], "--version")) {
    printf("projector %s\n", PROJECTOR_VERSION);
    return EXIT_GOOD;
  }
  for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
    if (strcmp(argv[1], commands[i].name) != 0)
      continue;
    /* Few threads and much memory: an arena for each thread would only fragment it. */
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 256 * 1024); /* memory for large events is given back */
    signal(SIGPIPE, SIG_IGN);
    mongoc_log_set_handler(no_log, NULL);
    mongoc_init();
    forget_counters();
    mysql_library_init(0, NULL, NULL);
    int status = commands[i].run(argc - 1, argv + 1);
    if (command_output_is_lost()) {
      log_plain("projector: the output could not be written in full");
      status = status == EXIT_GOOD || status == EXIT_NO ? EXIT_WRONG : status;
    }
    log_finish();
    mysql_library_end();
    mongoc_cleanup();
    return status;
  }
  fprintf(stderr, "projector: unknown command %s; try --help\n", argv[1]);
  return EXIT_WRONG;
}

// What the commands of the program `outbox` share.
#ifndef OUTBOX_CLI_H
#define OUTBOX_CLI_H

#include "outbox/outbox.h"

#include <glib.h>
#include <stdbool.h>

enum {
  STATUS_GOOD = 0,
  STATUS_NO = 1,    // the answer is "no": the entity is missing, the event is there already ...
  STATUS_WRONG = 2, // wrong use, configuration or input
  STATUS_STORE = 3, // MongoDB could not be reached
};

// The options that every command has.
typedef struct {
  char *uri;
  char *uri_file;
  char *database;
  char *outbox;
  mongoc_client_t *client; // set by cli_open()
} cli_store_t;

void cli_store_clear(cli_store_t *store);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(cli_store_t, cli_store_clear)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(outbox_t, outbox_destroy)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(bson_t, bson_destroy)

// A command as GOption sees it. `entries` ends with {NULL}; NULL: none of its own.
typedef struct {
  const char *name;
  const char *summary;
  const char *description; // printed below the options
  const GOptionEntry *entries;
} cli_usage_t;

// Parses the arguments (argv[0] is the command). Returns false when the command ends with
// *ret_status, because help was asked for or because something is wrong, which has been said.
bool cli_parse(const cli_usage_t *usage, int argc, char **argv, cli_store_t *store,
               int *ret_status);

// Opens the outbox, for one thread or for several, and asks the server whether it will do. NULL:
// the command ends with *ret_status; why has been said. Destroy the outbox before the store.
outbox_t *cli_open(cli_store_t *store, bool several_threads, int *ret_status);

// Prints one line on stderr: "outbox: " and the message.
void cli_say(const char *format, ...) G_GNUC_PRINTF(1, 2);

int cli_status(const outbox_error_t *error);

int cli_init(int argc, char **argv);
int cli_put(int argc, char **argv);
int cli_demo(int argc, char **argv);

#endif

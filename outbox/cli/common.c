// Options, connection and messages common to all commands.
#include "outbox/cli/cli.h"

#include "outbox/text/clean.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_URI "mongodb://127.0.0.1:27017/?replicaSet=rs0"
enum { SERVER_SELECTION_MS = 5000, SOCKET_MS = 20000, DIAGNOSIS_MS = 1500 };

G_DEFINE_AUTOPTR_CLEANUP_FUNC(mongoc_uri_t, mongoc_uri_destroy)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(mongoc_client_t, mongoc_client_destroy)

void cli_store_clear(cli_store_t *store) {
  g_free(store->uri);
  g_free(store->uri_file);
  g_free(store->database);
  g_free(store->outbox);
  mongoc_client_destroy(store->client);
}

void cli_say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  g_autofree char *message = g_strdup_vprintf(format, args);
  va_end(args);
  // A message may quote part of a text, and so cut a character in two.
  g_autofree char *valid = g_utf8_make_valid(message, -1);
  g_autoptr(GString) text = g_string_new(NULL);
  text_append_clean(text, valid, "");
  // One call, so that the lines of several threads do not mix.
  fprintf(stderr, "outbox: %s\n", text->str);
}

int cli_status(const outbox_error_t *error) {
  switch (error->kind) {
  case OUTBOX_OK: return STATUS_GOOD;
  case OUTBOX_MISSING:
  case OUTBOX_EXISTS:
  case OUTBOX_CONFLICT:
  case OUTBOX_DUPLICATE: return STATUS_NO;
  case OUTBOX_INVALID:
  case OUTBOX_REFUSED:
  case OUTBOX_UNSUPPORTED: return STATUS_WRONG;
  case OUTBOX_UNAVAILABLE:
  case OUTBOX_UNKNOWN: return STATUS_STORE;
  }
  return STATUS_WRONG;
}

bool cli_parse(const cli_usage_t *usage, int argc, char **argv, cli_store_t *store,
               int *ret_status) {
  gboolean help = FALSE;
  const GOptionEntry common[] = {
      {"uri", 0, 0, G_OPTION_ARG_STRING, &store->uri,
       "MongoDB connection string (default: $OUTBOX_URI, or " DEFAULT_URI ")", "URI"},
      {"uri-file", 0, 0, G_OPTION_ARG_FILENAME, &store->uri_file,
       "read it from a file, so that a password stays out of the arguments", "FILE"},
      {"database", 0, 0, G_OPTION_ARG_STRING, &store->database, "database (default: bank)", "NAME"},
      {"outbox", 0, 0, G_OPTION_ARG_STRING, &store->outbox,
       "collection of the events (default: outbox)", "NAME"},
      {"help", 'h', 0, G_OPTION_ARG_NONE, &help, "show this help", NULL},
      {NULL},
  };
  g_autofree char *parameters = g_strdup_printf("- %s", usage->summary);
  g_autoptr(GOptionContext) context = g_option_context_new(parameters);
  g_option_context_set_help_enabled(context, FALSE); // GLib's own would call exit()
  if (usage->entries) {
    g_option_context_add_main_entries(context, usage->entries, NULL);
  }
  g_option_context_add_main_entries(context, common, NULL);
  g_option_context_set_description(context, usage->description);
  g_autofree char *name = g_strdup_printf("outbox %s", usage->name);
  g_set_prgname(name);
  g_autoptr(GError) error = NULL;
  *ret_status = STATUS_WRONG;
  if (!g_option_context_parse(context, &argc, &argv, &error)) {
    cli_say("%s (try '%s --help')", error->message, name);
    return false;
  }
  if (help) {
    g_autofree char *text = g_option_context_get_help(context, TRUE, NULL);
    fputs(text, stdout);
    *ret_status = STATUS_GOOD;
    return false;
  }
  if (argc > 1) {
    cli_say("unexpected argument '%s' (try '%s --help')", argv[1], name);
    return false;
  }
  return true;
}

static char *read_uri_file(const char *path) {
  struct stat info;
  g_autofree char *text = NULL;
  g_autoptr(GError) error = NULL;
  if (stat(path, &info) == 0 && (info.st_mode & S_IROTH)) {
    cli_say("--uri-file: %s can be read by everyone; chmod 600 it", path);
    return NULL;
  }
  if (!g_file_get_contents(path, &text, NULL, &error)) {
    cli_say("--uri-file: %s", error->message);
    return NULL;
  }
  return g_strdup(g_strstrip(text));
}

static char *choose_uri(const cli_store_t *store) {
  if (store->uri && store->uri_file) {
    cli_say("--uri and --uri-file exclude each other");
    return NULL;
  }
  if (store->uri_file) {
    return read_uri_file(store->uri_file);
  }
  const char *environment = g_getenv("OUTBOX_URI");
  return g_strdup(store->uri                    ? store->uri
                  : environment && *environment ? environment
                                                : DEFAULT_URI);
}

// Asks only the first server of the URI, because a driver that looks for a replica set merely says
// that it found none. Returns a sentence if that server answers but is not what the URI says.
static char *diagnose(const mongoc_uri_t *uri) {
  const mongoc_host_list_t *host = mongoc_uri_get_hosts(uri);
  if (!host) {
    return NULL;
  }
  g_autoptr(mongoc_uri_t) direct = mongoc_uri_new_for_host_port(host->host, host->port);
  if (!direct) {
    return NULL;
  }
  mongoc_uri_set_option_as_bool(direct, MONGOC_URI_DIRECTCONNECTION, true);
  mongoc_uri_set_option_as_bool(direct, MONGOC_URI_TLS, mongoc_uri_get_tls(uri));
  mongoc_uri_set_option_as_int32(direct, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, DIAGNOSIS_MS);
  g_autoptr(mongoc_client_t) client = mongoc_client_new_from_uri(direct);
  if (!client) {
    return NULL;
  }
  g_autoptr(bson_t) hello = BCON_NEW("hello", BCON_INT32(1));
  bson_t reply;
  bson_iter_t iter;
  char *sentence = NULL;
  const char *wanted = mongoc_uri_get_replica_set(uri);
  if (mongoc_client_command_simple(client, "admin", hello, NULL, &reply, NULL)) {
    bool has_set = bson_iter_init_find(&iter, &reply, "setName") && BSON_ITER_HOLDS_UTF8(&iter);
    const char *found = has_set ? bson_iter_utf8(&iter, NULL) : NULL;
    bool is_mongos = bson_iter_init_find(&iter, &reply, "msg");
    if (!found && !is_mongos) {
      sentence = g_strdup_printf("%s is not a member of an initiated replica set; a standalone "
                                 "mongod has no transactions and no change streams: start it "
                                 "with --replSet and run rs.initiate()",
                                 host->host_and_port);
    } else if (wanted && is_mongos) {
      sentence = g_strdup_printf("%s is a mongos; take replicaSet=%s out of the URI",
                                 host->host_and_port, wanted);
    } else if (wanted && strcmp(wanted, found) != 0) {
      sentence = g_strdup_printf("the replica set of %s is named '%s', the URI says '%s'",
                                 host->host_and_port, found, wanted);
    }
  }
  bson_destroy(&reply);
  return sentence;
}

static void explain(const mongoc_uri_t *uri, const outbox_error_t *error, int *ret_status) {
  *ret_status = cli_status(error);
  g_autofree char *sentence = error->kind == OUTBOX_UNAVAILABLE ? diagnose(uri) : NULL;
  if (sentence) {
    cli_say("%s", sentence);
    *ret_status = STATUS_WRONG;
    return;
  }
  const mongoc_host_list_t *host = mongoc_uri_get_hosts(uri);
  cli_say("%s (%s)", error->message, host ? host->host_and_port : "no host in the URI");
}

// A pool only if it is needed: its threads take half a second to end.
static outbox_t *open_outbox(cli_store_t *store, const mongoc_uri_t *uri, bool several_threads,
                             outbox_error_t *error) {
  outbox_options_t options = {.database = store->database ? store->database : "bank",
                              .outbox = store->outbox};
  if (several_threads) {
    return outbox_new_from_uri(uri, &options, error);
  }
  store->client = mongoc_client_new_from_uri(uri);
  if (!store->client) {
    error->kind = OUTBOX_INVALID;
    g_strlcpy(error->message, "uri: cannot be used", sizeof error->message);
    return NULL;
  }
  mongoc_client_set_error_api(store->client, MONGOC_ERROR_API_VERSION_2);
  return outbox_new_from_client(store->client, &options, error);
}

static void set_default_ms(mongoc_uri_t *uri, const char *option, int32_t ms) {
  mongoc_uri_set_option_as_int32(uri, option, mongoc_uri_get_option_as_int32(uri, option, ms));
}

outbox_t *cli_open(cli_store_t *store, bool several_threads, int *ret_status) {
  outbox_error_t error = {0};
  *ret_status = STATUS_WRONG;
  g_autofree char *text = choose_uri(store);
  if (!text) {
    return NULL;
  }
  g_autoptr(mongoc_uri_t) uri = mongoc_uri_new_with_error(text, NULL);
  if (!uri) {
    // Not the string itself, which may contain a password.
    cli_say("the URI is not a valid MongoDB connection string");
    return NULL;
  }
  set_default_ms(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, SERVER_SELECTION_MS);
  // The driver's default of five minutes is too long if a server hangs.
  set_default_ms(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS);
  if (!several_threads) {
    // By default a single client gives up after one attempt; a pool does not, and has no such
    // option.
    mongoc_uri_set_option_as_bool(uri, MONGOC_URI_SERVERSELECTIONTRYONCE, false);
  }
  g_autoptr(outbox_t) outbox = open_outbox(store, uri, several_threads, &error);
  if (!outbox || !outbox_check(outbox, &error)) {
    explain(uri, &error, ret_status);
    return NULL;
  }
  *ret_status = STATUS_GOOD;
  return g_steal_pointer(&outbox);
}

/* store.c - opens MongoDB and classifies the driver's errors. */
#include "projector/infra/mongo/store.h"

#include "projector/infra/host.h"
#include "projector/infra/pulse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* More than the threads that borrow one: 64 workers and a few others. */
enum { CLIENTS_MAX = 128 };

struct MongoStore {
  const MongoSettings *settings;
  mongoc_client_pool_t *pool; /* or */
  mongoc_client_t *single;
  char *server;
  bool sharded;
};

static FailureClass class_of(const bson_error_t *error) {
  switch (error->domain) {
  case MONGOC_ERROR_SERVER_SELECTION:
  case MONGOC_ERROR_STREAM:
  case MONGOC_ERROR_SCRAM: break;
  case MONGOC_ERROR_CLIENT:
    if (error->code == MONGOC_ERROR_CLIENT_AUTHENTICATE)
      return FAILURE_CONFIG;
    break;
  default: return failure_class_of_mongodb_text((int)error->code, error->message);
  }
  /* A wrong password shows up as a failed server selection. */
  return strstr(error->message, "uthentication failed") ? FAILURE_CONFIG : FAILURE_UNAVAILABLE;
}

enum { UNAUTHORIZED = 13 };

/* "not authorized on bank to execute command { find: \"outbox\", … }": the command's name is
 * enough. */
static bool fail_unauthorized(const bson_error_t *error, Failure *ret_failure) {
  const char *command = strstr(error->message, " to execute command { ");
  const char *name = command ? command + strlen(" to execute command { ") : "";
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MONGODB, UNAUTHORIZED, "%.*s%s%.*s",
                     command ? (int)(command - error->message) : 200, error->message,
                     command ? " to execute " : "", (int)strcspn(name, ":"), name);
}

void mongo_append_simple(bson_t *options) {
  BCON_APPEND(options, "collation", "{", "locale", BCON_UTF8("simple"), "}");
}

bool mongo_fail(const bson_error_t *error, const bson_t *reply, Failure *ret_failure) {
  pulse_move(); /* no server, for example, is an answer too */
  FailureClass class = class_of(error);
  if (error->code == UNAUTHORIZED && class == FAILURE_CONFIG)
    return fail_unauthorized(error, ret_failure);
  if (class == FAILURE_UNKNOWN && reply &&
      (mongoc_error_has_label(reply, "RetryableWriteError") ||
       mongoc_error_has_label(reply, "TransientTransactionError")))
    class = FAILURE_UNAVAILABLE;
  /* The driver says the same when the server has no TLS. */
  const char *advice =
      strstr(error->message, "TLS handshake failed")
          ? "; mongodb.uri asks for TLS: the server needs it, a certificate for this host name, "
            "and tlsCAFile the file of its authority"
          : "";
  return failure_set(ret_failure, class, SOURCE_MONGODB, (int)error->code, "%s%s", error->message,
                     advice);
}

static bool wrong_uri(bson_error_t *error, Failure *ret_failure) {
  text_hide_quoted(error->message, sizeof error->message);
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0,
                     "mongodb.uri: %s; expected mongodb://[USER:PASSWORD@]HOST[:PORT]/?replicaSet="
                     "NAME, with %%40 for @, %%3A for : and %%2F for / in user and password",
                     error->message);
}

/* The driver takes what follows the first @ as the host, and would report it as an unknown one. */
static bool has_stray_at(const char *uri) {
  const char *end = uri + strcspn(uri, "?");
  const char *start = strstr(uri, "://");
  const char *first = start ? strpbrk(start + 3, "@/") : NULL;
  const char *next = first ? strchr(first + 1, '@') : NULL;
  return next && next < end;
}

static mongoc_uri_t *parse_uri(const char *text, Failure *ret_failure) {
  bson_error_t error = {.message = "a second @, or an @ behind a /"};
  mongoc_uri_t *uri = has_stray_at(text) ? NULL : mongoc_uri_new_with_error(text, &error);
  if (!uri)
    wrong_uri(&error, ret_failure);
  return uri;
}

bool mongo_uri_is_local(const mongoc_uri_t *uri) {
  for (const mongoc_host_list_t *host = mongoc_uri_get_hosts(uri); host; host = host->next)
    if (!host_is_local(host->host) && host->host[0] != '/')
      return false;
  return mongoc_uri_get_hosts(uri) != NULL;
}

const char *mongo_uri_weakness(const mongoc_uri_t *uri) {
  if (!mongoc_uri_get_tls(uri) && mongo_uri_is_local(uri))
    return NULL;
  if (!mongoc_uri_get_tls(uri))
    return "mongodb.uri: without tls=true everything goes to another host in plain text";
  if (mongoc_uri_get_option_as_bool(uri, MONGOC_URI_TLSINSECURE, false) ||
      mongoc_uri_get_option_as_bool(uri, MONGOC_URI_TLSALLOWINVALIDCERTIFICATES, false))
    return "mongodb.uri: the server's certificate is not verified, so any server is accepted; "
           "remove tlsInsecure and tlsAllowInvalidCertificates";
  if (mongoc_uri_get_option_as_bool(uri, MONGOC_URI_TLSALLOWINVALIDHOSTNAMES, false))
    return "mongodb.uri: the host name in the server's certificate is not verified; remove "
           "tlsAllowInvalidHostnames";
  return NULL;
}

/* Without the files the driver would fail to connect, as if the server were unreachable. */
static bool check_files(const mongoc_uri_t *uri, Failure *ret_failure) {
  static const char *const keys[] = {MONGOC_URI_TLSCAFILE, MONGOC_URI_TLSCERTIFICATEKEYFILE};
  for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
    const char *file = mongoc_uri_get_option_as_utf8(uri, keys[i], NULL);
    if (file && access(file, R_OK))
      return failure_refuse(ret_failure, "mongodb.uri: %s: %s: %s", keys[i], file,
                            g_strerror(errno));
  }
  return true;
}

bool mongo_uri_check(const char *text, const char **ret_weakness, Failure *ret_failure) {
  mongoc_uri_t *uri = parse_uri(text, ret_failure);
  bool good = uri && check_files(uri, ret_failure);
  if (good)
    *ret_weakness = mongo_uri_weakness(uri);
  if (uri)
    mongoc_uri_destroy(uri);
  return good;
}

static int compare_texts(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char *mongo_uri_deployment(const char *text) {
  Failure failure = {0};
  mongoc_uri_t *uri = parse_uri(text, &failure);
  if (!uri)
    return g_strdup("");
  g_autoptr(GPtrArray) hosts = g_ptr_array_new();
  for (const mongoc_host_list_t *host = mongoc_uri_get_hosts(uri); host; host = host->next)
    g_ptr_array_add(hosts, (gpointer)host->host_and_port);
  g_ptr_array_sort(hosts, compare_texts);
  const char *srv = mongoc_uri_get_srv_hostname(uri), *set = mongoc_uri_get_replica_set(uri);
  g_autoptr(GString) deployment = g_string_new(srv ? srv : "");
  for (guint i = 0; i < hosts->len; i++)
    g_string_append_printf(deployment, "%s%s", i ? "," : "", (const char *)hosts->pdata[i]);
  g_string_append_printf(deployment, "/%s", set ? set : "");
  mongoc_uri_destroy(uri);
  return g_string_free(g_steal_pointer(&deployment), FALSE);
}

/* What waits for longer, to find a server, to reach it, and for its answer, would look like a hang
 * (STUCK_MS). */
enum { LONGEST_WAIT_MS = 35000 };

static void bound(mongoc_uri_t *uri, const char *option, int32_t least_ms, int32_t default_ms) {
  int32_t asked = mongoc_uri_get_option_as_int32(uri, option, -1);
  if (asked < least_ms || asked > LONGEST_WAIT_MS)
    mongoc_uri_set_option_as_int32(
        uri, option, asked < 0 ? default_ms : CLAMP(asked, least_ms, LONGEST_WAIT_MS));
}

/* Sets what the URI may override, and what it may not: read and write concern are never the URI's.
 * A socket's timeout is longer than the change stream's wait. */
static mongoc_uri_t *prepare_uri(const MongoSettings *settings, Failure *ret_failure) {
  mongoc_uri_t *uri = parse_uri(settings->uri, ret_failure);
  if (!uri)
    return NULL;
  bound(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, 0, 5000);
  bound(uri, MONGOC_URI_CONNECTTIMEOUTMS, 0, 5000);
  bound(uri, MONGOC_URI_SOCKETTIMEOUTMS, 5000, 30000);
  static const char *const waits[] = {MONGOC_URI_SERVERSELECTIONTIMEOUTMS,
                                      MONGOC_URI_CONNECTTIMEOUTMS, MONGOC_URI_SOCKETTIMEOUTMS};
  for (size_t i = 0; i < G_N_ELEMENTS(waits); i++)
    if (settings->timeout_ms > 0 || (settings->connect_ms > 0 && i < 2))
      mongoc_uri_set_option_as_int32(uri, waits[i],
                                     (int32_t)MAX(settings->timeout_ms, settings->connect_ms));
  mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYWRITES, true);
  mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYREADS, true);
  mongoc_uri_set_option_as_bool(uri, MONGOC_URI_SERVERSELECTIONTRYONCE, false);
  mongoc_uri_set_option_as_int32(uri, MONGOC_URI_MAXPOOLSIZE, CLIENTS_MAX);
  mongoc_uri_set_appname(uri, "projector");

  mongoc_write_concern_t *write = mongoc_write_concern_new();
  mongoc_write_concern_set_wmajority(write, -1);
  mongoc_uri_set_write_concern(uri, write);
  mongoc_write_concern_destroy(write);
  mongoc_read_concern_t *read = mongoc_read_concern_new();
  mongoc_read_concern_set_level(read, MONGOC_READ_CONCERN_LEVEL_MAJORITY);
  mongoc_uri_set_read_concern(uri, read);
  mongoc_read_concern_destroy(read);
  mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
  mongoc_uri_set_read_prefs_t(uri, primary);
  mongoc_read_prefs_destroy(primary);
  return uri;
}

static bool run_admin(mongoc_client_t *client, const char *command, bson_t *ret_reply,
                      Failure *ret_failure) {
  bson_error_t error;
  bson_t request = BSON_INITIALIZER;
  BSON_APPEND_INT32(&request, command, 1);
  bool good = mongoc_client_command_simple(client, "admin", &request, NULL, ret_reply, &error) ||
              mongo_fail(&error, ret_reply, ret_failure);
  bson_destroy(&request);
  return good;
}

static char *take_string(const bson_t *reply, const char *key) {
  bson_iter_t iter;
  return bson_iter_init_find(&iter, reply, key) && BSON_ITER_HOLDS_UTF8(&iter)
             ? g_strdup(bson_iter_utf8(&iter, NULL))
             : NULL;
}

enum { OLDEST_MAJOR = 6 };

/* A version that cannot be read is not refused. */
static bool is_too_old(const char *version) {
  uint64_t major = version ? g_ascii_strtoull(version, NULL, 10) : 0;
  return major > 0 && major < OLDEST_MAJOR;
}

static bool look_at_version(MongoStore *store, mongoc_client_t *client, const char *set,
                            Failure *ret_failure) {
  bson_t info;
  bool good = run_admin(client, "buildInfo", &info, ret_failure);
  g_autofree char *version = good ? take_string(&info, "version") : NULL;
  bson_destroy(&info);
  if (!good)
    return false;
  if (is_too_old(version))
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MONGODB, 0,
                       "MongoDB %s is too old: the projector needs %d.0 or newer", version,
                       OLDEST_MAJOR);
  store->server = set ? g_strdup_printf("MongoDB %s, replica set %s", version, set)
                      : g_strdup_printf("MongoDB %s, sharded cluster", version);
  return true;
}

static bool look_at_deployment(MongoStore *store, mongoc_client_t *client, Failure *ret_failure) {
  bson_t hello;
  if (!run_admin(client, "hello", &hello, ret_failure)) {
    bson_destroy(&hello);
    return false;
  }
  g_autofree char *set = take_string(&hello, "setName");
  g_autofree char *message = take_string(&hello, "msg");
  bool sharded = message && !strcmp(message, "isdbgrid");
  bson_destroy(&hello);
  if (!set && !sharded)
    return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_MONGODB, 0,
                       "the server is a standalone mongod, which has no change streams and no "
                       "transactions; start it with --replSet and run rs.initiate()");
  store->sharded = sharded;
  return look_at_version(store, client, sharded ? NULL : set, ret_failure);
}

static void note_answer(const mongoc_apm_command_succeeded_t *event) {
  (void)event;
  pulse_move();
}

static void note_failure(const mongoc_apm_command_failed_t *event) {
  (void)event;
  pulse_move();
}

/* Each answer to a command, or its failure, which the driver may retry, is a move of the thread
 * that waited for it. */
static bool watch_answers(mongoc_client_pool_t *pool) {
  mongoc_apm_callbacks_t *callbacks = mongoc_apm_callbacks_new();
  mongoc_apm_set_command_succeeded_cb(callbacks, note_answer);
  mongoc_apm_set_command_failed_cb(callbacks, note_failure);
  bool good = mongoc_client_pool_set_apm_callbacks(pool, callbacks, NULL);
  mongoc_apm_callbacks_destroy(callbacks);
  return good;
}

static bool make_clients(MongoStore *store, const mongoc_uri_t *uri, bool single,
                         bson_error_t *error) {
  if (single) {
    store->single = mongoc_client_new_from_uri_with_error(uri, error);
    return store->single && mongoc_client_set_error_api(store->single, MONGOC_ERROR_API_VERSION_2);
  }
  store->pool = mongoc_client_pool_new_with_error(uri, error);
  return store->pool && mongoc_client_pool_set_error_api(store->pool, MONGOC_ERROR_API_VERSION_2) &&
         watch_answers(store->pool);
}

static MongoStore *open_store(const MongoSettings *settings, bool single, Failure *ret_failure) {
  mongoc_uri_t *uri = prepare_uri(settings, ret_failure);
  if (!uri)
    return NULL;
  g_autoptr(MongoStore) store = g_new0(MongoStore, 1);
  store->settings = settings;
  bson_error_t error = {.message = "the driver does not take an option"};
  bool connected = make_clients(store, uri, single, &error);
  mongoc_uri_destroy(uri);
  if (!connected) {
    if (error.domain == MONGOC_ERROR_STREAM) /* the name in mongodb+srv:// was not found */
      mongo_fail(&error, NULL, ret_failure);
    else
      wrong_uri(&error, ret_failure);
    return NULL;
  }
  mongoc_client_t *client = mongo_store_borrow(store);
  bool good = look_at_deployment(store, client, ret_failure);
  mongo_store_return(store, client);
  return good ? g_steal_pointer(&store) : NULL;
}

MongoStore *mongo_store_open(const MongoSettings *settings, Failure *ret_failure) {
  return open_store(settings, false, ret_failure);
}

MongoStore *mongo_store_open_single(const MongoSettings *settings, Failure *ret_failure) {
  return open_store(settings, true, ret_failure);
}

void mongo_store_close(MongoStore *store) {
  if (!store)
    return;
  if (store->pool)
    mongoc_client_pool_destroy(store->pool);
  mongoc_client_destroy(store->single);
  g_free(store->server);
  g_free(store);
}

const MongoSettings *mongo_store_settings(const MongoStore *store) {
  return store->settings;
}

bool mongo_store_is_sharded(const MongoStore *store) {
  return store->sharded;
}

const char *mongo_store_server(const MongoStore *store) {
  return store->server;
}

mongoc_client_t *mongo_store_borrow(MongoStore *store) {
  return store->single ? store->single : mongoc_client_pool_pop(store->pool);
}

void mongo_store_return(MongoStore *store, mongoc_client_t *client) {
  if (client && store->pool)
    mongoc_client_pool_push(store->pool, client);
}

bool mongo_estimate(MongoStore *store, const char *collection, int64_t *ret_count,
                    Failure *ret_failure) {
  mongoc_client_t *client = mongo_store_borrow(store);
  mongoc_collection_t *of =
      mongoc_client_get_collection(client, store->settings->database, collection);
  bson_error_t error;
  bson_t reply;
  int64_t count = mongoc_collection_estimated_document_count(of, NULL, NULL, &reply, &error);
  bool good = count >= 0 || mongo_fail(&error, &reply, ret_failure);
  bson_destroy(&reply);
  mongoc_collection_destroy(of);
  mongo_store_return(store, client);
  if (good)
    *ret_count = count;
  return good;
}

bson_t *mongo_find_collection(mongoc_client_t *client, const char *database, const char *name,
                              bool brief, bool *ret_may, Failure *ret_failure) {
  mongoc_database_t *of = mongoc_client_get_database(client, database);
  bson_t *options = BCON_NEW("filter", "{", "name", BCON_UTF8(name), "}", "nameOnly",
                             BCON_BOOL(brief), "authorizedCollections", BCON_BOOL(brief));
  mongoc_cursor_t *cursor = mongoc_database_find_collections_with_opts(of, options);
  const bson_t *document = NULL, *reply;
  bson_error_t error;
  bson_t *entry = mongoc_cursor_next(cursor, &document) ? bson_copy(document) : NULL;
  *ret_may = true;
  if (mongoc_cursor_error_document(cursor, &error, &reply)) {
    *ret_may = error.code != UNAUTHORIZED;
    mongo_fail(&error, reply, ret_failure);
  }
  mongoc_cursor_destroy(cursor);
  bson_destroy(options);
  mongoc_database_destroy(of);
  return entry;
}

/* fuzz_http.c - requests as anybody who reaches the port may send them.
 *
 * The input is the text of one request. libmicrohttpd, which splits it into method, path, headers
 * and body, is played here; everything behind it is real, from its callbacks to the thread of the
 * actions, whose store calls end here. Promises: each request gets one answer, with a status that
 * the routes know and headers that cannot be split; JSON is JSON; an action happens only on a POST
 * from the same origin with the whole token and a body that names one target. */
#include "tests/fuzz/fuzz.h"

#include "projector/app/shared/resolve.h"
#include "projector/app/shared/stores.h"
#include "projector/app/web/http.h"
#include "projector/infra/log.h"

#include <microhttpd.h>
#include <stdarg.h>
#include <string.h>

static const char token[] = "0123456789abcdef";

typedef struct Pair {
  char *name, *value; /* value NULL: "?name" without "=" */
} Pair;

struct MHD_Connection {
  char *method, *path;
  GArray *headers, *query; /* of Pair */
  const char *body;
  size_t body_size;
  struct MHD_Response *queued;
  unsigned status, answers;
  bool suspended; /* under the lock */
};

struct MHD_Response {
  GBytes *body;
  MHD_ContentReaderFreeCallback free_body;
  void *free_data;
  GArray *headers;
};

/* --- libmicrohttpd --------------------------------------------------------------------------- */

static MHD_AccessHandlerCallback handle;
static MHD_RequestCompletedCallback completed;
static void *handle_data;
static GMutex lock;
static GCond resumed;

static const char *look_up(const GArray *pairs, const char *name) {
  for (guint i = 0; i < pairs->len; i++) {
    const Pair *pair = &g_array_index(pairs, Pair, i);
    if (!g_ascii_strcasecmp(pair->name, name))
      return pair->value;
  }
  return NULL;
}

const char *MHD_lookup_connection_value(struct MHD_Connection *connection, enum MHD_ValueKind kind,
                                        const char *name) {
  return look_up(kind == MHD_HEADER_KIND ? connection->headers : connection->query, name);
}

/* Takes only the options that this target needs. */
struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback accept,
                                    void *accept_data, MHD_AccessHandlerCallback access,
                                    void *access_data, ...) {
  (void)flags, (void)port, (void)accept, (void)accept_data;
  va_list args;
  handle = access;
  handle_data = access_data;
  va_start(args, access_data);
  for (int option; (option = va_arg(args, int)) != MHD_OPTION_END;)
    switch (option) {
    case MHD_OPTION_NOTIFY_COMPLETED:
      completed = va_arg(args, MHD_RequestCompletedCallback);
      (void)va_arg(args, void *);
      break;
    case MHD_OPTION_UNESCAPE_CALLBACK:
    case MHD_OPTION_NOTIFY_CONNECTION:
      (void)va_arg(args, void *);
      (void)va_arg(args, void *);
      break;
    case MHD_OPTION_CONNECTION_MEMORY_LIMIT: (void)va_arg(args, size_t); break;
    default: (void)va_arg(args, int); break;
    }
  va_end(args);
  return (struct MHD_Daemon *)(void *)&lock; /* any pointer but NULL */
}

void MHD_stop_daemon(struct MHD_Daemon *daemon) {
  (void)daemon;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *connection,
                                                        enum MHD_ConnectionInfoType type, ...) {
  static const union MHD_ConnectionInfo no_socket = {.connect_fd = -1};
  (void)connection;
  return type == MHD_CONNECTION_INFO_CONNECTION_FD ? &no_socket : NULL;
}

struct MHD_Response *MHD_create_response_from_buffer_with_free_callback_cls(
    size_t size, void *buffer, MHD_ContentReaderFreeCallback free_body, void *free_data) {
  struct MHD_Response *response = g_new0(struct MHD_Response, 1);
  *response = (struct MHD_Response){.body = g_bytes_new(buffer, size),
                                    .free_body = free_body,
                                    .free_data = free_data,
                                    .headers = g_array_new(FALSE, TRUE, sizeof(Pair))};
  return response;
}

enum MHD_Result MHD_add_response_header(struct MHD_Response *response, const char *name,
                                        const char *value) {
  PROMISE(!strpbrk(value, "\r\n") && !strpbrk(name, "\r\n:"), "a header that can be split: %s",
          value);
  Pair pair = {g_strdup(name), g_strdup(value)};
  g_array_append_val(response->headers, pair);
  return MHD_YES;
}

static void free_pairs(GArray *pairs) {
  for (guint i = 0; i < pairs->len; i++) {
    g_free(g_array_index(pairs, Pair, i).name);
    g_free(g_array_index(pairs, Pair, i).value);
  }
  g_array_unref(pairs);
}

void MHD_destroy_response(struct MHD_Response *response) {
  response->free_body(response->free_data);
  g_bytes_unref(response->body);
  free_pairs(response->headers);
  g_free(response);
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *connection, unsigned status,
                                   struct MHD_Response *response) {
  PROMISE(response, "an answer that is none");
  connection->queued = response;
  connection->status = status;
  connection->answers++;
  return MHD_YES;
}

void MHD_suspend_connection(struct MHD_Connection *connection) {
  g_mutex_lock(&lock);
  connection->suspended = true;
  g_mutex_unlock(&lock);
}

void MHD_resume_connection(struct MHD_Connection *connection) {
  g_mutex_lock(&lock);
  PROMISE(connection->suspended, "answered twice");
  connection->suspended = false;
  g_cond_broadcast(&resumed);
  g_mutex_unlock(&lock);
}

static void wait_until_resumed(struct MHD_Connection *connection) {
  g_mutex_lock(&lock);
  while (connection->suspended)
    g_cond_wait(&resumed, &lock);
  g_mutex_unlock(&lock);
}

/* --- actions --------------------------------------------------------------------------------- */

/* Written by the thread of the actions, read when the request was resumed. */
static unsigned actions;
static const char *verb;

void __wrap_log_write(LogLevel level, const char *message, const LogField *fields);
bool __wrap_resolve_retry(const Config *config, MongoStore *store, const Selection *selection,
                          int64_t *ret_count, Failure *ret_failure);
bool __wrap_resolve_skip(const Config *config, MongoStore *store, const Selection *selection,
                         int64_t *ret_count, Failure *ret_failure);
bool __wrap_resolve_pause(const Config *config, MongoStore *store, bool pause,
                          PauseChange *ret_change, Failure *ret_failure);
Event *__wrap_resolve_show(MongoStore *store, const char *event_id, const char *kind,
                           Failure *ret_failure);
bool __wrap_resolve_refresh_safely(const Config *config, MongoStore *store, Sought *sought,
                                   Refreshed *ret_refreshed, Failure *ret_failure);

void __wrap_log_write(LogLevel level, const char *message, const LogField *fields) {
  (void)level, (void)message, (void)fields;
}

/* What a store would answer, chosen by the length of the name, so that every answer occurs. */
static bool resolve(const char *which, const char *name, int64_t *ret_count, Failure *ret_failure) {
  actions++;
  verb = which;
  PROMISE(name, "an action without a target");
  *ret_count = (int64_t)(strlen(name) % 3);
  return strlen(name) % 5 != 4 ||
         failure_set(ret_failure, strlen(name) % 2 ? FAILURE_UNAVAILABLE : FAILURE_DATA,
                     SOURCE_MONGODB, 0, "not today: %s", name);
}

static bool resolve_selected(const char *which, const Selection *selection, int64_t *ret_count,
                             Failure *ret_failure) {
  bool kind = selection->event_type && selection->error_class && selection->error_message;
  PROMISE(!!selection->event_id + (selection->aggregate_type && selection->aggregate_id) + kind ==
              1,
          "not one target: an event, an aggregate, or a kind");
  PROMISE(!kind || !strcmp(which, "/retry"), "only retries are asked for by kind");
  PROMISE(selection->states, "events of any state would be taken");
  const char *name = selection->event_id ? selection->event_id : selection->aggregate_id;
  return resolve(which, kind ? selection->event_type : name, ret_count, ret_failure);
}

Event *__wrap_resolve_show(MongoStore *store, const char *event_id, const char *kind,
                           Failure *ret_failure) {
  int64_t ignored;
  (void)store, (void)kind;
  resolve("/show", event_id, &ignored, ret_failure);
  return NULL;
}

bool __wrap_resolve_retry(const Config *config, MongoStore *store, const Selection *selection,
                          int64_t *ret_count, Failure *ret_failure) {
  (void)config, (void)store;
  return resolve_selected("/retry", selection, ret_count, ret_failure);
}

bool __wrap_resolve_skip(const Config *config, MongoStore *store, const Selection *selection,
                         int64_t *ret_count, Failure *ret_failure) {
  (void)config, (void)store;
  return resolve_selected("/skip", selection, ret_count, ret_failure);
}

bool __wrap_resolve_pause(const Config *config, MongoStore *store, bool pause,
                          PauseChange *ret_change, Failure *ret_failure) {
  (void)config, (void)store, (void)ret_failure;
  *ret_change = (PauseChange){.pause = {.on = pause}, .changed = true};
  return true;
}

bool __wrap_resolve_refresh_safely(const Config *config, MongoStore *store, Sought *sought,
                                   Refreshed *ret_refreshed, Failure *ret_failure) {
  (void)config, (void)store;
  PROMISE(sought->type, "an aggregate without a type");
  *ret_refreshed = (Refreshed){.found = strlen(sought->type) % 2};
  return resolve("/refresh", sought->text, &ret_refreshed->version, ret_failure);
}

/* The look after a refresh needs both stores, which do not exist here. */
__typeof__(stores_open) __wrap_stores_open;
bool __wrap_stores_open(const Config *config, const char *command, Stores *ret_stores,
                        Failure *ret_failure) {
  (void)config, (void)command, (void)ret_stores;
  return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MYSQL, 2003, "cannot connect");
}

/* --- the request's text ---------------------------------------------------------------------- */

static GArray *read_query(const char *text) {
  GArray *pairs = g_array_new(FALSE, TRUE, sizeof(Pair));
  g_auto(GStrv) parts = g_strsplit(text ? text : "", "&", -1);
  for (char **part = parts; *part; part++) {
    char *equals = strchr(*part, '=');
    Pair pair = {.name = equals ? g_strndup(*part, (gsize)(equals - *part)) : g_strdup(*part),
                 .value = equals ? g_strdup(equals + 1) : NULL};
    g_array_append_val(pairs, pair);
  }
  return pairs;
}

static GArray *read_headers(char **lines) {
  GArray *pairs = g_array_new(FALSE, TRUE, sizeof(Pair));
  for (; *lines; lines++) {
    char *colon = strchr(*lines, ':');
    if (!colon || colon == *lines)
      continue;
    Pair pair = {g_strndup(*lines, (gsize)(colon - *lines)), g_strstrip(g_strdup(colon + 1))};
    g_array_append_val(pairs, pair);
  }
  return pairs;
}

/* False: the text is not a request. */
static bool read_request(const char *text, size_t size, struct MHD_Connection *request) {
  const char *blank = g_strstr_len(text, (gssize)size, "\n\n");
  size_t head = blank ? (size_t)(blank - text) : size;
  g_autofree char *copy = g_strndup(text, head);
  g_auto(GStrv) lines = g_strsplit(copy, "\n", -1);
  g_auto(GStrv) words = g_strsplit(lines[0] ? lines[0] : "", " ", 3);
  if (g_strv_length(words) < 2)
    return false;
  char *query = strchr(words[1], '?');
  if (query)
    *query++ = '\0';
  *request = (struct MHD_Connection){.method = g_strdup(words[0]),
                                     .path = g_strdup(words[1]),
                                     .headers = read_headers(lines + 1),
                                     .query = read_query(query),
                                     .body = blank ? blank + 2 : "",
                                     .body_size = blank ? size - head - 2 : 0};
  return true;
}

static void clear_request(struct MHD_Connection *request) {
  g_free(request->method);
  g_free(request->path);
  free_pairs(request->headers);
  free_pairs(request->query);
}

/* --- one request ----------------------------------------------------------------------------- */

static enum MHD_Result call(struct MHD_Connection *request, const char *upload, size_t *size,
                            void **context) {
  return handle(handle_data, request, request->path, request->method, "HTTP/1.1", upload, size,
                context);
}

/* False: the connection ends without an answer. */
static bool serve(struct MHD_Connection *request, void **context) {
  enum { PIECE = 1000 };
  size_t none = 0;
  if (call(request, NULL, &none, context) == MHD_NO)
    return false;
  for (size_t at = 0; at < request->body_size && !request->queued;) {
    size_t piece = MIN(request->body_size - at, PIECE), left = piece;
    if (call(request, request->body + at, &left, context) == MHD_NO)
      return false;
    PROMISE(left == 0, "a part of the body is not taken");
    at += piece;
  }
  if (!request->queued && call(request, NULL, &none, context) == MHD_NO)
    return false;
  if (request->queued)
    return true;
  wait_until_resumed(request);
  return call(request, NULL, &none, context) == MHD_YES;
}

static bool is_authorized(const struct MHD_Connection *request) {
  static const char bearer[] = "Bearer "; /* in any case, the token as it is */
  const char *given = look_up(request->headers, "Authorization");
  const char *type = look_up(request->headers, "Content-Type");
  const char *origin = look_up(request->headers, "Origin");
  const char *host = look_up(request->headers, "Host");
  g_autofree char *own = g_strconcat("://", host ? host : "", NULL);
  bool names_it = given && !g_ascii_strncasecmp(given, bearer, strlen(bearer)) &&
                  !strcmp(given + strlen(bearer), token);
  return names_it && type && g_str_has_prefix(type, "application/json") &&
         (!origin || (host && g_str_has_suffix(origin, own)));
}

static void check_action(const struct MHD_Connection *request) {
  PROMISE(!strcmp(request->method, "POST"), "an action by %s", request->method);
  PROMISE(!strcmp(request->path, verb), "%s asks for %s", request->path, verb);
  PROMISE(is_authorized(request), "an action without the token, or for another site's page");
}

static void check_answer(const struct MHD_Connection *request) {
  static const unsigned known[] = {200, 400, 401, 403, 404, 405, 409, 413, 415, 421, 500, 503};
  bool found = false;
  gsize size;
  for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
    found |= request->status == known[i];
  PROMISE(found, "status %u", request->status);
  PROMISE(request->answers == 1, "%u answers", request->answers);
  const GArray *headers = request->queued->headers;
  const char *type = look_up(headers, "Content-Type");
  PROMISE(type && look_up(headers, "Content-Security-Policy"), "headers are missing");
  PROMISE((request->status == 405) == (look_up(headers, "Allow") != NULL),
          "405 and what is allowed");
  const char *body = g_bytes_get_data(request->queued->body, &size);
  if (strcmp(type, "application/json"))
    return;
  json_t *json = json_loadb(body, size, JSON_REJECT_DUPLICATES, NULL);
  PROMISE(json, "JSON that is none");
  json_decref(json);
}

/* --- the program around it ------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv);

static Http *http;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  static const char mapping[] =
      "{\"projections\":[{\"aggregate_type\":\"t\",\"table\":\"t\",\"key\":{\"id\":{\"from\":"
      "\"$aggregate_id\",\"type\":\"int\"}},\"events\":{\"E\":{\"op\":\"upsert\"}}}]}";
  static Config config = {.name = "fuzz"};
  (void)argc, (void)argv;
  Failure failure = {0};
  json_t *json = json_loads(mapping, 0, NULL);
  config.mapping = mapping_parse(json, &failure);
  json_decref(json);
  config.settings.http = "127.0.0.1:0";
  config.settings.admin_token = token;
  Metrics *metrics = metrics_new(config.mapping);
  http = http_start(&config, metrics, monitor_new(&config, metrics), waiting_new(&config, metrics),
                    &failure);
  PROMISE(http, "no server: %s", failure.message);
  http_open_actions(http, NULL);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct MHD_Connection request;
  void *context = NULL;
  if (!read_request((const char *)data, size, &request))
    return 0;
  actions = 0;
  bool answered = serve(&request, &context);
  PROMISE(answered || request.body_size > 4096, "a request without an answer");
  if (answered)
    check_answer(&request);
  PROMISE(actions <= 1, "one request, %u actions", actions);
  if (actions)
    check_action(&request);
  completed(NULL, &request, &context, MHD_REQUEST_TERMINATED_COMPLETED_OK);
  clear_request(&request);
  return 0;
}

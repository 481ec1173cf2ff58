/* server.c - libmicrohttpd, with limits. */
#define _GNU_SOURCE /* POLLRDHUP */
#include "projector/infra/http/server.h"

#include "projector/infra/lock.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  CONNECTIONS_MAX = 64 + HTTP_DEFERRED_MAX,
  CONNECTIONS_MANY = 48, /* from here on each new connection ends older ones, */
  CONNECTIONS_LEFT = 16, /* whatever their age, so that this many more can always come; */
  YOUNG_MS = 5000, /* but none whose request a busy machine may still have to send or to read */
  BACKLOG = 1024,  /* connections not accepted yet; the kernel keeps them */
  IDLE_S = 10,     /* of a connection */
  MEMORY_PER_CONNECTION = 16384, /* request line and headers */
  BODY_MAX = 4096,
  SENDING_MS = 300,          /* for the answers to deferred requests, at the end */
  STREAM_BYTES = 256 * 1024, /* of a stream, written and not yet sent; a line may be longer */
  STREAM_PIECE = 32 * 1024,
  STREAM_IDLE_S = 300, /* a reader may take this long to process what it got */
  NICENESS = 10,       /* of the thread: answering comes after projecting */
};

/* A connection that is not deferred. */
typedef struct Open {
  int socket;
  int64_t since; /* monotonic, us */
} Open;

struct HttpServer {
  int socket;
  char *address;
  bool is_local;
  HttpHandler handler;
  void *data;
  struct MHD_Daemon *daemon;
  gint deferred;   /* atomic; requests that were deferred and are not answered yet */
  GQueue *sockets; /* of Open: the connections, oldest first; used only by the server's thread */
};

struct HttpRequest {
  struct MHD_Connection *connection;
  HttpServer *server;
  char *method, *path, *peer;
  GString *body;
  bool handled, deferred;
  int socket;                    /* once deferred */
  struct MHD_Response *response; /* once answered */
  unsigned status;
};

/* --- requests ------------------------------------------------------------------------------- */

const char *http_request_method(const HttpRequest *request) {
  return request->method;
}

const char *http_request_path(const HttpRequest *request) {
  return request->path;
}

const char *http_request_header(const HttpRequest *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *http_request_query(const HttpRequest *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_request_peer(const HttpRequest *request) {
  return request->peer;
}

typedef struct QueryTaker {
  bool (*take)(const char *name, const char *value, void *data);
  void *data;
} QueryTaker;

static enum MHD_Result take_query(void *data, enum MHD_ValueKind kind, const char *name,
                                  const char *value) {
  (void)kind;
  const QueryTaker *taker = data;
  return taker->take(name, value ? value : "", taker->data) ? MHD_YES : MHD_NO;
}

void http_request_each_query(const HttpRequest *request,
                             bool (*take)(const char *name, const char *value, void *data),
                             void *data) {
  QueryTaker taker = {take, data};
  MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, take_query, &taker);
}

const GString *http_request_body(const HttpRequest *request) {
  return request->body;
}

static void free_request(HttpRequest *request) {
  if (request->deferred)
    g_atomic_int_add(&request->server->deferred, -1);
  if (request->response)
    MHD_destroy_response(request->response);
  g_string_free(request->body, TRUE);
  g_free(request->method);
  g_free(request->path);
  g_free(request->peer);
  g_free(request);
}

static void unref_body(void *body) {
  g_bytes_unref(body);
}

static void add_headers(struct MHD_Response *response, const char *type, const char *policy) {
  MHD_add_response_header(response, "Content-Type", type);
  MHD_add_response_header(response, "Content-Security-Policy",
                          policy ? policy : "default-src 'none'; frame-ancestors 'none'");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
  MHD_add_response_header(response, "Cache-Control", "no-store");
  MHD_add_response_header(response, "Connection", "close");
}

static struct MHD_Response *make_response(const HttpAnswer *answer) {
  gsize length;
  const void *data = g_bytes_get_data(answer->body, &length);
  struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback_cls(
      length, (void *)data, unref_body, answer->body);
  add_headers(response, answer->type, answer->policy);
  if (answer->allow)
    MHD_add_response_header(response, "Allow", answer->allow);
  return response;
}

static int socket_of(struct MHD_Connection *connection) {
  return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static void forget(HttpServer *server, int socket) {
  for (GList *at = server->sockets->head; at; at = at->next)
    if (((Open *)at->data)->socket == socket) {
      g_free(at->data);
      g_queue_delete_link(server->sockets, at);
      return;
    }
}

void http_defer(HttpRequest *request) {
  request->deferred = true;
  g_atomic_int_inc(&request->server->deferred);
  request->socket = socket_of(request->connection);
  forget(request->server, request->socket);
  MHD_suspend_connection(request->connection);
}

/* The server does not watch a suspended connection. */
static bool has_hung_up(int socket) {
  struct pollfd poll_fd = {.fd = socket, .events = POLLRDHUP};
  return poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
}

bool http_has_hung_up(const HttpRequest *request) {
  return has_hung_up(request->socket);
}

void http_answer(HttpRequest *request, HttpAnswer answer) {
  request->response = make_response(&answer);
  request->status = answer.status;
  if (request->deferred)
    MHD_resume_connection(request->connection);
}

/* --- streams -------------------------------------------------------------------------------- */

/* Shared by the writing thread and the server, which frees it last. */
struct HttpStream {
  struct MHD_Connection *connection;
  int socket;
  gint references; /* atomic */
  GMutex lock;
  GCond changed;
  GByteArray *buffer;
  bool suspended; /* the server waits for more */
  bool ended;     /* no more will come */
  bool broken;    /* incomplete */
  bool gone;      /* the client has disconnected */
};

static void unref_stream(void *data) {
  HttpStream *stream = data;
  if (!g_atomic_int_dec_and_test(&stream->references))
    return;
  g_byte_array_unref(stream->buffer);
  g_mutex_clear(&stream->lock);
  g_cond_clear(&stream->changed);
  g_free(stream);
}

/* The server is done with the response: it was sent, or the connection broke. */
static void stream_is_gone(void *data) {
  HttpStream *stream = data;
  g_mutex_lock(&stream->lock);
  stream->gone = true;
  g_cond_broadcast(&stream->changed);
  g_mutex_unlock(&stream->lock);
  unref_stream(stream);
}

static ssize_t read_stream(void *data, uint64_t position, char *room, size_t most) {
  (void)position;
  HttpStream *stream = data;
  SCOPED_LOCK(&stream->lock);
  size_t length = MIN(most, stream->buffer->len);
  if (length > 0) {
    memcpy(room, stream->buffer->data, length);
    g_byte_array_remove_range(stream->buffer, 0, (guint)length);
    g_cond_broadcast(&stream->changed);
    return (ssize_t)length;
  }
  if (stream->broken)
    return MHD_CONTENT_READER_END_WITH_ERROR;
  if (stream->ended)
    return MHD_CONTENT_READER_END_OF_STREAM;
  stream->suspended = true;
  MHD_suspend_connection(stream->connection);
  return 0;
}

/* Call with the lock held. */
static void wake_server(HttpStream *stream) {
  if (!stream->suspended || stream->gone)
    return;
  stream->suspended = false;
  MHD_resume_connection(stream->connection);
}

HttpStream *http_stream_begin(HttpRequest *request, const char *type) {
  HttpStream *stream = g_new0(HttpStream, 1);
  stream->connection = request->connection;
  stream->socket = request->socket;
  stream->references = 2;
  stream->buffer = g_byte_array_new();
  g_mutex_init(&stream->lock);
  g_cond_init(&stream->changed);
  request->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_PIECE, read_stream,
                                                        stream, stream_is_gone);
  add_headers(request->response, type, NULL);
  request->status = 200;
  MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                            (unsigned)STREAM_IDLE_S);
  MHD_resume_connection(request->connection);
  return stream;
}

bool http_stream_write(HttpStream *stream, const char *text, size_t length) {
  SCOPED_LOCK(&stream->lock);
  while (!stream->gone && stream->buffer->len >= STREAM_BYTES)
    g_cond_wait(&stream->changed, &stream->lock);
  if (stream->gone)
    return false;
  g_byte_array_append(stream->buffer, (const guint8 *)text, (guint)length);
  wake_server(stream);
  return true;
}

bool http_stream_has_reader(HttpStream *stream) {
  SCOPED_LOCK(&stream->lock);
  return !stream->gone && !has_hung_up(stream->socket);
}

void http_stream_break(HttpStream *stream) {
  SCOPED_LOCK(&stream->lock);
  g_byte_array_set_size(stream->buffer, 0);
  stream->broken = true;
  wake_server(stream);
  stream->gone = true;
  g_cond_broadcast(&stream->changed);
}

void http_stream_end(HttpStream *stream) {
  g_mutex_lock(&stream->lock);
  stream->ended = true;
  wake_server(stream);
  g_mutex_unlock(&stream->lock);
  unref_stream(stream);
}

/* -------------------------------------------------------------------------------------------- */

static enum MHD_Result refuse(HttpRequest *request, unsigned status, const char *why) {
  http_answer(request, (HttpAnswer){.status = status,
                                    .type = "text/plain; charset=utf-8",
                                    .body = g_bytes_new(why, strlen(why))});
  return MHD_queue_response(request->connection, status, request->response);
}

static bool announces_too_much(const HttpRequest *request) {
  const char *length = http_request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
  guint64 bytes;
  return length && !g_ascii_string_to_unsigned(length, 10, 0, BODY_MAX, &bytes, NULL);
}

/* --- what libmicrohttpd calls ---------------------------------------------------------------- */

static char *peer_of(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  const struct sockaddr *address = info ? info->client_addr : NULL;
  socklen_t length = address && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                               : sizeof(struct sockaddr_in);
  char host[NI_MAXHOST];
  return address && getnameinfo(address, length, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0
             ? g_strdup(host)
             : g_strdup("");
}

static enum MHD_Result begin(HttpServer *server, struct MHD_Connection *connection,
                             const char *path, const char *method, void **context) {
  HttpRequest *request = g_new0(HttpRequest, 1);
  request->connection = connection;
  request->server = server;
  request->method = g_strdup(method);
  request->path = g_strdup(path);
  request->peer = peer_of(connection);
  request->body = g_string_new(NULL);
  *context = request;
  return announces_too_much(request) ? refuse(request, 413, "the body is too large\n") : MHD_YES;
}

static enum MHD_Result access_handler(void *data, struct MHD_Connection *connection,
                                      const char *path, const char *method, const char *version,
                                      const char *upload, size_t *upload_size, void **context) {
  (void)version;
  HttpServer *server = data;
  HttpRequest *request = *context;
  if (!request)
    return begin(server, connection, path, method, context);
  if (*upload_size > 0) {
    if (request->body->len + *upload_size > BODY_MAX)
      return MHD_NO; /* without an announced length; ends the connection */
    g_string_append_len(request->body, upload, (gssize)*upload_size);
    *upload_size = 0;
    return MHD_YES;
  }
  if (!request->handled) {
    request->handled = true;
    server->handler(request, server->data);
    if (request->deferred)
      return MHD_YES;
  }
  return MHD_queue_response(connection, request->status, request->response);
}

static void completed(void *data, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode why) {
  (void)data, (void)connection, (void)why;
  if (*context)
    free_request(*context);
  *context = NULL;
}

/* The oldest connection is no longer young, or the limit of connections is reached. */
static bool must_make_room(const HttpServer *server, int64_t old) {
  const Open *oldest = g_queue_peek_head(server->sockets);
  guint all = server->sockets->length + (guint)g_atomic_int_get(&server->deferred);
  return oldest->since < old || all + CONNECTIONS_LEFT >= CONNECTIONS_MAX;
}

static void connection_changed(void *data, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what) {
  (void)context;
  HttpServer *server = data;
  if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
    forget(server, socket_of(connection));
    return;
  }
  if (server->sockets->length == 0)
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
  int64_t old = g_get_monotonic_time() - (int64_t)YOUNG_MS * 1000;
  while (server->sockets->length >= CONNECTIONS_MANY && must_make_room(server, old)) {
    g_autofree Open *oldest = g_queue_pop_head(server->sockets);
    shutdown(oldest->socket, SHUT_RDWR);
  }
  Open *open = g_new(Open, 1);
  *open = (Open){socket_of(connection), g_get_monotonic_time()};
  g_queue_push_tail(server->sockets, open);
}

/* Leaves path and query as they are: whoever reads a parameter decodes it. */
static size_t keep_escapes(void *data, struct MHD_Connection *connection, char *text) {
  (void)data, (void)connection;
  return strlen(text);
}

/* --- listening ------------------------------------------------------------------------------ */

/* "host:port", with an IPv6 address in brackets. */
static bool split(const char *address, char **ret_host, char **ret_port) {
  const char *colon = strrchr(address, ':');
  if (!colon || colon == address || !colon[1] ||
      strspn(colon + 1, "0123456789") != strlen(colon + 1))
    return false;
  bool brackets = address[0] == '[' && colon[-1] == ']';
  if (!brackets && memchr(address, ':', (size_t)(colon - address)))
    return false;
  *ret_host = brackets ? g_strndup(address + 1, (gsize)(colon - address - 2))
                       : g_strndup(address, (gsize)(colon - address));
  *ret_port = g_strdup(colon + 1);
  return true;
}

bool http_address_is_valid(const char *address) {
  g_autofree char *host = NULL, *port = NULL;
  return split(address, &host, &port) && g_ascii_string_to_unsigned(port, 10, 0, 65535, NULL, NULL);
}

/* Inherited by the connections: a client whose host vanished without a word would keep its place
 * for ever, because a suspended connection has no timeout. */
static void probe_idle_clients(int fd) {
  static const int on = 1, idle_s = 60, interval_s = 15, probes = 4;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static int listen_on(const struct addrinfo *info) {
  int one = 1, fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  probe_idle_clients(fd);
  if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
    return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static void learn_address(HttpServer *server) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getsockname(server->socket, (struct sockaddr *)&name, &length) != 0 ||
      getnameinfo((struct sockaddr *)&name, length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return;
  server->is_local = g_str_has_prefix(host, "127.") || !strcmp(host, "::1");
  server->address = g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static bool fail(Failure *ret_failure, const char *address, const char *why) {
  return failure_set(ret_failure, FAILURE_CONFIG, SOURCE_PROJECTOR, 0, "http: %s: %s", address,
                     why);
}

HttpServer *http_server_listen(const char *address, Failure *ret_failure) {
  g_autofree char *host = NULL, *port = NULL;
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
  struct addrinfo *info = NULL;
  if (!split(address, &host, &port)) {
    fail(ret_failure, address, "expected HOST:PORT");
    return NULL;
  }
  int unknown = getaddrinfo(host, port, &hints, &info);
  if (unknown) {
    fail(ret_failure, address, gai_strerror(unknown));
    return NULL;
  }
  g_autoptr(HttpServer) server = g_new0(HttpServer, 1);
  server->socket = listen_on(info);
  int error = errno;
  freeaddrinfo(info);
  if (server->socket < 0) {
    fail(ret_failure, address,
         error == EADDRINUSE ? "the port is in use; name another one, port 0 for any that is free, "
                               "or \"\" for none"
                             : g_strerror(error));
    return NULL;
  }
  learn_address(server);
  server->sockets = g_queue_new();
  return g_steal_pointer(&server);
}

bool http_server_start(HttpServer *server, HttpHandler handler, void *data, Failure *ret_failure) {
  server->handler = handler;
  server->data = data;
  server->daemon = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, access_handler,
      server, MHD_OPTION_LISTEN_SOCKET, server->socket, MHD_OPTION_CONNECTION_LIMIT,
      (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_PER_CONNECTION,
      MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
      MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED, completed,
      NULL, MHD_OPTION_NOTIFY_CONNECTION, connection_changed, server, MHD_OPTION_END);
  return server->daemon || fail(ret_failure, server->address, "the server cannot be started");
}

void http_server_free(HttpServer *server) {
  if (!server)
    return;
  for (int waited = 0; g_atomic_int_get(&server->deferred) > 0 && waited < SENDING_MS; waited++)
    g_usleep(1000);
  if (server->daemon)
    MHD_stop_daemon(server->daemon); /* closes the socket */
  else if (server->socket >= 0)
    close(server->socket);
  if (server->sockets)
    g_queue_free_full(server->sockets, g_free);
  g_free(server->address);
  g_free(server);
}

const char *http_server_address(const HttpServer *server) {
  return server->address;
}

bool http_server_is_local(const HttpServer *server) {
  return server->is_local;
}

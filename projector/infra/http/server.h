/* server.h - a small HTTP server for browsers and probes, which may be hostile.
 *
 * One thread answers from what the handler has in memory. Each connection carries one request, of
 * limited size; connections are limited in number, and when they become many the oldest ends, so
 * that slow ones cannot keep quick ones out. */
#pragma once

#include "projector/domain/failure.h"

#include <glib.h>

enum { HTTP_DEFERRED_MAX = 300 };

typedef struct HttpServer HttpServer;
typedef struct HttpRequest HttpRequest;

typedef struct HttpAnswer {
  unsigned status;
  const char *type;   /* MIME type */
  const char *policy; /* Content-Security-Policy; NULL: nothing may be loaded */
  const char *allow;  /* with status 405 */
  GBytes *body;       /* taken over */
} HttpAnswer;

/* Called in the server's thread for each whole request; has to call http_answer, or http_defer and
 * then http_answer later from any thread. It must not wait for anything. */
typedef void (*HttpHandler)(HttpRequest *request, void *data);

/* Whether it is valid for http_server_listen. */
bool http_address_is_valid(const char *address);

/* Listens on "host:port" ("[::1]:9464"; port 0 takes a free one), and answers once it is started.
 * FAILURE_CONFIG when it cannot listen. */
HttpServer *http_server_listen(const char *address, Failure *ret_failure);
bool http_server_start(HttpServer *server, HttpHandler handler, void *data, Failure *ret_failure);
/* Every deferred request must have been answered. */
void http_server_free(HttpServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HttpServer, http_server_free)
/* "127.0.0.1:9464", with the actual port. */
const char *http_server_address(const HttpServer *server);
/* Whether only this machine can reach it. */
bool http_server_is_local(const HttpServer *server);

const char *http_request_method(const HttpRequest *request);
/* Without the query, not decoded. */
const char *http_request_path(const HttpRequest *request);
/* NULL: not there. */
const char *http_request_header(const HttpRequest *request, const char *name);
const char *http_request_query(const HttpRequest *request, const char *name);
/* Where the connection comes from: "192.0.2.7", or "" when that is not known. */
const char *http_request_peer(const HttpRequest *request);
const GString *http_request_body(const HttpRequest *request);

/* Calls `take` with each name and value of the query, as written there, until it returns false. */
void http_request_each_query(const HttpRequest *request,
                             bool (*take)(const char *name, const char *value, void *data),
                             void *data);

/* Called by the handler: from now on the request belongs to the code that will answer it, and its
 * connection is not closed to make room for new ones. At most HTTP_DEFERRED_MAX at once. */
void http_defer(HttpRequest *request);
void http_answer(HttpRequest *request, HttpAnswer answer);
/* Whether the client of a deferred request has disconnected. A half-closed connection counts as
 * disconnected. */
bool http_has_hung_up(const HttpRequest *request);

/* --- streamed answers --- */

typedef struct HttpStream HttpStream;

/* Answers a deferred request with status 200 and a body that is written piece by piece, by one
 * thread that may wait. The request is the server's again. */
HttpStream *http_stream_begin(HttpRequest *request, const char *type);
/* Waits while the reader is behind by more than a limited number of bytes. Returns false when it
 * has disconnected. */
bool http_stream_write(HttpStream *stream, const char *text, size_t length);
/* Whether the reader is still connected. */
bool http_stream_has_reader(HttpStream *stream);
/* The end of the body. */
void http_stream_end(HttpStream *stream);
/* From any thread: writing returns false from now on, and the body is left incomplete, so that the
 * reader notices. */
void http_stream_break(HttpStream *stream);

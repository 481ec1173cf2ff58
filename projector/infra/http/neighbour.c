/* neighbour.c - tries to listen, and asks with one GET why that is not possible. */
#include "projector/infra/http/neighbour.h"

#include "projector/infra/http/server.h"

#include <jansson.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
  ANSWER_S = 2,
  ANSWER_MAX = 1 << 20, /* bytes of it that are read */
};

static int connect_to(const char *address) {
  const char *colon = strrchr(address, ':');
  bool brackets = address[0] == '[';
  g_autofree char *host = g_strndup(address + brackets, (gsize)(colon - address) - 2 * brackets);
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  const struct timeval limit = {.tv_sec = ANSWER_S};
  struct addrinfo *info = NULL;
  if (getaddrinfo(host, colon + 1, &hints, &info) != 0)
    return -1;
  int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* for connecting, too */
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (fd >= 0 && connect(fd, info->ai_addr, info->ai_addrlen) != 0) {
    close(fd);
    fd = -1;
  }
  freeaddrinfo(info);
  return fd;
}

/* All of the answer; NULL: none in time. */
static char *ask(const char *address) {
  static const char request[] =
      "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  int64_t until = g_get_monotonic_time() + (int64_t)ANSWER_S * G_USEC_PER_SEC;
  g_autoptr(GString) answer = g_string_new(NULL);
  char part[4096];
  ssize_t got = -1;
  int fd = connect_to(address);
  if (fd < 0)
    return NULL;
  if (send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request))
    while ((got = recv(fd, part, sizeof part, 0)) > 0 && answer->len < ANSWER_MAX &&
           g_get_monotonic_time() < until)
      g_string_append_len(answer, part, got);
  close(fd);
  return got == 0 ? g_string_free(g_steal_pointer(&answer), FALSE) : NULL;
}

/* Before it has looked at its stores, a projector has no status yet. */
static Neighbour understand(const char *answer, char **ret_name) {
  const char *body = answer ? strstr(answer, "\r\n\r\n") : NULL;
  if (!body || !g_str_has_prefix(answer, "HTTP/1."))
    return NEIGHBOUR_OTHER;
  if (!strcmp(body + 4, "the stores have not been checked yet\n"))
    return NEIGHBOUR_PROJECTOR;
  json_t *status = json_loads(body + 4, 0, NULL);
  *ret_name = g_strdup(json_string_value(json_object_get(status, "name")));
  bool is_one = *ret_name && json_object_get(status, "outbox");
  json_decref(status);
  return is_one ? NEIGHBOUR_PROJECTOR : NEIGHBOUR_OTHER;
}

Neighbour http_find_neighbour(const char *address, char **ret_name, Failure *ret_why) {
  g_autoptr(HttpServer) server = http_server_listen(address, ret_why);
  *ret_name = NULL;
  if (server)
    return NEIGHBOUR_NONE;
  g_autofree char *answer = ask(address);
  return understand(answer, ret_name);
}

/* notify.c - one datagram to the socket that the service manager named. */
#include "projector/infra/notify.h"

#include <glib.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool notify_has_manager(void) {
  return g_getenv("NOTIFY_SOCKET") != NULL;
}

bool notify(const char *state) {
  const char *name = g_getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = name ? strlen(name) : 0;
  if (length < 2 || !strchr("/@", name[0]) || length >= sizeof address.sun_path)
    return false;
  memcpy(address.sun_path, name, length);
  if (name[0] == '@') /* an abstract socket name */
    address.sun_path[0] = '\0';
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return false;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  bool sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                     (struct sockaddr *)&address, size) >= 0;
  close(fd);
  return sent;
}

int64_t notify_watchdog_us(void) {
  const char *process = g_getenv("WATCHDOG_PID"), *interval = g_getenv("WATCHDOG_USEC");
  gint64 us = 0;
  if (process && g_ascii_strtoll(process, NULL, 10) != getpid())
    return 0;
  return interval && g_ascii_string_to_signed(interval, 10, 1, G_MAXINT64, &us, NULL) ? us : 0;
}

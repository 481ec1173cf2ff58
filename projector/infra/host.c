/* host.c - recognizes loopback, by name and by number. */
#include "projector/infra/host.h"

#include <arpa/inet.h>
#include <glib.h>

bool host_is_local(const char *host) {
  struct in_addr four;
  struct in6_addr six;
  if (!g_ascii_strcasecmp(host, "localhost"))
    return true;
  if (inet_pton(AF_INET, host, &four) == 1)
    return ntohl(four.s_addr) >> 24 == IN_LOOPBACKNET;
  return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

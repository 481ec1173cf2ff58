/* host.h - is a host this machine? */
#pragma once

#include <stdbool.h>

/* Whether the name or number is a loopback address. */
bool host_is_local(const char *host);

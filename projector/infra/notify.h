/* notify.h - tells the service manager how it goes: the protocol of sd_notify(3), without its
 * library. Says nothing when nobody asked (NOTIFY_SOCKET). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Assignments, one a line: "READY=1\nSTATUS=working". Returns false when nobody was told. */
bool notify(const char *state);

/* Within this time, in us, the manager wants to hear WATCHDOG=1 again; 0: it does not want it from
 * this process. */
int64_t notify_watchdog_us(void);

/* notify.h - notifies the service manager: the protocol of sd_notify(3), without its library. Does
 * nothing without NOTIFY_SOCKET. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool notify_has_manager(void);

/* Assignments, one a line: "READY=1\nSTATUS=working". Returns false when nothing was sent; never
 * waits for a manager that does not read, whose socket holds few messages
 * (net.unix.max_dgram_qlen).
 */
bool notify(const char *state);

/* The manager expects WATCHDOG=1 within this time, in us; 0: not from this process. */
int64_t notify_watchdog_us(void);

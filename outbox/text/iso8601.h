// Times as text.
#ifndef OUTBOX_TEXT_ISO8601_H
#define OUTBOX_TEXT_ISO8601_H

#include <stdbool.h>
#include <stdint.h>

// Parses YYYY-MM-DDThh:mm[:ss[.f]] and Z, +hh:mm or +hhmm, with at most three digits of a second.
// *ret_ms: milliseconds since 1970 UTC. False when it is anything else, or no such day or time.
bool iso8601_parse(const char *text, int64_t *ret_ms);

#endif

// SHA-256 (FIPS 180-4) of bytes in memory, so that liboutbox needs no library besides libmongoc.
#ifndef OUTBOX_SHA256_H
#define OUTBOX_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { OUTBOX_SHA256_BYTES = 32 };

void outbox_sha256(const uint8_t *bytes, size_t length, uint8_t ret_digest[OUTBOX_SHA256_BYTES]);

#endif

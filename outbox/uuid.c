// Event ids: UUIDv7 (RFC 9562), rising within the process.
#include "outbox/internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int64_t outbox_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t outbox_monotonic_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void outbox_random(void *ret_bytes, size_t length) {
  while (getrandom(ret_bytes, length, 0) != (ssize_t)length) {
    // Requests of up to 256 bytes are never cut short; without the call there is no safe way to
    // continue.
    if (errno != EINTR) {
      abort();
    }
  }
}

// Adds a random step to the 74 bits below the time, skipping the version and variant bits. Returns
// false when they overflow.
static bool advance(uint8_t bytes[16], uint32_t step) {
  uint64_t low = 0;
  for (int i = 8; i < 16; i++) {
    low = low << 8 | bytes[i];
  }
  low = (low & 0x3fffffffffffffff) + step;
  uint32_t high = (uint32_t)(bytes[6] & 0x0f) << 8 | bytes[7];
  high += (uint32_t)(low >> 62);
  for (int i = 15; i >= 8; i--) {
    bytes[i] = (uint8_t)low;
    low >>= 8;
  }
  bytes[6] = (uint8_t)(high >> 8 & 0x0f);
  bytes[7] = (uint8_t)high;
  return high <= 0xfff;
}

static void put_time(uint8_t bytes[16], int64_t ms) {
  for (int i = 0; i < 6; i++) {
    bytes[i] = (uint8_t)((uint64_t)ms >> (8 * (5 - i)));
  }
}

void outbox_uuid7_next(outbox_uuid7_state_t *state, int64_t now_ms, const uint8_t random[10],
                       uint8_t ret_bytes[16]) {
  uint32_t step =
      (uint32_t)random[0] << 24 | (uint32_t)random[1] << 16 | (uint32_t)random[2] << 8 | random[3];
  // Within a millisecond, and while the clock is behind the last id, count up from that id.
  bool counts_on = now_ms <= state->last_ms && advance(state->last, step | 1);
  if (!counts_on) {
    // When the random part overflows, the next millisecond is borrowed.
    state->last_ms = now_ms > state->last_ms ? now_ms : state->last_ms + 1;
    memcpy(state->last + 6, random, 10);
  }
  put_time(state->last, state->last_ms);
  state->last[6] = (uint8_t)((state->last[6] & 0x0f) | 0x70);
  state->last[8] = (uint8_t)((state->last[8] & 0x3f) | 0x80);
  memcpy(ret_bytes, state->last, 16);
}

void outbox_uuid7(uint8_t ret_bytes[16]) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static outbox_uuid7_state_t state;
  static pid_t owner;
  uint8_t random[10];
  outbox_random(random, sizeof random);
  pthread_mutex_lock(&mutex);
  // A forked child must not count on from its parent's last id.
  if (owner != getpid()) {
    owner = getpid();
    state = (outbox_uuid7_state_t){0};
  }
  outbox_uuid7_next(&state, outbox_now_ms(), random, ret_bytes);
  pthread_mutex_unlock(&mutex);
}

// SHA-256 (FIPS 180-4); the names are those of the standard.
#include "outbox/sha256.h"

#include <string.h>

enum { BLOCK_BYTES = 64, ROUNDS = 64, LENGTH_BYTES = 8 };

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
static const uint32_t K[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, unsigned n) {
  return x >> n | x << (32 - n);
}

static uint32_t load(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void schedule(const uint8_t block[BLOCK_BYTES], uint32_t ret_w[ROUNDS]) {
  for (int t = 0; t < 16; t++) {
    ret_w[t] = load(block + 4 * t);
  }
  for (int t = 16; t < ROUNDS; t++) {
    uint32_t a = ret_w[t - 15], b = ret_w[t - 2];
    uint32_t s0 = rotr(a, 7) ^ rotr(a, 18) ^ a >> 3;
    uint32_t s1 = rotr(b, 17) ^ rotr(b, 19) ^ b >> 10;
    ret_w[t] = s1 + ret_w[t - 7] + s0 + ret_w[t - 16];
  }
}

static void add_block(uint32_t h[8], const uint8_t block[BLOCK_BYTES]) {
  uint32_t w[ROUNDS], v[8];
  schedule(block, w);
  memcpy(v, h, sizeof v);
  for (int t = 0; t < ROUNDS; t++) {
    uint32_t a = v[0], e = v[4];
    uint32_t choice = (e & v[5]) ^ (~e & v[6]);
    uint32_t majority = (a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]);
    uint32_t t1 = v[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + choice + K[t] + w[t];
    uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + majority;
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) {
    h[i] += v[i];
  }
}

void outbox_sha256(const uint8_t *bytes, size_t length, uint8_t ret_digest[OUTBOX_SHA256_BYTES]) {
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t tail[2 * BLOCK_BYTES] = {0};
  size_t whole = length / BLOCK_BYTES * BLOCK_BYTES, rest = length - whole;
  for (size_t at = 0; at < whole; at += BLOCK_BYTES) {
    add_block(h, bytes + at);
  }
  // The remaining bytes, a set bit, zeros, and the length in bits.
  if (rest > 0) {
    memcpy(tail, bytes + whole, rest);
  }
  tail[rest] = 0x80;
  size_t padded = rest + 1 + LENGTH_BYTES <= BLOCK_BYTES ? BLOCK_BYTES : 2 * BLOCK_BYTES;
  for (int i = 0; i < LENGTH_BYTES; i++) {
    tail[padded - 1 - (size_t)i] = (uint8_t)((uint64_t)length * 8 >> 8 * i);
  }
  for (size_t at = 0; at < padded; at += BLOCK_BYTES) {
    add_block(h, tail + at);
  }
  for (int i = 0; i < OUTBOX_SHA256_BYTES; i++) {
    ret_digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
  }
}

/* arena.c - a bump allocator in a chain of blocks. */
#include "projector/domain/arena.h"

#include <stdint.h>
#include <string.h>

enum { BLOCK_SIZE = 256 * 1024 };

typedef struct Block {
  struct Block *next;
  size_t size, used;
  max_align_t data[];
} Block;

struct Arena {
  Block *blocks; /* the newest first; the last one has BLOCK_SIZE */
};

static Block *block_new(Block *next, size_t size) {
  Block *block = g_malloc(sizeof *block + size);
  *block = (Block){.next = next, .size = size};
  return block;
}

Arena *arena_new(void) {
  Arena *arena = g_new(Arena, 1);
  arena->blocks = block_new(NULL, BLOCK_SIZE);
  return arena;
}

void arena_reset(Arena *arena) {
  while (arena->blocks->next) {
    Block *next = arena->blocks->next;
    g_free(arena->blocks);
    arena->blocks = next;
  }
  arena->blocks->used = 0;
}

void arena_free(Arena *arena) {
  if (!arena)
    return;
  arena_reset(arena);
  g_free(arena->blocks);
  g_free(arena);
}

static void *take(Arena *arena, size_t bytes) {
  bytes = (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
  if (bytes > arena->blocks->size - arena->blocks->used)
    arena->blocks = block_new(arena->blocks, bytes > BLOCK_SIZE ? bytes : BLOCK_SIZE);
  void *memory = (uint8_t *)arena->blocks->data + arena->blocks->used;
  arena->blocks->used += bytes;
  return memory;
}

void *arena_alloc(Arena *arena, size_t count, size_t size) {
  return memset(take(arena, count * size), 0, count * size);
}

char *arena_copy(Arena *arena, const void *bytes, size_t length) {
  char *copy = take(arena, length + 1);
  if (length)
    memcpy(copy, bytes, length);
  copy[length] = '\0';
  return copy;
}

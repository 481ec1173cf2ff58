/* arena.h - memory for everything that lives as long as one batch. */
#pragma once

#include <glib.h>
#include <stddef.h>

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *arena);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Arena, arena_free)

/* Zeroed memory for `count` things of `size` bytes, aligned for anything; never NULL. */
void *arena_alloc(Arena *arena, size_t count, size_t size);
/* A copy of the bytes, with a NUL behind them. */
char *arena_copy(Arena *arena, const void *bytes, size_t length);
/* Forgets everything but keeps one block, so that a steady load needs no malloc. */
void arena_reset(Arena *arena);

/* window.h - the rows of one part of a table, as hashes of their keys, and which of them an entity
 * has: eight bytes for each.
 *
 * A row is overlooked if its key has the same hash as another key that an entity has: with a
 * million rows, that is one chance in 10^13. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Window {
  GArray *hashes; /* of uint64_t, sorted by window_close */
  uint8_t *claimed;
  size_t unclaimed;
} Window;

void window_init(Window *window);
void window_clear(Window *window);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Window, window_clear)

void window_add(Window *window, uint64_t hash);
/* No more rows are added; before the first claim. */
void window_close(Window *window);
/* An entity has a row of that hash. */
void window_claim(Window *window, uint64_t hash);
/* Whether the row is one of the window's that no entity has claimed. */
bool window_is_unclaimed(const Window *window, uint64_t hash);

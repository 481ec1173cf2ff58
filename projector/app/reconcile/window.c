/* window.c - a sorted list of hashes, with a flag for each. */
#include "projector/app/reconcile/window.h"

#include <stdlib.h>

void window_init(Window *window) {
  *window = (Window){.hashes = g_array_new(FALSE, FALSE, sizeof(uint64_t))};
}

void window_clear(Window *window) {
  g_array_unref(window->hashes);
  g_free(window->claimed);
}

static int compare_hashes(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* The index of the hash, or -1. */
static gssize find(const Window *window, uint64_t hash) {
  const uint64_t *found =
      bsearch(&hash, window->hashes->data, window->hashes->len, sizeof hash, compare_hashes);
  return found ? found - (const uint64_t *)(const void *)window->hashes->data : -1;
}

void window_add(Window *window, uint64_t hash) {
  g_assert(!window->claimed);
  g_array_append_val(window->hashes, hash);
}

void window_close(Window *window) {
  qsort(window->hashes->data, window->hashes->len, sizeof(uint64_t), compare_hashes);
  window->claimed = g_malloc0(window->hashes->len + 1);
  window->unclaimed = window->hashes->len;
}

void window_claim(Window *window, uint64_t hash) {
  gssize at = find(window, hash);
  if (at >= 0 && !window->claimed[at]) {
    window->claimed[at] = 1;
    window->unclaimed--;
  }
}

bool window_is_unclaimed(const Window *window, uint64_t hash) {
  gssize at = find(window, hash);
  return at >= 0 && !window->claimed[at];
}

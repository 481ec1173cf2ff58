/* rest.h - how long work that nobody waits for rests, so that live events come first. Times in
 * microseconds. */
#pragma once

#include <stdint.h>

/* After a search that took so long and read so many documents of so many bytes in all: ten times as
 * long as the reading takes. What it took longer was waiting for its store, which says nothing of
 * the next search. At most a minute, or as long as it took. */
int64_t rest_after_search_us(int64_t took_us, int64_t documents, int64_t bytes);

/* After a page that deleted so many entries, while `added` came in `since_us`. Five times as long
 * as the page took, but no longer than that twice as many entries go as come, and at most 10 s. */
int64_t rest_after_page_us(int64_t took_us, int64_t deleted, int64_t added, int64_t since_us);

/* How many came lately. Commits bring many at once, so the time looked at is longer than between
 * two pages: one to two seconds, or since the beginning. */
typedef struct Arrivals {
  int64_t at_us[2], count[2]; /* two moments */
} Arrivals;

void arrivals_begin(Arrivals *arrivals, int64_t now_us, int64_t count);
/* `count`: how many have come so far. Returns how many of them in the last `*ret_since_us`. */
int64_t arrivals_since(Arrivals *arrivals, int64_t now_us, int64_t count, int64_t *ret_since_us);

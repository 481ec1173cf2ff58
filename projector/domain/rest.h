/* rest.h - how long work that nobody waits for rests, so that live events come first. Times in
 * microseconds. */
#pragma once

#include <stdint.h>

/* After a search that took so long and read so many documents of so many bytes in all: ten times as
 * long as the reading takes. What it took longer was waiting for its store, which says nothing of
 * the next search. At most a minute, or as long as it took. */
int64_t rest_after_search_us(int64_t took_us, int64_t documents, int64_t bytes);

/* Between two pages of deletions; since the page before this one, `since_us` ago, `added` entries
 * came. Five times as long as the page took, but no longer than that twice as many entries go as
 * come, and at most 10 s. */
int64_t rest_after_page_us(int64_t took_us, int64_t deleted, int64_t added, int64_t since_us);

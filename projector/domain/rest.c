#include "projector/domain/rest.h"

#include <glib.h>

enum {
  SEARCH_SHARE = 10,
  DOCUMENT_US = 100, /* to read a document, but for its bytes: more than it takes anywhere */
  BYTES_PER_US = 50,
  SEARCH_MAX_US = 60000000,
  PAGE_SHARE = 5,
  PAGE_MAX_US = 10000000,
  GO_FOR_EACH = 2, /* that comes */
  ARRIVALS_US = 1000000,
};

int64_t rest_after_search_us(int64_t took_us, int64_t documents, int64_t bytes) {
  int64_t reading_us = MIN(took_us, documents * DOCUMENT_US + bytes / BYTES_PER_US);
  return MIN(reading_us * SEARCH_SHARE, MAX(SEARCH_MAX_US, took_us));
}

int64_t rest_after_page_us(int64_t took_us, int64_t deleted, int64_t added, int64_t since_us) {
  int64_t rest_us = MIN(took_us * PAGE_SHARE, PAGE_MAX_US);
  if (added > 0 && deleted > 0)
    rest_us = MIN(rest_us, MAX(deleted * since_us / (added * GO_FOR_EACH) - took_us, 0));
  return rest_us;
}

void arrivals_begin(Arrivals *arrivals, int64_t now_us, int64_t count) {
  *arrivals = (Arrivals){{now_us, now_us}, {count, count}};
}

int64_t arrivals_since(Arrivals *arrivals, int64_t now_us, int64_t count, int64_t *ret_since_us) {
  if (now_us - arrivals->at_us[1] >= ARRIVALS_US) {
    arrivals->at_us[0] = arrivals->at_us[1];
    arrivals->count[0] = arrivals->count[1];
    arrivals->at_us[1] = now_us;
    arrivals->count[1] = count;
  }
  *ret_since_us = now_us - arrivals->at_us[0];
  return count - arrivals->count[0];
}

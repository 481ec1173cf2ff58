/* items.c - the verdict on an item of a batch, and whether it is still open. */
#include "projector/app/engine/steps.h"

bool is_open(const Item *item) {
  return item->verdict != VERDICT_FAILED && item->verdict != VERDICT_KNOWN;
}

size_t count_open(const Item *items, size_t count) {
  size_t open = 0;
  for (size_t i = 0; i < count; i++)
    open += is_open(&items[i]);
  return open;
}

void fail_item(Worker *worker, Item *item, const Failure *failure) {
  item->verdict = VERDICT_FAILED;
  item->failure = arena_alloc(worker->arena, 1, sizeof *failure);
  *item->failure = *failure;
}

void hold_item(Worker *worker, Item *item, const Failure *failure) {
  fail_item(worker, item, failure);
  queued_of(item)->excused = true;
}

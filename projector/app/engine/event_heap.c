/* event_heap.c - a binary heap in an array. */
#include "projector/app/engine/event_heap.h"

bool event_heap_before(const GPtrArray *heap, unsigned a, unsigned b) {
  const QueuedEvent *x = heap->pdata[a], *y = heap->pdata[b];
  return order_key_compare(&x->event->key, &y->event->key) < 0;
}

static void swap(GPtrArray *heap, unsigned a, unsigned b) {
  gpointer kept = heap->pdata[a];
  heap->pdata[a] = heap->pdata[b];
  heap->pdata[b] = kept;
}

static void heap_rise(GPtrArray *heap, unsigned at) {
  for (; at > 0 && event_heap_before(heap, at, (at - 1) / 2); at = (at - 1) / 2)
    swap(heap, at, (at - 1) / 2);
}

static void heap_sink(GPtrArray *heap, unsigned at) {
  for (;;) {
    unsigned child = 2 * at + 1;
    if (child >= heap->len)
      return;
    if (child + 1 < heap->len && event_heap_before(heap, child + 1, child))
      child++;
    if (!event_heap_before(heap, child, at))
      return;
    swap(heap, at, child);
    at = child;
  }
}

void event_heap_push(GPtrArray *heap, QueuedEvent *queued) {
  g_ptr_array_add(heap, queued);
  heap_rise(heap, heap->len - 1);
}

QueuedEvent *event_heap_remove(GPtrArray *heap, unsigned at) {
  QueuedEvent *queued = heap->pdata[at];
  QueuedEvent *last = g_ptr_array_steal_index(heap, heap->len - 1);
  if (at < heap->len) {
    heap->pdata[at] = last;
    heap_rise(heap, at);
    heap_sink(heap, at);
  }
  return queued;
}

/* event_queue.c - a chain of events for each aggregate, and a binary heap of the chains. */
#include "projector/app/engine/event_queue.h"

typedef struct Chain {
  QueuedEvent *first, *last; /* linked by `later`, in order */
  size_t count;
  unsigned at; /* position in the heap */
} Chain;

struct EventQueue {
  GPtrArray *heap;    /* of Chain; at 0 the one with the smallest first event */
  GHashTable *chains; /* by aggregate; a chain is its own key */
  size_t count;
};

/* --- chains by aggregate ---------------------------------------------------------------------- */

static guint chain_hash(gconstpointer data) {
  const Chain *chain = data;
  return (guint)chain->first->event->aggregate_hash;
}

static gboolean chain_equal(gconstpointer a, gconstpointer b) {
  const Chain *x = a, *y = b;
  return aggregate_equal(&x->first->event->aggregate, &y->first->event->aggregate);
}

static Chain *find(const EventQueue *queue, const QueuedEvent *event) {
  const Chain like = {.first = (QueuedEvent *)event};
  return event_has_aggregate(event->event) ? g_hash_table_lookup(queue->chains, &like) : NULL;
}

static bool is_before(const QueuedEvent *a, const QueuedEvent *b) {
  return order_key_compare(&a->event->key, &b->event->key) < 0;
}

/* Most events sort after all others of their aggregate, so the search starts at the end. */
static void link_in(Chain *chain, QueuedEvent *event) {
  event->later = NULL;
  chain->count++;
  if (is_before(chain->last, event)) {
    chain->last = chain->last->later = event;
    return;
  }
  QueuedEvent **place = &chain->first;
  while (is_before(*place, event))
    place = &(*place)->later;
  event->later = *place;
  *place = event;
}

/* --- the heap --------------------------------------------------------------------------------- */

static void put(GPtrArray *heap, unsigned at, Chain *chain) {
  heap->pdata[at] = chain;
  chain->at = at;
}

static void rise(GPtrArray *heap, Chain *chain) {
  unsigned at = chain->at;
  for (; at > 0; at = (at - 1) / 2) {
    Chain *parent = heap->pdata[(at - 1) / 2];
    if (!is_before(chain->first, parent->first))
      break;
    put(heap, at, parent);
  }
  put(heap, at, chain);
}

static void sink(GPtrArray *heap, Chain *chain) {
  unsigned at = chain->at;
  for (;;) {
    unsigned child = 2 * at + 1;
    if (child >= heap->len)
      break;
    Chain *smaller = heap->pdata[child];
    if (child + 1 < heap->len) {
      Chain *other = heap->pdata[child + 1];
      if (is_before(other->first, smaller->first))
        smaller = other;
    }
    if (!is_before(smaller->first, chain->first))
      break;
    unsigned from = smaller->at;
    put(heap, at, smaller);
    at = from;
  }
  put(heap, at, chain);
}

static void remove_chain(EventQueue *queue, Chain *chain) {
  GPtrArray *heap = queue->heap;
  Chain *last = g_ptr_array_steal_index(heap, heap->len - 1);
  if (last != chain) {
    put(heap, chain->at, last);
    rise(heap, last);
    sink(heap, last);
  }
  if (event_has_aggregate(chain->first->event))
    g_hash_table_remove(queue->chains, chain);
  g_free(chain);
}

static QueuedEvent *pop_first(EventQueue *queue, Chain *chain) {
  QueuedEvent *event = chain->first;
  queue->count--;
  if (event->later) {
    chain->first = event->later;
    chain->count--;
    sink(queue->heap, chain);
  } else {
    remove_chain(queue, chain);
  }
  event->later = NULL;
  return event;
}

/* --- the queue -------------------------------------------------------------------------------- */

EventQueue *event_queue_new(void) {
  EventQueue *queue = g_new0(EventQueue, 1);
  queue->heap = g_ptr_array_new();
  queue->chains = g_hash_table_new(chain_hash, chain_equal);
  return queue;
}

void event_queue_free(EventQueue *queue) {
  if (!queue)
    return;
  for (unsigned i = 0; i < queue->heap->len; i++)
    g_free(queue->heap->pdata[i]);
  g_ptr_array_unref(queue->heap);
  g_hash_table_unref(queue->chains);
  g_free(queue);
}

size_t event_queue_count(const EventQueue *queue) {
  return queue->count;
}

void event_queue_push(EventQueue *queue, QueuedEvent *event) {
  Chain *chain = find(queue, event);
  queue->count++;
  if (chain) {
    link_in(chain, event);
    rise(queue->heap, chain);
    return;
  }
  chain = g_new(Chain, 1);
  *chain = (Chain){.first = event, .last = event, .count = 1, .at = queue->heap->len};
  event->later = NULL;
  g_ptr_array_add(queue->heap, chain);
  rise(queue->heap, chain);
  if (event_has_aggregate(event->event))
    g_hash_table_add(queue->chains, chain);
}

QueuedEvent *event_queue_pop(EventQueue *queue) {
  return queue->heap->len > 0 ? pop_first(queue, queue->heap->pdata[0]) : NULL;
}

QueuedEvent *event_queue_pop_like(EventQueue *queue, const QueuedEvent *event) {
  Chain *chain = find(queue, event);
  return chain ? pop_first(queue, chain) : NULL;
}

bool event_queue_take(EventQueue *queue, QueuedEvent *event) {
  for (unsigned i = 0; i < queue->heap->len; i++) {
    Chain *chain = queue->heap->pdata[i];
    if (chain->first == event)
      return pop_first(queue, chain) == event;
  }
  return false;
}

QueuedEvent *event_queue_pop_where(EventQueue *queue, EventTest *test, gconstpointer data) {
  Chain *smallest = NULL;
  for (unsigned i = 0; i < queue->heap->len; i++) {
    Chain *chain = queue->heap->pdata[i];
    if (test(chain->first->event, data) && (!smallest || is_before(chain->first, smallest->first)))
      smallest = chain;
  }
  return smallest ? pop_first(queue, smallest) : NULL;
}

size_t event_queue_count_where(const EventQueue *queue, EventTest *test, gconstpointer data) {
  size_t count = 0;
  for (unsigned i = 0; i < queue->heap->len; i++) {
    const Chain *chain = queue->heap->pdata[i];
    if (test(chain->first->event, data))
      count += chain->count;
  }
  return count;
}

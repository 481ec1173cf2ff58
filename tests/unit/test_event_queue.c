/* test_event_queue.c - the queue against a plain array that is searched from end to end. */
#include "projector/app/engine/event_queue.h"
#include "tests/unit/support.h"

enum { SEEDS = 300, STEPS = 400, AGGREGATES = 6, TIMES = 50 };

/* An event of one of a few aggregates, or of none. */
static QueuedEvent *make(GRand *random, unsigned number) {
  bson_t document = BSON_INITIALIZER, payload = BSON_INITIALIZER;
  g_autofree char *id = g_strdup_printf("event-%u", number);
  int aggregate = g_rand_int_range(random, 0, AGGREGATES);
  BSON_APPEND_UTF8(&document, "_id", id);
  BSON_APPEND_UTF8(&document, "aggregate_type", "account");
  if (aggregate > 0)
    BSON_APPEND_INT32(&document, "aggregate_id", aggregate);
  BSON_APPEND_UTF8(&document, "event_type", "Opened");
  BSON_APPEND_DATE_TIME(&document, "occurred_at", g_rand_int_range(random, 0, TIMES));
  BSON_APPEND_DOCUMENT(&document, "payload", &payload);
  Event *event = event_decode(&document);
  bson_destroy(&payload);
  bson_destroy(&document);
  return queued_event_new(event);
}

static bool is_of(const Event *event, gconstpointer like) {
  return event_has_aggregate(event) && event_has_aggregate(like) &&
         aggregate_equal(&event->aggregate, &((const Event *)like)->aggregate);
}

static bool is_any(const Event *event, gconstpointer data) {
  (void)event, (void)data;
  return true;
}

static bool is_even(const Event *event, gconstpointer data) {
  (void)data;
  return event_has_aggregate(event) && event->aggregate.id.number % 2 == 0;
}

/* The smallest of the plain array that passes; NULL: none. */
static QueuedEvent *plain_pop(GPtrArray *plain, EventTest *test, gconstpointer data) {
  QueuedEvent *smallest = NULL;
  for (unsigned i = 0; i < plain->len; i++) {
    QueuedEvent *queued = plain->pdata[i];
    if (test(queued->event, data) &&
        (!smallest || order_key_compare(&queued->event->key, &smallest->event->key) < 0))
      smallest = queued;
  }
  if (smallest)
    g_ptr_array_remove_fast(plain, smallest);
  return smallest;
}

static size_t plain_count(const GPtrArray *plain, EventTest *test) {
  size_t count = 0;
  for (unsigned i = 0; i < plain->len; i++)
    count += test(((QueuedEvent *)plain->pdata[i])->event, NULL);
  return count;
}

static void run_seed(uint32_t seed) {
  g_autoptr(GRand) random = g_rand_new_with_seed(seed);
  g_autoptr(GPtrArray) plain = g_ptr_array_new(), all = g_ptr_array_new();
  EventQueue *queue = event_queue_new();
  const QueuedEvent *like = NULL;
  for (unsigned step = 0; step < STEPS; step++) {
    QueuedEvent *found = NULL, *expected = NULL;
    int what = g_rand_int_range(random, 0, 10);
    if (what < 5) {
      QueuedEvent *event = make(random, step);
      g_ptr_array_add(all, event);
      g_ptr_array_add(plain, event);
      event_queue_push(queue, event);
    } else if (what == 5) {
      found = event_queue_pop(queue);
      expected = plain_pop(plain, is_any, NULL);
    } else if (what == 6 && all->len > 0) {
      like = all->pdata[g_rand_int_range(random, 0, (int)all->len)];
      found = event_queue_pop_like(queue, like);
      expected = plain_pop(plain, is_of, like->event);
    } else if (what == 8 && plain->len > 0) {
      QueuedEvent *event = plain->pdata[g_rand_int_range(random, 0, (int)plain->len)];
      bool alone = !event_has_aggregate(event->event);
      expected = alone ? event : plain_pop(plain, is_of, event->event);
      if (alone)
        g_ptr_array_remove_fast(plain, event);
      found = event_queue_take(queue, event) ? event : NULL;
      if (expected != event) {
        g_ptr_array_add(plain, expected);
        expected = NULL;
      }
    } else if (what == 7) {
      found = event_queue_pop_where(queue, is_even, NULL);
      expected = plain_pop(plain, is_even, NULL);
    } else {
      check_number("even", (int64_t)event_queue_count_where(queue, is_even, NULL),
                   (int64_t)plain_count(plain, is_even));
    }
    check_that("the event", found == expected, "is the smallest");
    check_number("count", (int64_t)event_queue_count(queue), plain->len);
  }
  event_queue_free(queue);
  g_ptr_array_set_free_func(all, (GDestroyNotify)queued_event_free);
}

static void test_gives_what_a_search_gives(void **state) {
  (void)state;
  for (uint32_t seed = 1; seed <= SEEDS; seed++)
    run_seed(seed);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_gives_what_a_search_gives)};
  return RUN_TESTS(tests);
}

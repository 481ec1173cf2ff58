/* test_shards.c - which worker gets which events, without stores. */
#include "projector/app/shards.h"
#include "tests/unit/support.h"

#include <string.h>

enum { WORKERS = 3, MANY = 200 };

typedef struct World {
  Shards shards;
  Shard *all[WORKERS];
  unsigned next; /* event */
} World;

static World *world_new(void) {
  static const ShardLimits limits = {.events = 10 * MANY, .bytes = 1 << 30, .holds = 1000};
  World *world = g_new0(World, 1);
  for (unsigned i = 0; i < WORKERS; i++)
    world->all[i] = shard_new(limits, NULL);
  world->shards = (Shards){.shards = world->all, .count = WORKERS};
  return world;
}

static void world_free(World *world) {
  for (unsigned i = 0; i < WORKERS; i++)
    shard_free(world->all[i]);
  g_free(world);
}

static void put(World *world, unsigned shard, unsigned count, int attempts) {
  for (unsigned i = 0; i < count; i++) {
    g_autofree char *json = g_strdup_printf(
        "{'_id': '%u', 'aggregate_type': 'account', 'aggregate_id': 'a', 'event_type': 'Opened',"
        " 'occurred_at': {'$date': {'$numberLong': '%u'}}, 'payload': {}, 'attempts': %d}",
        world->next, world->next, attempts);
    world->next++;
    assert_true(shard_offer(world->all[shard], event_from(json)));
  }
}

/* The events stay in hand, and in their shard's memory. */
static size_t take(World *world, unsigned worker, const Taking *how) {
  static Event *events[10 * MANY];
  return shards_take(&world->shards, worker, how, events);
}

static const Taking usual = {.max_events = MANY, .max_bytes = 1 << 30};

static void test_one_worker_takes_the_few_events_of_all(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 2, 0);
  put(world, 2, 3, 0);
  check_number("taken", (int64_t)take(world, 1, &usual), 5);
  for (unsigned shard = 0; shard < WORKERS; shard++)
    put(world, shard, 1, 0);
  check_number("by others meanwhile", (int64_t)take(world, 0, &usual), 0);
  check_number("by others meanwhile", (int64_t)take(world, 2, &usual), 0);
  check_number("after it", (int64_t)take(world, 1, &usual), 3);
  check_number("nothing left", (int64_t)take(world, 1, &usual), 0);
  put(world, 2, 1, 0);
  check_number("free for others", (int64_t)take(world, 2, &usual), 1);
  world_free(world);
}

static void test_many_events_are_for_their_own_worker(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 1, 0);
  check_number("few", (int64_t)take(world, 0, &usual), 1);
  put(world, 0, 1, 0);
  put(world, 1, MANY, 0);
  put(world, 2, 1, 0);
  check_number("what is few", (int64_t)take(world, 0, &usual), 2);
  check_number("what is many", (int64_t)take(world, 1, &usual), MANY);
  put(world, 0, MANY, 0);
  check_number("of its own", (int64_t)take(world, 0, &usual), MANY);
  put(world, 2, 1, 0);
  check_number("left alone by a long batch", (int64_t)take(world, 2, &usual), 1);
  world_free(world);
}

static void test_a_full_batch_takes_nothing_along(void **state) {
  (void)state;
  const Taking one = {.max_events = 1, .max_bytes = 1 << 30};
  World *world = world_new();
  put(world, 0, 1, 0);
  check_number("its own", (int64_t)take(world, 0, &one), 1);
  put(world, 1, 1, 0);
  check_number("the other's", (int64_t)take(world, 1, &one), 1);
  world_free(world);
}

static void test_an_event_that_may_kill_comes_alone(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 1, 2);
  put(world, 1, 1, 0);
  check_number("first", (int64_t)take(world, 0, &usual), 1);
  check_number("the rest", (int64_t)take(world, 0, &usual), 1);
  put(world, 0, 1, 0);
  put(world, 1, 1, 2);
  check_number("second", (int64_t)take(world, 0, &usual), 1);
  check_number("the one", (int64_t)take(world, 0, &usual), 1);
  world_free(world);
}

static void test_alone_and_released(void **state) {
  (void)state;
  Taking alone = usual;
  alone.alone = true;
  World *world = world_new();
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("both", (int64_t)take(world, 0, &usual), 2);
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("its own", (int64_t)take(world, 0, &alone), 1);
  check_number("the other's", (int64_t)take(world, 1, &alone), 1);
  put(world, 1, 1, 0);
  shards_release(&world->shards, 1);
  check_number("released", (int64_t)take(world, 2, &usual), 1);
  world_free(world);
}

static void test_the_bytes_of_all_count(void **state) {
  (void)state;
  const Taking little = {.max_events = MANY, .max_bytes = 1};
  World *world = world_new();
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("one", (int64_t)take(world, 0, &little), 1);
  check_number("the next", (int64_t)take(world, 0, &little), 1);
  world_free(world);
}

/* --- waiting -------------------------------------------------------------------------------- */

typedef struct Waiter {
  World *world;
  size_t taken;
} Waiter;

static gpointer wait_and_take(gpointer data) {
  Waiter *waiter = data;
  Taking how = usual;
  how.wait = true;
  waiter->taken = take(waiter->world, 1, &how);
  return NULL;
}

/* The event came while another worker had the shard, which nobody tells; its release must. */
static void test_a_release_wakes_the_shard_s_worker(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter = {.world = world};
  put(world, 0, 1, 0);
  check_number("by another", (int64_t)take(world, 0, &usual), 1);
  GThread *thread = g_thread_new("waiter", wait_and_take, &waiter);
  put(world, 1, 1, 0);
  shards_release(&world->shards, 0);
  g_thread_join(thread);
  check_number("woken", (int64_t)waiter.taken, 1);
  world_free(world);
}

static void test_a_stop_ends_the_wait(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter = {.world = world};
  GThread *thread = g_thread_new("waiter", wait_and_take, &waiter);
  shard_stop(world->all[1]);
  g_thread_join(thread);
  check_number("nothing", (int64_t)waiter.taken, 0);
  world_free(world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_worker_takes_the_few_events_of_all),
      cmocka_unit_test(test_many_events_are_for_their_own_worker),
      cmocka_unit_test(test_a_full_batch_takes_nothing_along),
      cmocka_unit_test(test_an_event_that_may_kill_comes_alone),
      cmocka_unit_test(test_alone_and_released),
      cmocka_unit_test(test_the_bytes_of_all_count),
      cmocka_unit_test(test_a_release_wakes_the_shard_s_worker),
      cmocka_unit_test(test_a_stop_ends_the_wait),
  };
  return RUN_TESTS(tests);
}

/* test_lanes.c - which worker gets which events, without stores. */
#include "projector/app/engine/lanes.h"
#include "tests/unit/support.h"

#include <string.h>

enum { WORKERS = 3, MANY = 200 };

typedef struct World {
  Lanes lanes;
  Lane *all[WORKERS];
  unsigned next; /* event */
} World;

static World *world_new(void) {
  static const LaneLimits limits = {.events = 10 * MANY, .bytes = 1 << 30, .holds = 1000};
  World *world = g_new0(World, 1);
  for (unsigned i = 0; i < WORKERS; i++)
    world->all[i] = lane_new(limits, NULL);
  world->lanes = (Lanes){.lanes = world->all, .count = WORKERS};
  return world;
}

static void world_free(World *world) {
  for (unsigned i = 0; i < WORKERS; i++)
    lane_free(world->all[i]);
  g_free(world);
}

static void put(World *world, unsigned lane, unsigned count, int attempts) {
  for (unsigned i = 0; i < count; i++) {
    g_autofree char *json = g_strdup_printf(
        "{'_id': '%u', 'aggregate_type': 'account', 'aggregate_id': 'a', 'event_type': 'Opened',"
        " 'occurred_at': {'$date': {'$numberLong': '%u'}}, 'payload': {}, 'attempts': %d}",
        world->next, world->next, attempts);
    world->next++;
    assert_true(lane_offer(world->all[lane], queued_event_new(event_from(json))));
  }
}

/* The events stay in hand, and in their lane's memory. */
static size_t take(World *world, unsigned worker, const Taking *how) {
  static QueuedEvent *events[10 * MANY];
  return lanes_take(&world->lanes, worker, how, events);
}

static const Taking usual = {.max_events = MANY, .max_bytes = 1 << 30};

static void test_one_worker_takes_the_few_events_of_all(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 2, 0);
  put(world, 2, 3, 0);
  check_number("taken", (int64_t)take(world, 1, &usual), 5);
  for (unsigned lane = 0; lane < WORKERS; lane++)
    put(world, lane, 1, 0);
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

static void test_64_events_are_few(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 1, 0);
  put(world, 1, 64, 0);
  check_number("with 64 more", (int64_t)take(world, 0, &usual), 1);
  check_number("they are left", (int64_t)take(world, 1, &usual), 64);
  put(world, 0, 1, 0);
  check_number("nothing is left for", (int64_t)take(world, 0, &usual), 1);
  lanes_release_all_but(&world->lanes, 0, NULL);
  check_number("the other is done", (int64_t)take(world, 1, &usual), 0);
  put(world, 0, 1, 0);
  put(world, 1, 63, 0);
  check_number("with 63 more", (int64_t)take(world, 0, &usual), 64);
  world_free(world);
}

static void test_an_event_that_may_kill_comes_alone(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 1, 2);
  put(world, 1, 1, 0);
  check_number("first", (int64_t)take(world, 0, &usual), 1);
  put(world, 2, 1, 0);
  check_number("of an empty one, meanwhile", (int64_t)take(world, 2, &usual), 2);
  put(world, 1, 1, 0);
  check_number("taken along", (int64_t)take(world, 2, &usual), 1);
  check_number("and done", (int64_t)take(world, 2, &usual), 0);
  put(world, 1, 1, 0);
  check_number("the other's, meanwhile", (int64_t)take(world, 1, &usual), 1);
  put(world, 0, 1, 0);
  check_number("the first is done", (int64_t)take(world, 0, &usual), 1);
  check_number("and the other", (int64_t)take(world, 1, &usual), 0);
  put(world, 0, 1, 0);
  put(world, 1, 1, 2);
  check_number("not with the one", (int64_t)take(world, 0, &usual), 1);
  check_number("the one", (int64_t)take(world, 1, &usual), 1);
  world_free(world);
}

static void test_alone_or_apart(void **state) {
  (void)state;
  Taking alone = usual;
  alone.alone = true;
  World *world = world_new();
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("both", (int64_t)take(world, 0, &usual), 2);
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("alone", (int64_t)take(world, 0, &alone), 1);
  check_number("the other's", (int64_t)take(world, 1, &alone), 1);
  check_number("nothing", (int64_t)take(world, 1, &usual), 0);
  put(world, 0, 1, 0);
  check_number("with all that is empty", (int64_t)take(world, 0, &usual), 1);
  lane_keep_apart(world->all[1], 60000);
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  put(world, 2, 1, 0);
  check_number("without what is apart", (int64_t)take(world, 0, &usual), 2);
  check_number("what is apart", (int64_t)take(world, 1, &usual), 1);
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  check_number("nor does its worker", (int64_t)take(world, 1, &usual), 1);
  check_number("take others", (int64_t)take(world, 0, &usual), 1);
  lane_keep_apart(world->all[1], 0);
  check_number("done", (int64_t)take(world, 1, &usual), 0);
  put(world, 1, 1, 0);
  check_number("together again", (int64_t)take(world, 0, &usual), 1);
  world_free(world);
}

static void test_what_a_worker_gives_up(void **state) {
  (void)state;
  World *world = world_new();
  put(world, 0, 1, 0);
  check_number("taken", (int64_t)take(world, 0, &usual), 1);
  put(world, 0, 1, 0);
  put(world, 1, 1, 0);
  lanes_release_all_but(&world->lanes, 0, world->all[0]);
  check_number("the other's, not its own", (int64_t)take(world, 1, &usual), 1);
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

/* Linked in place of GLib's: tells that a thread is about to sleep, with the lock in its hands, so
 * that whoever takes the lock after that finds it asleep. */
void __real_g_cond_wait(GCond *condition, GMutex *mutex);
gboolean __real_g_cond_wait_until(GCond *condition, GMutex *mutex, gint64 end);
void __wrap_g_cond_wait(GCond *condition, GMutex *mutex);
gboolean __wrap_g_cond_wait_until(GCond *condition, GMutex *mutex, gint64 end);

static gint asleep;

void __wrap_g_cond_wait(GCond *condition, GMutex *mutex) {
  g_atomic_int_set(&asleep, 1);
  __real_g_cond_wait(condition, mutex);
}

gboolean __wrap_g_cond_wait_until(GCond *condition, GMutex *mutex, gint64 end) {
  g_atomic_int_set(&asleep, 1);
  return __real_g_cond_wait_until(condition, mutex, end);
}

typedef struct Waiter {
  World *world;
  Taking how;
  size_t taken;
  GThread *thread;
} Waiter;

static gpointer wait_and_take(gpointer data) {
  Waiter *waiter = data;
  waiter->taken = take(waiter->world, 1, &waiter->how);
  return NULL;
}

/* Worker 1 sleeps when this returns. */
static void start_waiting(Waiter *waiter, World *world, int64_t linger_ms) {
  *waiter = (Waiter){.world = world, .how = usual};
  waiter->how.wait = true;
  waiter->how.linger_ms = linger_ms;
  g_atomic_int_set(&asleep, 0);
  waiter->thread = g_thread_new("waiter", wait_and_take, waiter);
  while (!g_atomic_int_get(&asleep))
    g_thread_yield();
}

static void test_an_event_wakes_the_lane_s_worker(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter;
  start_waiting(&waiter, world, 0);
  put(world, 1, 1, 0);
  g_thread_join(waiter.thread);
  check_number("woken", (int64_t)waiter.taken, 1);
  world_free(world);
}

/* The event came while another worker had the lane, which nobody tells; its release must. */
static void test_a_release_wakes_the_lane_s_worker(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter;
  put(world, 0, 1, 0);
  check_number("by another", (int64_t)take(world, 0, &usual), 1);
  start_waiting(&waiter, world, 0);
  put(world, 1, 1, 0);
  lanes_release_all_but(&world->lanes, 0, world->all[0]);
  g_thread_join(waiter.thread);
  check_number("woken", (int64_t)waiter.taken, 1);
  world_free(world);
}

static void test_a_stop_ends_the_wait(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter;
  start_waiting(&waiter, world, 0);
  lane_stop(world->all[1]);
  g_thread_join(waiter.thread);
  check_number("nothing", (int64_t)waiter.taken, 0);
  world_free(world);
}

/* Else the test would take an hour. The lane is the worker's from the take before. */
static void test_lingering_ends_when_the_batch_is_full(void **state) {
  (void)state;
  World *world = world_new();
  Waiter waiter;
  put(world, 1, 1, 0);
  check_number("before", (int64_t)take(world, 1, &usual), 1);
  put(world, 1, 1, 0);
  start_waiting(&waiter, world, 3600000);
  put(world, 1, MANY - 1, 0);
  g_thread_join(waiter.thread);
  check_number("full", (int64_t)waiter.taken, MANY);
  world_free(world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_worker_takes_the_few_events_of_all),
      cmocka_unit_test(test_many_events_are_for_their_own_worker),
      cmocka_unit_test(test_a_full_batch_takes_nothing_along),
      cmocka_unit_test(test_64_events_are_few),
      cmocka_unit_test(test_an_event_that_may_kill_comes_alone),
      cmocka_unit_test(test_alone_or_apart),
      cmocka_unit_test(test_what_a_worker_gives_up),
      cmocka_unit_test(test_the_bytes_of_all_count),
      cmocka_unit_test(test_an_event_wakes_the_lane_s_worker),
      cmocka_unit_test(test_a_release_wakes_the_lane_s_worker),
      cmocka_unit_test(test_a_stop_ends_the_wait),
      cmocka_unit_test(test_lingering_ends_when_the_batch_is_full),
  };
  return RUN_TESTS(tests);
}

/* test_lane_waits.c - what wakes a worker that waits for events of its lane. */
#include "projector/app/engine/lane.h"
#include "tests/unit/support.h"

enum { MANY = 200 };

static Lane *new_lane(void) {
  return lane_new((LaneLimits){.events = 10 * MANY, .bytes = 1 << 30, .holds = 1000}, NULL);
}

/* The events stay in hand, and in the lane's memory. */
static void put(Lane *lane, unsigned count) {
  static unsigned next;
  for (unsigned i = 0; i < count; i++, next++) {
    g_autofree char *json = g_strdup_printf(
        "{'_id': '%u', 'aggregate_type': 'account', 'aggregate_id': 'a', 'event_type': 'Opened',"
        " 'occurred_at': {'$date': {'$numberLong': '%u'}}, 'payload': {}}",
        next, next);
    assert_true(lane_offer(lane, queued_event_new(event_from(json))));
  }
}

/* Linked in place of GLib's: reports that a thread is about to sleep while it holds the lock, so
 * that whoever takes the lock next finds it asleep. */
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
  Lane *lane;
  Taking how;
  size_t taken;
  GThread *thread;
} Waiter;

static gpointer wait_and_take(gpointer data) {
  Waiter *waiter = data;
  QueuedEvent *events[MANY];
  waiter->taken = lane_take(waiter->lane, &waiter->how, events);
  return NULL;
}

/* The worker is asleep when this returns. */
static void start_waiting(Waiter *waiter, Lane *lane, int64_t linger_ms) {
  *waiter = (Waiter){
      .lane = lane,
      .how = {.max_events = MANY, .max_bytes = 1 << 30, .linger_ms = linger_ms, .wait = true}};
  g_atomic_int_set(&asleep, 0);
  waiter->thread = g_thread_new("waiter", wait_and_take, waiter);
  while (!g_atomic_int_get(&asleep))
    g_thread_yield();
}

static void test_an_event_wakes_the_lane_s_worker(void **state) {
  (void)state;
  Lane *lane = new_lane();
  Waiter waiter;
  start_waiting(&waiter, lane, 0);
  put(lane, 1);
  g_thread_join(waiter.thread);
  check_number("woken", (int64_t)waiter.taken, 1);
  lane_free(lane);
}

static void test_a_stop_ends_the_wait(void **state) {
  (void)state;
  Lane *lane = new_lane();
  Waiter waiter;
  start_waiting(&waiter, lane, 0);
  lane_stop(lane);
  g_thread_join(waiter.thread);
  check_number("nothing", (int64_t)waiter.taken, 0);
  lane_free(lane);
}

/* Otherwise the test would take an hour. */
static void test_lingering_ends_when_the_batch_is_full(void **state) {
  (void)state;
  Lane *lane = new_lane();
  Waiter waiter;
  put(lane, 1);
  start_waiting(&waiter, lane, 3600000);
  put(lane, MANY - 1);
  g_thread_join(waiter.thread);
  check_number("full", (int64_t)waiter.taken, MANY);
  lane_free(lane);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_an_event_wakes_the_lane_s_worker),
      cmocka_unit_test(test_a_stop_ends_the_wait),
      cmocka_unit_test(test_lingering_ends_when_the_batch_is_full),
  };
  return RUN_TESTS(tests);
}

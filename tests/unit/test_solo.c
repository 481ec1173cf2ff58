/* test_solo.c - what may have killed a process runs while no other worker has events in hand. */
#include "projector/app/engine/solo.h"
#include "tests/unit/support.h"

enum { WORKERS = 4, ROUNDS = 2000 };

typedef struct Room {
  Solo *solo;
  gint inside, alone, broken; /* atomic */
} Room;

static gpointer work(gpointer data) {
  Room *room = data;
  for (int i = 0; i < ROUNDS; i++) {
    bool alone = i % 7 == 0;
    solo_enter(room->solo, alone);
    gint before = g_atomic_int_add(&room->inside, 1);
    if (alone)
      g_atomic_int_inc(&room->alone);
    if (before > 0 && g_atomic_int_get(&room->alone) > 0)
      g_atomic_int_inc(&room->broken);
    if (i % 5 == 0)
      g_thread_yield();
    if (alone)
      g_atomic_int_add(&room->alone, -1);
    g_atomic_int_add(&room->inside, -1);
    solo_leave(room->solo, alone);
  }
  return NULL;
}

static void test_who_runs_alone_has_nobody_beside_it(void **state) {
  (void)state;
  Room room = {.solo = solo_new()};
  GThread *threads[WORKERS];
  for (int i = 0; i < WORKERS; i++)
    threads[i] = g_thread_new("worker", work, &room);
  for (int i = 0; i < WORKERS; i++)
    g_thread_join(threads[i]);
  solo_free(room.solo);
  assert_int_equal(room.broken, 0);
}

static gpointer enter_alone(gpointer data) {
  Room *room = data;
  g_atomic_int_set(&room->alone, 1);
  solo_enter(room->solo, true);
  gint inside = g_atomic_int_get(&room->inside);
  solo_leave(room->solo, true);
  return GINT_TO_POINTER(inside);
}

static void test_others_work_side_by_side_and_who_runs_alone_waits_for_them(void **state) {
  (void)state;
  Room room = {.solo = solo_new(), .inside = 2};
  solo_enter(room.solo, false);
  solo_enter(room.solo, false); /* would wait for ever if they excluded each other */
  GThread *alone = g_thread_new("alone", enter_alone, &room);
  while (!g_atomic_int_get(&room.alone))
    g_thread_yield();
  g_atomic_int_add(&room.inside, -1);
  solo_leave(room.solo, false);
  g_atomic_int_add(&room.inside, -1);
  solo_leave(room.solo, false);
  assert_int_equal(GPOINTER_TO_INT(g_thread_join(alone)), 0);
  solo_free(room.solo);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_who_runs_alone_has_nobody_beside_it),
      cmocka_unit_test(test_others_work_side_by_side_and_who_runs_alone_waits_for_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

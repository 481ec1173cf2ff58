/* pulse.c - a counter for each thread that works. */
#include "projector/infra/pulse.h"

static _Thread_local Pulse *current;

void pulse_begin(Pulse *pulse) {
  int moves = g_atomic_int_add(&pulse->moves, 1);
  g_assert(!current && moves % 2 == 0);
  current = pulse;
}

void pulse_end(Pulse *pulse) {
  g_assert(current == pulse);
  current = NULL;
  g_atomic_int_inc(&pulse->moves);
}

Pulse *pulse_put_down(void) {
  Pulse *pulse = current;
  if (pulse)
    pulse_end(pulse);
  return pulse;
}

void pulse_take_up(Pulse *pulse) {
  if (pulse)
    pulse_begin(pulse);
}

void pulse_move(void) {
  if (current)
    g_atomic_int_add(&current->moves, 2);
}

int pulse_moves(Pulse *pulse) {
  return g_atomic_int_get(&pulse->moves);
}

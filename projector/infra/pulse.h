/* pulse.h - how one thread sees that another still makes progress.
 *
 * Work in which the stores answer, well or badly, makes progress, however long it takes. A thread
 * that waits for work, or for room, has put its work down, and is not expected to move. */
#pragma once

#include <glib.h>

typedef struct Pulse {
  gint moves; /* atomic: odd while the thread is at work */
} Pulse;

/* This thread takes up work, whose moves count there from now on; puts it down. */
void pulse_begin(Pulse *pulse);
void pulse_end(Pulse *pulse);
/* The same around a wait for another thread, which is watched itself. Puts down what this thread
 * has taken up, if anything. */
Pulse *pulse_put_down(void);
void pulse_take_up(Pulse *pulse);
/* A move in the work of this thread, if it has any. */
void pulse_move(void);
/* Rises with each move; odd while at work. */
int pulse_moves(Pulse *pulse);

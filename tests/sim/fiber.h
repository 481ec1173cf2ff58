/* fiber.h - the threads of the simulation: coroutines on one virtual clock.
 *
 * A fiber runs until it sleeps or waits; then the one whose time comes first continues, and the
 * clock jumps there. So one seed always gives one course of events. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct Instance;
struct State;

typedef struct Fiber Fiber;

/* What the running fiber read of an entity since its transaction began; for the checker. */
typedef struct EntityRead {
  bool done;
  unsigned aggregate;
  int64_t version; /* 0: no entity */
} EntityRead;

/* What the running fiber has met since it slept until its work was due; for a check. */
typedef struct FiberTurn {
  bool into_gaps; /* it has looked for missing versions */
  bool away;      /* and then failed to connect */
} FiberTurn;

/* Starts with the clock at 0; forgets the fibers of the seed before. */
void fibers_reset(void);
void fibers_free(void);
/* Runs all fibers until the last one has ended. */
void fibers_run(void);
/* `instance` may be NULL; while it is frozen the fiber does not run. */
Fiber *fiber_start(const char *name, struct Instance *instance, void (*run)(void *), void *data);
void fiber_sleep_us(int64_t us);
/* Sleeps that long (INT64_MAX: forever) or until the condition is signalled (true). */
bool fiber_wait_on(const void *condition, int64_t us);
/* Wakes the fibers that wait on the condition, */
void fibers_signal(const void *condition);
/* and those of the instance that wait on any. */
void fibers_wake(struct Instance *instance);
/* The clock jumps; everything that was due meanwhile is due now. */
void fibers_jump(int64_t us);

int64_t fiber_now_us(void);
struct Instance *fiber_instance(void);
const char *fiber_name(void);
unsigned fiber_number(void);
EntityRead *fiber_read(void);
FiberTurn *fiber_turn(void);

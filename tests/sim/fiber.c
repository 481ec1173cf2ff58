/* fiber.c - coroutines with ucontext, scheduled by virtual time. */
#include "tests/sim/fiber.h"

#include "tests/sim/sim.h"

#include <sys/mman.h>
#include <ucontext.h>

#if defined __has_feature
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER
#endif
#elif defined __SANITIZE_ADDRESS__
#define ADDRESS_SANITIZER
#endif
#if defined __SANITIZE_ADDRESS__ && !defined ADDRESS_SANITIZER
#define ADDRESS_SANITIZER
#endif

#ifdef ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
enum { STACK = 1024 * 1024 };
#else
enum { STACK = 128 * 1024 };
#endif

enum { SWITCHES_MAX = 1000000 };

struct Fiber {
  ucontext_t context;
  char *stack;
  void *fake_stack; /* of the address sanitizer */
  const char *name;
  unsigned number;
  struct Instance *instance;
  void (*run)(void *);
  void *data;
  int64_t wake_at;
  const void *condition; /* it waits on; NULL: it does not wait, or was woken */
  bool done;
  EntityRead read;
  FiberTurn turn;
};

static struct {
  Fiber base; /* the program's own stack */
  GPtrArray *fibers, *idle_stacks;
  Fiber *current;
  int64_t now;
  unsigned started;
  uint64_t switches;
  const void *base_bottom;
  size_t base_size;
} loop;

void fibers_reset(void) {
  if (!loop.fibers) {
    loop.fibers = g_ptr_array_new();
    loop.idle_stacks = g_ptr_array_new();
  }
  loop.now = 0;
  loop.started = 0;
  loop.switches = 0;
  loop.current = &loop.base;
}

void fibers_free(void) {
  for (guint i = 0; i < loop.idle_stacks->len; i++)
    munmap(loop.idle_stacks->pdata[i], STACK);
  g_ptr_array_unref(loop.idle_stacks);
  g_ptr_array_unref(loop.fibers);
}

/* --- switching ------------------------------------------------------------------------------- */

static void arrived(Fiber *self) {
#ifdef ADDRESS_SANITIZER
  const void *bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
  if (!loop.base_bottom) {
    loop.base_bottom = bottom;
    loop.base_size = size;
  }
#else
  (void)self;
#endif
}

static void switch_to(Fiber *next) {
  Fiber *self = loop.current;
  if (next == self)
    return;
  loop.current = next;
#ifdef ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(self->done ? NULL : &self->fake_stack,
                                 next == &loop.base ? loop.base_bottom : next->stack,
                                 next == &loop.base ? loop.base_size : STACK);
#endif
  swapcontext(&self->context, &next->context);
  arrived(self);
}

static bool is_frozen(const Fiber *fiber) {
  return fiber->instance && fiber->instance->frozen && !fiber->instance->killed;
}

/* The fiber whose time comes first; ties by chance. */
static Fiber *next_fiber(void) {
  Fiber *first = NULL;
  unsigned ties = 0;
  for (guint i = 0; i < loop.fibers->len; i++) {
    Fiber *fiber = loop.fibers->pdata[i];
    if (fiber->done || is_frozen(fiber))
      continue;
    int64_t at = MAX(fiber->wake_at, loop.now),
            first_at = first ? MAX(first->wake_at, loop.now) : 0;
    if (!first || at < first_at) {
      first = fiber;
      ties = 1;
    } else if (at == first_at && sim_random(++ties) == 0) {
      first = fiber;
    }
  }
  if (first && first->wake_at == INT64_MAX)
    sim_fail("nothing can go on: every fiber waits");
  return first;
}

static void reap(void) {
  for (guint i = loop.fibers->len; i-- > 0;) {
    Fiber *fiber = loop.fibers->pdata[i];
    if (!fiber->done || fiber == loop.current)
      continue;
    g_ptr_array_add(loop.idle_stacks, fiber->stack);
    g_free(fiber);
    g_ptr_array_remove_index(loop.fibers, i);
  }
}

static void go_on(void) {
  Fiber *next = next_fiber();
  if (++loop.switches > SWITCHES_MAX)
    sim_fail("endless: something goes on and on without getting anywhere");
  if (next) {
    loop.now = MAX(loop.now, next->wake_at);
  }
  switch_to(next ? next : &loop.base);
}

static void enter(void) {
  Fiber *self = loop.current;
  arrived(self);
  self->run(self->data);
  self->done = true;
  go_on();
}

Fiber *fiber_start(const char *name, struct Instance *instance, void (*run)(void *), void *data) {
  reap();
  Fiber *fiber = g_new0(Fiber, 1);
  fiber->name = name;
  fiber->number = ++loop.started;
  fiber->instance = instance;
  fiber->run = run;
  fiber->data = data;
  fiber->wake_at = loop.now;
  fiber->stack =
      loop.idle_stacks->len
          ? g_ptr_array_steal_index(loop.idle_stacks, loop.idle_stacks->len - 1)
          : mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = STACK;
  makecontext(&fiber->context, enter, 0);
  g_ptr_array_add(loop.fibers, fiber);
  return fiber;
}

void fibers_run(void) {
  go_on();
  reap();
}

/* --- time ------------------------------------------------------------------------------------ */

void fiber_sleep_us(int64_t us) {
  loop.current->wake_at = loop.now + us;
  go_on();
}

bool fiber_wait_on(const void *condition, int64_t us) {
  Fiber *self = loop.current;
  self->condition = condition;
  self->wake_at = us == INT64_MAX ? us : loop.now + us;
  go_on();
  bool woken = !self->condition;
  self->condition = NULL;
  return woken;
}

static void wake(Fiber *fiber) {
  fiber->condition = NULL;
  fiber->wake_at = MIN(fiber->wake_at, loop.now);
}

void fibers_signal(const void *condition) {
  for (guint i = 0; i < loop.fibers->len; i++) {
    Fiber *fiber = loop.fibers->pdata[i];
    if (fiber->condition == condition)
      wake(fiber);
  }
}

void fibers_wake(struct Instance *instance) {
  for (guint i = 0; i < loop.fibers->len; i++) {
    Fiber *fiber = loop.fibers->pdata[i];
    if (fiber->condition && fiber->instance == instance)
      wake(fiber);
  }
}

void fibers_jump(int64_t us) {
  loop.now += us;
}

int64_t fiber_now_us(void) {
  return loop.now;
}

struct Instance *fiber_instance(void) {
  return loop.current->instance;
}

const char *fiber_name(void) {
  return loop.current->name ? loop.current->name : "";
}

unsigned fiber_number(void) {
  return loop.current->number;
}

FiberTurn *fiber_turn(void) {
  return &loop.current->turn;
}

EntityRead *fiber_read(void) {
  return &loop.current->read;
}

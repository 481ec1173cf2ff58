/* instance.c - one projector process: what app/run.c, ownership.c and reader.c do, as fibers. */
#include "tests/sim/sim.h"

#include "projector/infra/log.h"
#include "projector/infra/mysql/fence.h"

#include <stdio.h>

enum { IDLE_US = 400000, NUDGE_MS = 200, KEEPER_MS = 50 /* no alarm wakes it here */ };

/* --- the reader: scan, then stream --------------------------------------------------------------
 */

static bool offer(Instance *instance, const bson_t *document) {
  Event *event = event_decode(document);
  Shard *shard = shard_of(&instance->shards, event->aggregate_hash);
  if (!shard_wait_room(shard)) {
    event_free(event);
    return false;
  }
  shard_offer(shard, event);
  return true;
}

static bool scan(Instance *instance, Outbox *outbox, uint32_t *ret_position) {
  uint32_t increment;
  Failure failure = {0};
  g_autoptr(EventCursor) cursor = outbox_scan(outbox, ret_position, &increment, &failure);
  const bson_t *document;
  while (cursor && (document = event_cursor_next(cursor, &failure)))
    if (!offer(instance, document))
      return false;
  return failure.class == FAILURE_NONE;
}

/* Gives each insert once or twice, soon or late, until the stream is lost. */
static void follow(Instance *instance, uint32_t position) {
  unsigned twice = sim_random(3);
  position -= MIN(position, twice);
  while (!stop_requested(instance->stop)) {
    Failure failure;
    if (position == sim.inserts->len) {
      if (sim.quiet)
        fiber_wait_us(1000000);
      else
        fiber_sleep_us(IDLE_US);
      if (position == sim.inserts->len)
        continue;
    }
    if (!call_begin(MONGO, "stream", &failure) || (!sim.quiet && sim_chance(10)))
      return;
    for (unsigned i = 1 + sim_random(10); i > 0 && position < sim.inserts->len; i--) {
      SimEvent as_inserted = sim.events[g_array_index(sim.inserts, unsigned, position++)];
      as_inserted.status = STATUS_PENDING;
      as_inserted.attempts = 0;
      bson_t *document = mongo_document(&as_inserted);
      bool going_on = offer(instance, document);
      bson_destroy(document);
      if (!going_on)
        return;
    }
  }
}

static void run_reader(void *data) {
  Instance *instance = data;
  Outbox *outbox = outbox_new(sim.store, "");
  uint32_t position;
  while (!stop_requested(instance->stop)) {
    g_atomic_int_set(&instance->shards.scanning, 1);
    bool scanned = scan(instance, outbox, &position);
    g_atomic_int_set(&instance->shards.scanning, 0);
    if (scanned)
      follow(instance, position);
    counts.rescans++;
    stop_wait(instance->stop, 100 + sim_random(400));
  }
  outbox_free(outbox);
  instance->parts--;
}

/* --- the other parts ----------------------------------------------------------------------------
 */

typedef struct WorkerPart {
  Instance *instance;
  Worker *worker;
} WorkerPart;

static void run_worker(void *data) {
  WorkerPart *part = data;
  while (!stop_requested(part->instance->stop)) {
    worker_step(part->worker, true);
    check_instances();
  }
  part->instance->parts--;
  g_free(part);
}

static void run_keeper(void *data) {
  Instance *instance = data;
  while (!stop_requested(instance->stop)) {
    int64_t wait_ms = keeper_step(instance->keeper);
    stop_wait(instance->stop, MIN(wait_ms, KEEPER_MS));
  }
  instance->parts--;
}

static void run_acker(void *data) {
  Instance *instance = data;
  for (;;) {
    if (acker_step(instance->acker, false))
      continue;
    if (instance->finishing)
      break;
    fiber_wait_us(INT64_MAX);
  }
  instance->parts--;
}

/* --- a tenure, as in run.c
 * ------------------------------------------------------------------------ */

static void part_start(Instance *instance, const char *name, void (*run)(void *), void *data) {
  instance->parts++;
  fiber_start(name, instance, run, data);
}

static bool take_over(Instance *instance) {
  while (!stop_requested(instance->stop)) {
    Failure failure = {0};
    g_autoptr(Session) session = session_open(&sim.config.mysql, &failure);
    if (session &&
        fence_take(session, sim.config.name, instance->owner, &instance->ledger.epoch, &failure))
      return true;
    stop_wait(instance->stop, 250);
  }
  return false;
}

static bool begin(Instance *instance, Failure *ret_failure) {
  const Settings *settings = &sim.config.settings;
  instance->shards.count = (unsigned)settings->workers;
  instance->shards.shards = g_new0(Shard *, instance->shards.count);
  for (unsigned i = 0; i < instance->shards.count; i++)
    instance->shards.shards[i] = shard_new((ShardLimits){.events = (size_t)settings->batch * 4,
                                                         .bytes = 1 << 20,
                                                         .holds = AGGREGATES + 1},
                                           NULL);
  instance->keeper = keeper_new(&sim.config, &instance->ledger, sim.store, instance->owner,
                                &instance->shards, instance->stop, ret_failure);
  if (!instance->keeper)
    return false;
  instance->acker = acker_new(sim.store, instance->owner, &instance->shards, instance->stop);
  instance->workers = g_new0(Worker *, instance->shards.count);
  instance->working = true;
  for (unsigned i = 0; i < instance->shards.count; i++) {
    instance->workers[i] = worker_new(&sim.config, &instance->ledger, sim.store, instance->owner,
                                      &instance->shards, i, instance->acker, instance->stop);
    WorkerPart *part = g_new(WorkerPart, 1);
    *part = (WorkerPart){instance, instance->workers[i]};
    part_start(instance, "worker", run_worker, part);
  }
  part_start(instance, "acker", run_acker, instance);
  part_start(instance, "keeper", run_keeper, instance);
  part_start(instance, "reader", run_reader, instance);
  return true;
}

static void watch(Instance *instance) {
  while (!stop_wait(instance->stop, NUDGE_MS)) {
    if (instance->nudged) {
      instance->nudged = false;
      for (unsigned i = 0; i < instance->shards.count; i++) {
        ShardFigures figures = shard_figures(instance->shards.shards[i]);
        sim_trace("nudged: %zu queued, %zu in hand, %zu holds, %zu dead, %zu gaps", figures.queued,
                  figures.in_hand, figures.holds, figures.dead, figures.gaps);
      }
      keeper_review(instance->keeper);
    }
    if (fiber_now_us() >= instance->stop_at) {
      Failure failure;
      failure_set(&failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0, "the lease is another's");
      stop_request(instance->stop, &failure);
    }
  }
}

static void wait_for_parts(Instance *instance, unsigned left) {
  while (instance->parts > left)
    fiber_sleep_us(1000);
}

static void finish(Instance *instance) {
  for (unsigned i = 0; i < instance->shards.count; i++)
    shard_stop(instance->shards.shards[i]);
  if (instance->working) {
    wait_for_parts(instance, 1);
    instance->finishing = true;
    fibers_wake(instance);
    wait_for_parts(instance, 0);
  }
  instance->working = false;
  keeper_free(instance->keeper);
  acker_free(instance->acker);
  for (unsigned i = 0; i < instance->shards.count; i++) {
    if (instance->workers)
      worker_free(instance->workers[i]);
    shard_free(instance->shards.shards[i]);
  }
  g_free(instance->workers);
  g_free(instance->shards.shards);
}

static void serve(void *data) {
  Instance *instance = data;
  Failure failure = {0};
  instance->stop = stop_new();
  if (sim.over)
    stop_request(instance->stop, NULL);
  if (take_over(instance)) {
    sim_trace("owner %s, epoch %lld", instance->owner, (long long)instance->ledger.epoch);
    if (begin(instance, &failure))
      watch(instance);
    stop_request(instance->stop, NULL);
    finish(instance);
  }
  sim_trace("ended");
  instance->ended = true;
}

Instance *instance_start(void) {
  Instance *instance = g_new0(Instance, 1);
  instance->number = sim.instances->len + 1;
  instance->ledger.projector = sim.config.name;
  instance->stop_at = INT64_MAX;
  snprintf(instance->owner, sizeof instance->owner, "sim:1#%u", instance->number);
  g_ptr_array_add(sim.instances, instance);
  sim.current = instance;
  fiber_start("main", instance, serve, instance);
  return instance;
}

void instance_kill(Instance *instance) {
  instance->killed = true;
  fibers_wake(instance);
}

void instances_free(void) {
  for (guint i = 0; i < sim.instances->len; i++) {
    Instance *instance = sim.instances->pdata[i];
    stop_free(instance->stop);
    g_free(instance);
  }
}

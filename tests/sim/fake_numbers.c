/* fake_numbers.c - the counter and the numbers of the archive, behind
 * infra/mongo/numbering_private.h: transactions that conflict over the counter. */
#include "projector/infra/mongo/numbering_private.h"
#include "tests/sim/fake_mongo.h"

struct NumberTransaction {
  unsigned number;
  int64_t epoch, after;
  bool wanted[EVENTS_MAX];
  int64_t seq[EVENTS_MAX];
};

EventCursor *numbers_find_missing(Outbox *archive) {
  return cursor_new(archive, UNNUMBERED);
}

NumberTransaction *numbers_begin(MongoStore *store, Failure *ret_failure) {
  (void)store, (void)ret_failure;
  NumberTransaction *transaction = g_new0(NumberTransaction, 1);
  transaction->number = ++sim.numberings;
  return transaction;
}

static bool is_held_by_another(const NumberTransaction *transaction) {
  return sim.numbering && sim.numbering != transaction->number &&
         fiber_now_us() < sim.numbering_until;
}

bool numbering_epoch(MongoStore *store, int64_t *ret_epoch, Failure *ret_failure) {
  (void)store;
  *ret_epoch = sim.numbers_epoch;
  return call_begin(MONGO, "read the numbers' epoch", ret_failure) &&
         call_end(MONGO, "read the numbers' epoch", ret_failure);
}

bool numbers_find_highest(Outbox *archive, int64_t *ret_highest, Failure *ret_failure) {
  (void)archive, (void)ret_failure;
  *ret_highest = sim.last_number;
  return true;
}

bool numbers_take(NumberTransaction *transaction, const NumberClaim *claim, int64_t *ret_before,
                  Failure *ret_failure) {
  if (!call_begin(MONGO, "take numbers", ret_failure))
    return false;
  if (is_held_by_another(transaction)) {
    counts.number_conflicts++;
    return failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MONGODB, 112, "write conflict");
  }
  if (claim->epoch < sim.numbers_epoch)
    return failure_set(ret_failure, FAILURE_FENCED, SOURCE_MONGODB, 0, "a later owner numbers");
  transaction->epoch = claim->epoch;
  transaction->after = sim.last_number + claim->count;
  sim.numbering = transaction->number;
  sim.numbering_until = INT64_MAX;
  int64_t before = sim.last_number;
  if (!call_end(MONGO, "take numbers", ret_failure))
    return false;
  *ret_before = before;
  return true;
}

bool numbers_write(NumberTransaction *transaction, const bson_t *ids, int64_t before,
                   int64_t *ret_written, Failure *ret_failure) {
  if (!call_begin(MONGO, "write numbers", ret_failure))
    return false;
  bson_iter_t iter;
  Id id;
  int64_t written = 0, number = before;
  bson_iter_init(&iter, ids);
  while (bson_iter_next(&iter) && id_from_iter(&iter, &id)) {
    const SimEvent *event = event_of_id(&id);
    number++;
    if (!event->archived || event->seq)
      continue;
    transaction->seq[event->index] = number;
    written++;
  }
  if (!call_end(MONGO, "write numbers", ret_failure))
    return false;
  *ret_written = written;
  return true;
}

bool numbers_commit(NumberTransaction *transaction, Failure *ret_failure) {
  if (!call_begin(MONGO, "commit numbers", ret_failure))
    return false;
  if (is_held_by_another(transaction) || sim.numbering != transaction->number)
    return failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MONGODB, 251, "no such transaction");
  for (unsigned i = 0; i < sim.event_count; i++)
    if (transaction->seq[i]) {
      sim.events[i].seq = transaction->seq[i];
      counts.numbered++;
      sim_trace("  %s has number %lld", sim.events[i].id, (long long)sim.events[i].seq);
    }
  for (unsigned i = 0; i < sim.event_count; i++)
    if (transaction->seq[i])
      check_number(&sim.events[i]);
  sim.last_number = transaction->after;
  sim.numbers_epoch = transaction->epoch;
  sim.numbering = 0;
  return call_end(MONGO, "commit numbers", ret_failure);
}

/* The server keeps what a client that is gone has begun, for a while. */
void numbers_end(NumberTransaction *transaction) {
  if (sim.numbering == transaction->number)
    sim.numbering_until = fiber_now_us() + (sim_chance(800) ? 0 : sim_between(0, 4000000));
  g_free(transaction);
}

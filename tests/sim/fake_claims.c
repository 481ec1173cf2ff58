/* fake_claims.c - the collection projector_claims in memory, behind infra/mongo/claims.h. */
#include "tests/sim/fake_mongo.h"

#include "projector/infra/mongo/claims.h"

#include <string.h>

/* A claim is written with w: 1, so a failover may undo it. */
typedef struct Row {
  char owner[OWNER_MAX];
  unsigned worker;
  int64_t epoch;
  bool present, listed[EVENTS_MAX];
  bool left; /* the worker tried to write an empty claim, or a failover undid it */
  LastCommit committed;
  uint64_t written; /* rises with each write; stands for claimed_at */
  bool agreed_present, agreed[EVENTS_MAX];
  int64_t agreed_at;
} Row;

static GPtrArray *rows;

void claims_reset(void) {
  g_clear_pointer(&rows, g_ptr_array_unref);
  rows = g_ptr_array_new_with_free_func(g_free);
}

static Row *find_row(const char *owner, unsigned worker) {
  for (guint i = 0; i < rows->len; i++) {
    Row *row = rows->pdata[i];
    if (row->worker == worker && !strcmp(row->owner, owner))
      return row;
  }
  return NULL;
}

static void write_row_quickly(Row *row) {
  if (fiber_now_us() >= row->agreed_at) {
    row->agreed_present = row->present;
    memcpy(row->agreed, row->listed, sizeof row->agreed);
  }
  row->agreed_at = fiber_now_us() + sim_between(0, sim_chance(100) ? 3000000 : 30000);
  row->written++;
}

void claims_roll_back(void) {
  for (guint i = 0; i < rows->len; i++) {
    Row *row = rows->pdata[i];
    if (fiber_now_us() >= row->agreed_at)
      continue;
    row->present = row->agreed_present;
    memcpy(row->listed, row->agreed, sizeof row->listed);
    row->agreed_at = 0;
    row->left = true;
    row->written++;
  }
}

bool claims_name(const char *owner, const SimEvent *event) {
  for (guint i = 0; i < rows->len; i++) {
    const Row *row = rows->pdata[i];
    if (row->present && !row->left && row->listed[event->index] && !strcmp(row->owner, owner))
      return true;
  }
  return false;
}

bool is_untouched(const SimEvent *event) {
  return event->present && event->status == STATUS_PENDING && event->attempts == 0;
}

/* --- of an owner ------------------------------------------------------------------------------ */

static void list_events(Row *row, Event *const *events, size_t count) {
  memset(row->listed, 0, sizeof row->listed);
  for (size_t i = 0; i < count; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    row->listed[event->index] = true;
    event->shared |= event->last_owner[0] && strcmp(event->last_owner, row->owner);
    g_strlcpy(event->last_owner, row->owner, sizeof event->last_owner);
    /* Otherwise by another, and listed by one that slept. */
    if (event->status != STATUS_IN_PROGRESS)
      event->claimed_us = fiber_now_us();
    counts.batch_claims++;
    sim_trace("  %s is claimed by the batch", event->id);
  }
}

bool claims_write(Outbox *outbox, const ClaimKey *key, Event *const *events, size_t count,
                  const LastCommit *committed, Failure *ret_failure) {
  Row *row = find_row(outbox->owner, key->worker);
  if (row)
    row->left |= count == 0;
  if (!call_begin(MONGO, "write claims", ret_failure))
    return false;
  row = find_row(outbox->owner, key->worker);
  if (!row) {
    row = g_new0(Row, 1);
    g_strlcpy(row->owner, outbox->owner, sizeof row->owner);
    row->worker = key->worker;
    row->epoch = key->epoch;
    g_ptr_array_add(rows, row);
  }
  write_row_quickly(row);
  row->present = true;
  row->committed = *committed;
  list_events(row, events, count);
  spring_trap();
  row->left = true; /* as far as the worker knows until it has the answer */
  bool good = call_end(MONGO, "write claims", ret_failure);
  row->left = !good || count == 0;
  return good;
}

bool claims_remove(Outbox *outbox, const ClaimKey *key, Failure *ret_failure) {
  if (!call_begin(MONGO, "remove claims", ret_failure))
    return false;
  Row *row = find_row(outbox->owner, key->worker);
  if (row) {
    write_row_quickly(row);
    row->present = false;
  }
  return call_end(MONGO, "remove claims", ret_failure);
}

bool claims_mark(Outbox *outbox, const bson_t *ids, Failure *ret_failure) {
  if (!call_begin(MONGO, "mark claimed", ret_failure))
    return false;
  bool whole;
  size_t left = reach(bson_count_keys(ids), &whole);
  bson_iter_t iter;
  Id id;
  bson_iter_init(&iter, ids);
  for (; left > 0 && bson_iter_next(&iter) && id_from_iter(&iter, &id); left--) {
    SimEvent *event = event_of_id(&id);
    if (!is_untouched(event))
      continue;
    counts.batch_marks++;
    int64_t claimed_us = event->claimed_us; /* of the batch, which may already have failed at it */
    mark_in_progress(event, outbox->owner);
    event->claimed_us = claimed_us;
  }
  return whole ? call_end(MONGO, "mark claimed", ret_failure)
               : broken_off("mark claimed", ret_failure);
}

/* --- of former owners ------------------------------------------------------------------------ */

static AbandonedClaim *show(const Row *row) {
  AbandonedClaim *claim = abandoned_claim_new(BCON_NEW("owner", BCON_UTF8(row->owner), "worker",
                                                       BCON_INT32((int)row->worker), "written",
                                                       BCON_INT64((int64_t)row->written)));
  claim->committed = row->committed;
  for (unsigned i = 0; i < EVENTS_MAX; i++)
    if (row->listed[i]) {
      bson_t *document = BCON_NEW("_id", BCON_UTF8(sim.events[i].id));
      g_ptr_array_add(claim->events, event_decode(document));
      bson_destroy(document);
    }
  return claim;
}

bool claims_find_abandoned(Outbox *outbox, const char *name, int64_t epoch, GPtrArray *ret_claims,
                           Failure *ret_failure) {
  (void)outbox, (void)name;
  abandoned_claims_own(ret_claims);
  if (!call_begin(MONGO, "find claims", ret_failure))
    return false;
  for (guint i = 0; i < rows->len; i++) {
    const Row *row = rows->pdata[i];
    if (row->present && row->epoch < epoch)
      g_ptr_array_add(ret_claims, show(row));
  }
  return call_end(MONGO, "find claims", ret_failure);
}

/* Nobody is left who could still commit the events that the claim names. */
static void check_counted(const SimEvent *event) {
  const Instance *instance = fiber_instance();
  bool owner = instance_is_owner(instance);
  if (owner && event->ledgered && strcmp(event->outcome, "skipped") != 0)
    sim_fail("%s was applied, and an attempt is counted", event->id);
}

bool claims_count_attempt(Outbox *outbox, Event *const *events, size_t count,
                          Failure *ret_failure) {
  (void)outbox;
  if (count == 0)
    return true;
  if (!call_begin(MONGO, "count attempts", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_untouched(event))
      continue;
    check_counted(event);
    counts.batch_swept++;
    event->shared = true;
    event->excused++; /* its owner died with it */
    event->uncounted++;
    write_by_majority(event);
    event->attempts = 1;
    sim_trace("  %s: an attempt is counted", event->id);
    check_attempts(event);
  }
  return whole ? call_end(MONGO, "count attempts", ret_failure)
               : broken_off("count attempts", ret_failure);
}

bool claims_forget(Outbox *outbox, const AbandonedClaim *claim, Failure *ret_failure) {
  (void)outbox;
  bson_iter_t owner, worker, written;
  bson_iter_init_find(&owner, claim->document, "owner");
  bson_iter_init_find(&worker, claim->document, "worker");
  bson_iter_init_find(&written, claim->document, "written");
  if (!call_begin(MONGO, "forget claims", ret_failure))
    return false;
  Row *row = find_row(bson_iter_utf8(&owner, NULL), (unsigned)bson_iter_int32(&worker));
  if (row && row->present && row->written == (uint64_t)bson_iter_int64(&written)) {
    if (row->epoch >= sim.epoch)
      sim_fail("the claims of the owner are swept");
    write_row_quickly(row);
    row->present = false;
  }
  return call_end(MONGO, "forget claims", ret_failure);
}

GHashTable *claims_in_hand(Outbox *outbox, Failure *ret_failure) {
  (void)outbox, (void)ret_failure;
  return g_hash_table_new(id_hash_key, id_equal_key); /* nobody looks at it */
}

bool claims_are_forbidden(const Failure *failure) {
  (void)failure;
  return false;
}

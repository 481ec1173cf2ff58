/* fake_mongo.c - the outbox collection in memory, behind infra/mongo/outbox.h. */
#include "tests/sim/fake_mongo.h"

#include "projector/infra/mongo/archive.h"
#include "projector/infra/mongo/outcomes.h"

#include <stdlib.h>
#include <string.h>

Outbox *outbox_new(MongoStore *store, const char *owner) {
  (void)store;
  Outbox *outbox = g_new0(Outbox, 1);
  outbox->owner = g_strdup(owner);
  return outbox;
}

Outbox *outbox_new_for_command(MongoStore *store, const char *command) {
  g_autofree char *owner = g_strdup_printf("command:%s:%08x", command, g_random_int());
  return outbox_new(store, owner);
}

void outbox_free(Outbox *outbox) {
  if (!outbox)
    return;
  g_free(outbox->owner);
  g_free(outbox);
}

/* --- documents ------------------------------------------------------------------------------- */

const char *const status_names[] = {"pending", "in_progress", "failed", "dead"};

static void append_payload(bson_t *document, const SimEvent *event) {
  bson_t payload;
  BSON_APPEND_DOCUMENT_BEGIN(document, "payload", &payload);
  if (!event->unmappable) {
    BSON_APPEND_UTF8(&payload, "name", event->name);
    BSON_APPEND_INT64(&payload, "amount", event->amount);
    BSON_APPEND_INT64(&payload, "balance", event->amount);
    if (event->kind == NOTED)
      BSON_APPEND_UTF8(&payload, "note", event->name);
    BSON_APPEND_INT64(&payload, "total", 0);
  } else {
    BSON_APPEND_BOOL(&payload, "name", true);
    BSON_APPEND_BOOL(&payload, "note", true);
    BSON_APPEND_BOOL(&payload, "amount", true);
  }
  bson_append_document_end(document, &payload);
}

bson_t *mongo_document(const SimEvent *event) {
  char aggregate[] = {'a', (char)('0' + event->aggregate), '\0'};
  bson_t *document = bson_new();
  BSON_APPEND_UTF8(document, "_id", event->id);
  BSON_APPEND_UTF8(document, "aggregate_type", is_account(event->aggregate) ? "account" : "meter");
  BSON_APPEND_UTF8(document, "aggregate_id", aggregate);
  if (event->version)
    BSON_APPEND_INT64(document, "version", event->version);
  BSON_APPEND_UTF8(document, "event_type", kind_name(event->kind));
  BSON_APPEND_DATE_TIME(document, "occurred_at", event->occurred_at);
  append_payload(document, event);
  BSON_APPEND_UTF8(document, "status", status_names[event->status]);
  BSON_APPEND_INT32(document, "attempts", event->attempts);
  int64_t due_in_ms = event->next_attempt_at ? event->next_attempt_at - sim_server_ms(MONGO) : 0;
  BSON_APPEND_INT64(document, "due_in_ms", due_in_ms);
  if (event->fed)
    BCON_APPEND(document, "fed_at", BCON_DATE_TIME(1), "fed_to", "[", feed_names[0], feed_names[1],
                "]");
  return document;
}

/* --- what a majority knows -------------------------------------------------------------------- */

static Marks marks_of(const SimEvent *event) {
  Marks marks = {event->present,    event->status,         event->attempts, "",
                 event->claimed_at, event->next_attempt_at};
  g_strlcpy(marks.claimed_by, event->claimed_by, sizeof marks.claimed_by);
  return marks;
}

static void set_marks(SimEvent *event, const Marks *marks) {
  event->present = marks->present;
  event->status = marks->status;
  event->attempts = marks->attempts;
  g_strlcpy(event->claimed_by, marks->claimed_by, sizeof event->claimed_by);
  event->claimed_at = marks->claimed_at;
  event->next_attempt_at = marks->next_attempt_at;
}

static bool is_agreed(const SimEvent *event) {
  return fiber_now_us() >= event->agreed_at;
}

void write_quickly(SimEvent *event) {
  if (is_agreed(event))
    event->agreed = marks_of(event);
  event->agreed_at = fiber_now_us() + sim_between(0, sim_chance(100) ? 3000000 : 30000);
}

/* Before a write that does; a majority then also knows what was written to the document before. */
void write_by_majority(SimEvent *event) {
  event->agreed_at = 0;
}

SimEvent as_known_to_majority(const SimEvent *event) {
  SimEvent shown = *event;
  if (!is_agreed(event))
    set_marks(&shown, &event->agreed);
  return shown;
}

void mongo_roll_back(void) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    SimEvent *event = &sim.events[i];
    if (is_agreed(event))
      continue;
    counts.rollbacks++;
    sim_trace("  %s is rolled back to %s", event->id,
              event->agreed.present ? status_names[event->agreed.status] : "nothing");
    event->shared = true;
    set_marks(event, &event->agreed);
    event->agreed_at = 0;
  }
  claims_roll_back();
}

void set_status(SimEvent *event, EventStatus status) {
  sim_trace("  %s %s → %s, attempts %d", event->id, status_names[event->status],
            status_names[status], event->attempts);
  event->status = status;
  if (status != STATUS_IN_PROGRESS)
    event->claimed_by[0] = '\0';
  check_attempts(event);
}

void mongo_insert(SimEvent *event) {
  sim_trace("insert %s %s v%lld of a%u", event->id, kind_name(event->kind),
            (long long)event->version, event->aggregate);
  event->inserted_at = fiber_now_us();
  write_by_majority(event);
  event->present = true;
  event->fed = false;
  event->status = STATUS_PENDING;
  event->attempts = event->excused = 0;
  event->blocked_us = 0;
  event->claimed_by[0] = '\0';
  event->next_attempt_at = 0;
  g_array_append_val(sim.inserts, event->index);
  fibers_signal(sim.inserts);
}

void take_out(SimEvent *event, const char *how) {
  sim_trace("  %s %s: out", event->id, how);
  check_removed(event, how);
  check_copied(event, how);
  check_archived(event, how);
  event->removed_at = fiber_now_us();
  event->present = false;
}

/* --- writes ---------------------------------------------------------------------------------- */

/* How many of the documents the write reaches before it fails. */
size_t reach(size_t count, bool *ret_whole) {
  *ret_whole = count < 2 || !sim_chance(sim.faults.partial);
  if (*ret_whole)
    return count;
  counts.partial++;
  return sim_random((unsigned)count);
}

bool is_ours(const Outbox *outbox, const SimEvent *event) {
  return event->present && !strcmp(event->claimed_by, outbox->owner);
}

bool broken_off(const char *what, Failure *ret_failure) {
  sim_trace("%s: broken off half way", what);
  return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 0, "broken off half way");
}

/* Not all could be claimed, or an earlier claim took effect although its answer was a failure. */
static bool look_at_claims(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                           Failure *ret_failure) {
  if (!call_begin(MONGO, "look at claims", ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    const SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (event->present)
      ret_claims[i] = is_ours(outbox, event) ? CLAIM_OURS : CLAIM_TAKEN;
    sim_trace("  %s is %s", event->id, event->present ? status_names[event->status] : "gone");
  }
  if (!call_end(MONGO, "look at claims", ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (ret_claims[i] == CLAIM_OURS)
      event_of_id(&events[i]->key.event_id)->unanswered = false;
  return true;
}

void spring_trap(void) {
  Instance *instance = fiber_instance();
  if (!instance || !instance->trapped)
    return;
  instance->trapped = false;
  instance->frozen = true;
}

void mark_in_progress(SimEvent *event, const char *owner) {
  write_quickly(event);
  event->attempts++;
  event->shared |= event->last_owner[0] && strcmp(event->last_owner, owner);
  g_strlcpy(event->last_owner, owner, sizeof event->last_owner);
  g_strlcpy(event->claimed_by, owner, sizeof event->claimed_by);
  event->claimed_at = sim_server_ms(MONGO);
  event->claimed_us = fiber_now_us();
  event->unanswered = false;
  set_status(event, STATUS_IN_PROGRESS);
}

static bool unanswered(const Outbox *outbox, Event *const *events, size_t count) {
  for (size_t i = 0; i < count; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    event->unanswered |= is_ours(outbox, event);
  }
  return false;
}

bool outbox_is_ours(const Outbox *outbox, const bson_t *document) {
  bson_iter_t iter;
  Id id;
  return bson_iter_init_find(&iter, document, "_id") && id_from_iter(&iter, &id) &&
         is_ours(outbox, event_of_id(&id));
}

bool outbox_claim(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                  Failure *ret_failure) {
  if (!call_begin(MONGO, "claim", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole), matched = 0;
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!event->present || event->status == STATUS_IN_PROGRESS || event->status == STATUS_DEAD ||
        event->attempts != events[i]->attempts ||
        (event->status == STATUS_FAILED) != (events[i]->status == STATUS_FAILED))
      continue;
    matched++;
    mark_in_progress(event, outbox->owner);
  }
  spring_trap();
  if (!whole)
    return broken_off("claim", ret_failure) || unanswered(outbox, events, reached);
  if (!call_end(MONGO, "claim", ret_failure))
    return unanswered(outbox, events, count);
  bool all = matched == count;
  for (size_t i = 0; i < count; i++)
    ret_claims[i] = all ? CLAIM_OURS : CLAIM_GONE;
  return all || look_at_claims(outbox, events, count, ret_claims, ret_failure) ||
         unanswered(outbox, events, count);
}

/* A marked or released event has left its batch's claim, so no attempt is counted for it if the
 * projector is killed. */
static void check_left(const SimEvent *event, const char *owner) {
  if (!event->ledgered && claims_name(owner, event))
    sim_fail("%s is still in its batch's claim", event->id);
}

bool outbox_release(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  if (!call_begin(MONGO, "release", ret_failure))
    return unanswered(outbox, events, count);
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_ours(outbox, event) || event->status != STATUS_IN_PROGRESS)
      continue;
    check_left(event, outbox->owner);
    write_by_majority(event);
    event->attempts--;
    bool failed = events[i]->status == STATUS_FAILED && event->next_attempt_at != 0;
    set_status(event, failed ? STATUS_FAILED : STATUS_PENDING);
  }
  return (whole ? call_end(MONGO, "release", ret_failure) : broken_off("release", ret_failure)) ||
         unanswered(outbox, events, count);
}

bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const FailedMark *mark,
                        Failure *ret_failure) {
  if (!call_begin(MONGO, mark->dead ? "mark dead" : "mark failed", ret_failure))
    return unanswered(outbox, events, count);
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    bool counted = is_ours(outbox, event) && event->status == STATUS_IN_PROGRESS;
    if (!counted && !is_untouched(event))
      continue;
    check_left(event, outbox->owner);
    event->attempts += !counted; /* by its batch's claim */
    sim_trace("  %s: %s: %s", event->id, failure_class_name(mark->failure->class),
              mark->failure->message);
    write_by_majority(event);
    check_marked(event, mark->failure, mark->dead, mark->counts);
    counts.failed += !mark->dead;
    counts.dead += mark->dead;
    event->error = mark->failure->class;
    if (mark->counts)
      event->excused++;
    else
      event->attempts--;
    event->uncounted += !mark->counts;
    event->blocked_us = mark->counts && instance_is_owner(fiber_instance()) ? fiber_now_us() : 0;
    event->next_attempt_at = mark->dead ? 0 : sim_server_ms(MONGO) + mark->delay_ms;
    set_status(event, mark->dead ? STATUS_DEAD : STATUS_FAILED);
  }
  return (whole ? call_end(MONGO, "mark failed", ret_failure)
                : broken_off("mark failed", ret_failure)) ||
         unanswered(outbox, events, count);
}

bool is_abandoned(const Outbox *outbox, const SimEvent *event, int64_t older_than_ms) {
  if (!event->present || event->status != STATUS_IN_PROGRESS)
    return false;
  int64_t old_ms = sim_server_ms(MONGO) - event->claimed_at;
  return older_than_ms > 0 ? ABS(old_ms) > older_than_ms : !is_ours(outbox, event);
}

static void note_swept(SimEvent *event, const char *owner, bool applied, int64_t older_than_ms) {
  counts.swept++;
  check_abandoned(event, owner, applied, older_than_ms);
  event->shared = true;
  event->excused++;   /* its owner died with it, */
  event->uncounted++; /* or could not mark it */
}

static bool sweep_out(Outbox *outbox, Event *const *events, size_t count, int64_t older_than_ms,
                      Failure *ret_failure) {
  bson_t filter = BSON_INITIALIZER;
  outbox_append_event_ids(&filter, events, count);
  outbox_append_abandoned(&filter, outbox, older_than_ms);
  bool good = outbox_take_out(outbox, &filter, events, count, false, ret_failure);
  for (size_t i = 0; i < count && !good; i++)
    event_of_id(&events[i]->key.event_id)->refused = failure_is_refusal(ret_failure);
  bson_destroy(&filter);
  return good;
}

bool outbox_delete(Outbox *outbox, const bson_t *filter, Failure *ret_failure) {
  if (!call_begin(MONGO, "delete", ret_failure))
    return false;
  SimEvent *found[EVENTS_MAX];
  size_t count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].present && filter_selects(outbox->owner, filter, &sim.events[i]))
      found[count++] = &sim.events[i];
  bool whole, swept = bson_has_field(filter, "abandoned");
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    if (swept)
      note_swept(found[i], outbox->owner, true, abandoned_ms(filter));
    write_quickly(found[i]);
    take_out(found[i], swept ? "swept" : "acknowledged");
  }
  return whole ? call_end(MONGO, "delete", ret_failure) : broken_off("delete", ret_failure);
}

bool outbox_sweep(Outbox *outbox, Event *const *events, size_t count, SweepAction action,
                  int64_t older_than_ms, Failure *ret_failure) {
  if (count == 0)
    return true;
  if (action == SWEEP_ACKNOWLEDGE)
    return sweep_out(outbox, events, count, older_than_ms, ret_failure);
  if (!call_begin(MONGO, "sweep", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    bool seized = g_str_has_prefix(event->claimed_by, "command:");
    if (!is_abandoned(outbox, event, older_than_ms) || (action == SWEEP_UNSEIZE && !seized))
      continue;
    note_swept(event, outbox->owner, false, older_than_ms);
    check_swept(event);
    write_by_majority(event);
    set_status(event, action == SWEEP_PENDING  ? STATUS_PENDING
                      : action == SWEEP_DEAD   ? STATUS_DEAD
                      : event->next_attempt_at ? STATUS_FAILED
                                               : STATUS_DEAD);
  }
  return whole ? call_end(MONGO, "sweep", ret_failure) : broken_off("sweep", ret_failure);
}

bool archive_put_back(Outbox *outbox, const Aggregate *aggregate, int64_t first, int64_t last,
                      int64_t *ret_found, Failure *ret_failure) {
  (void)outbox, (void)aggregate, (void)first, (void)last, (void)ret_found, (void)ret_failure;
  return true; /* nobody replays in the simulation */
}

bool outcomes_note(MongoStore *store, const char *name, const VersionOutcome *list, size_t count,
                   Failure *ret_failure) {
  (void)store, (void)name, (void)list, (void)count, (void)ret_failure;
  return true; /* nobody waits for a version in the simulation */
}

bool outcomes_each_missing(MongoStore *store, const char *name, OutcomeSink sink, void *data,
                           Failure *ret_failure) {
  (void)store, (void)name, (void)sink, (void)data, (void)ret_failure;
  return true;
}

bool outbox_can_keep(Outbox *outbox, Failure *ret_failure) {
  (void)outbox;
  (void)ret_failure;
  return true; /* the user may */
}

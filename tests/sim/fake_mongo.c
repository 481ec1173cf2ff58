/* fake_mongo.c - the outbox collection in memory, behind infra/mongo/outbox.h. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

struct Outbox {
  char *owner;
};

Outbox *outbox_new(MongoStore *store, const char *owner) {
  (void)store;
  Outbox *outbox = g_new0(Outbox, 1);
  outbox->owner = g_strdup(owner);
  return outbox;
}

void outbox_free(Outbox *outbox) {
  if (!outbox)
    return;
  g_free(outbox->owner);
  g_free(outbox);
}

/* --- documents ------------------------------------------------------------------------------- */

static const char *const status_names[] = {"pending", "in_progress", "failed", "dead"};

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
  int64_t due_in_ms = event->next_attempt_at ? event->next_attempt_at - sim_server_ms() : 0;
  BSON_APPEND_INT64(document, "due_in_ms", due_in_ms);
  return document;
}

/* --- what a majority knows ---------------------------------------------------------------------
 */

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

/* Before a write that does not wait for a majority. */
static void write_quickly(SimEvent *event) {
  if (is_agreed(event))
    event->agreed = marks_of(event);
  event->agreed_at = fiber_now_us() + sim_between(0, sim_chance(100) ? 3000000 : 30000);
}

/* Before one that does; what came before it on the document is then known, too. */
static void write_by_majority(SimEvent *event) {
  event->agreed_at = 0;
}

static SimEvent as_known_to_majority(const SimEvent *event) {
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
}

static void set_status(SimEvent *event, EventStatus status) {
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
  event->status = STATUS_PENDING;
  event->attempts = event->excused = 0;
  event->claimed_by[0] = '\0';
  event->next_attempt_at = 0;
  g_array_append_val(sim.inserts, event->index);
}

static void take_out(SimEvent *event, const char *how) {
  sim_trace("  %s %s: out", event->id, how);
  check_removed(event, how);
  event->present = false;
}

/* --- writes ---------------------------------------------------------------------------------- */

/* How many of the documents the write reaches before it fails. */
static size_t reach(size_t count, bool *ret_whole) {
  *ret_whole = count < 2 || !sim_chance(sim.faults.partial);
  if (*ret_whole)
    return count;
  counts.partial++;
  return sim_random((unsigned)count);
}

static bool is_ours(const Outbox *outbox, const SimEvent *event) {
  return event->present && !strcmp(event->claimed_by, outbox->owner);
}

static bool broken_off(const char *what, Failure *ret_failure) {
  sim_trace("%s: broken off half way", what);
  return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_MONGODB, 0, "broken off half way");
}

/* Not all could be claimed, or an earlier claim took effect and said it did not. */
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
  return call_end(MONGO, "look at claims", ret_failure);
}

bool outbox_claim(Outbox *outbox, Event *const *events, size_t count, Claim *ret_claims,
                  Failure *ret_failure) {
  if (!call_begin(MONGO, "claim", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole), matched = 0;
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!event->present || event->status == STATUS_IN_PROGRESS || event->status == STATUS_DEAD)
      continue;
    matched++;
    write_quickly(event);
    event->attempts++;
    event->shared |= event->last_owner[0] && strcmp(event->last_owner, outbox->owner);
    g_strlcpy(event->last_owner, outbox->owner, sizeof event->last_owner);
    g_strlcpy(event->claimed_by, outbox->owner, sizeof event->claimed_by);
    event->claimed_at = sim_server_ms();
    set_status(event, STATUS_IN_PROGRESS);
  }
  if (!whole)
    return broken_off("claim", ret_failure);
  if (!call_end(MONGO, "claim", ret_failure))
    return false;
  bool all = matched == count;
  for (size_t i = 0; i < count; i++)
    ret_claims[i] = all ? CLAIM_OURS : CLAIM_GONE;
  return all || look_at_claims(outbox, events, count, ret_claims, ret_failure);
}

bool outbox_acknowledge(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "acknowledge", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!event->present)
      continue;
    write_quickly(event);
    take_out(event, "acknowledged");
  }
  return whole ? call_end(MONGO, "acknowledge", ret_failure)
               : broken_off("acknowledge", ret_failure);
}

bool outbox_release(Outbox *outbox, Event *const *events, size_t count, Failure *ret_failure) {
  if (!call_begin(MONGO, "release", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_ours(outbox, event) || event->status != STATUS_IN_PROGRESS)
      continue;
    write_by_majority(event);
    event->attempts--;
    set_status(event, STATUS_PENDING);
  }
  return whole ? call_end(MONGO, "release", ret_failure) : broken_off("release", ret_failure);
}

bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const FailedMark *mark,
                        Failure *ret_failure) {
  if (!call_begin(MONGO, mark->dead ? "mark dead" : "mark failed", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_ours(outbox, event) || event->status != STATUS_IN_PROGRESS)
      continue;
    sim_trace("  %s: %s: %s", event->id, failure_class_name(mark->failure->class),
              mark->failure->message);
    write_by_majority(event);
    check_marked(event, mark->failure, mark->dead, mark->burn);
    counts.failed += !mark->dead;
    counts.dead += mark->dead;
    event->error = mark->failure->class;
    if (mark->burn)
      event->excused++;
    else
      event->attempts--;
    event->next_attempt_at = mark->dead ? 0 : sim_server_ms() + mark->delay_ms;
    set_status(event, mark->dead ? STATUS_DEAD : STATUS_FAILED);
  }
  return whole ? call_end(MONGO, "mark failed", ret_failure)
               : broken_off("mark failed", ret_failure);
}

static bool is_abandoned(const Outbox *outbox, const SimEvent *event, int64_t older_than_ms) {
  if (!event->present || event->status != STATUS_IN_PROGRESS)
    return false;
  return older_than_ms > 0 ? event->claimed_at < sim_server_ms() - older_than_ms
                           : !is_ours(outbox, event);
}

bool outbox_sweep(Outbox *outbox, Event *const *events, size_t count, SweepAction action,
                  int64_t older_than_ms, Failure *ret_failure) {
  if (count == 0)
    return true;
  if (!call_begin(MONGO, "sweep", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_abandoned(outbox, event, older_than_ms))
      continue;
    counts.swept++;
    event->shared = true;
    event->excused++; /* whoever had it died with it */
    if (action == SWEEP_ACKNOWLEDGE) {
      write_quickly(event);
      take_out(event, "swept");
      continue;
    }
    check_swept(event);
    write_by_majority(event);
    set_status(event, action == SWEEP_DEAD ? STATUS_DEAD : STATUS_PENDING);
  }
  return whole ? call_end(MONGO, "sweep", ret_failure) : broken_off("sweep", ret_failure);
}

bool mongo_retry(SimEvent *event, Failure *ret_failure) {
  if (!call_begin(MONGO, "retry", ret_failure))
    return false;
  if (event->present && (event->status == STATUS_FAILED || event->status == STATUS_DEAD)) {
    write_by_majority(event);
    event->attempts = event->excused = 0;
    event->retried = true;
    event->next_attempt_at = 0;
    set_status(event, STATUS_PENDING);
  }
  return call_end(MONGO, "retry", ret_failure);
}

bool mongo_seize(Outbox *outbox, SimEvent *event, bool *ret_seized, Failure *ret_failure) {
  if (!call_begin(MONGO, "seize", ret_failure))
    return false;
  bool seized = event->present && (event->status == STATUS_FAILED || event->status == STATUS_DEAD);
  if (seized) {
    write_by_majority(event);
    g_strlcpy(event->claimed_by, outbox->owner, sizeof event->claimed_by);
    event->claimed_at = sim_server_ms();
    set_status(event, STATUS_IN_PROGRESS);
  }
  if (!call_end(MONGO, "seize", ret_failure))
    return false;
  *ret_seized = seized;
  return true;
}

/* --- look-ups -------------------------------------------------------------------------------- */

typedef enum Query { ALL, ABANDONED, OF_AGGREGATE, VERSIONS, OF_IDS } Query;

/* The documents are those of the moment in which the first one is asked for: what the code sees
 * later is old, as in a batch of a real cursor. */
struct EventCursor {
  Query query;
  const Outbox *outbox;
  int64_t older_than_ms, first, last;
  const OrderKey *after;
  unsigned aggregate, limit;
  bool wanted[EVENTS_MAX]; /* OF_IDS */
  bool open;
  GPtrArray *found; /* of bson_t */
  unsigned next;
};

static void destroy_document(gpointer document) {
  bson_destroy(document);
}

static EventCursor *cursor_new(const Outbox *outbox, Query query) {
  EventCursor *cursor = g_new0(EventCursor, 1);
  cursor->outbox = outbox;
  cursor->query = query;
  cursor->limit = EVENTS_MAX;
  cursor->found = g_ptr_array_new_with_free_func(destroy_document);
  return cursor;
}

void event_cursor_free(EventCursor *cursor) {
  if (!cursor)
    return;
  g_ptr_array_unref(cursor->found);
  g_free(cursor);
}

static bool is_behind(const SimEvent *event, const OrderKey *after) {
  OrderKey key = {.occurred_at = event->occurred_at,
                  .version = event->version,
                  .event_id = {.kind = ID_STRING,
                               .length = (uint32_t)strlen(event->id),
                               .bytes = (const uint8_t *)event->id}};
  return !after || order_key_compare(&key, after) > 0;
}

static bool matches(const EventCursor *cursor, const SimEvent *event) {
  if (!event->present)
    return false;
  switch (cursor->query) {
  case ALL: return true;
  case ABANDONED: return is_abandoned(cursor->outbox, event, cursor->older_than_ms);
  case OF_AGGREGATE:
    return event->aggregate == cursor->aggregate && is_behind(event, cursor->after);
  case VERSIONS:
    return event->aggregate == cursor->aggregate && event->version >= cursor->first &&
           event->version <= cursor->last;
  case OF_IDS: return cursor->wanted[event->index];
  }
  return false;
}

static int compare_pointers(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

static void fill(EventCursor *cursor) {
  g_autofree SimEvent *shown = g_new(SimEvent, EVENTS_MAX);
  const SimEvent *found[EVENTS_MAX];
  unsigned count = 0;
  for (unsigned i = 0; i < sim.event_count; i++) {
    shown[i] = cursor->query == OF_IDS ? sim.events[i] : as_known_to_majority(&sim.events[i]);
    if (matches(cursor, &shown[i]))
      found[count++] = &shown[i];
  }
  if (count > 1)
    qsort(found, count, sizeof *found, compare_pointers);
  for (unsigned i = 0; i < count && i < cursor->limit; i++) {
    sim_trace("  found %s, %s", found[i]->id, status_names[found[i]->status]);
    g_ptr_array_add(cursor->found, mongo_document(found[i]));
  }
}

const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure) {
  static const char *const names[] = {"scan", "find abandoned", "find aggregate", "find versions",
                                      "find events"};
  ret_failure->class = FAILURE_NONE;
  if (!cursor->open || sim_chance(100)) {
    if (!call_begin(MONGO, names[cursor->query], ret_failure))
      return NULL;
    if (!cursor->open)
      fill(cursor);
    cursor->open = true;
    if (!call_end(MONGO, names[cursor->query], ret_failure))
      return NULL;
  }
  return cursor->next < cursor->found->len ? cursor->found->pdata[cursor->next++] : NULL;
}

EventCursor *outbox_scan(Outbox *outbox, uint32_t *ret_seconds, uint32_t *ret_increment,
                         Failure *ret_failure) {
  if (!call_begin(MONGO, "cluster time", ret_failure))
    return NULL;
  uint32_t position = sim.inserts->len;
  if (!call_end(MONGO, "cluster time", ret_failure))
    return NULL;
  *ret_seconds = position;
  *ret_increment = 0;
  return cursor_new(outbox, ALL);
}

EventCursor *outbox_find_abandoned(Outbox *outbox, int64_t older_than_ms) {
  EventCursor *cursor = cursor_new(outbox, ABANDONED);
  cursor->older_than_ms = older_than_ms;
  return cursor;
}

EventCursor *outbox_find_aggregate(Outbox *outbox, const Aggregate *aggregate,
                                   const OrderKey *after, int limit) {
  EventCursor *cursor = cursor_new(outbox, OF_AGGREGATE);
  cursor->aggregate = aggregate_of_id(&aggregate->id);
  cursor->after = after; /* outlives the cursor */
  cursor->limit = (unsigned)limit;
  return cursor;
}

EventCursor *outbox_find_keys(Outbox *outbox, const Aggregate *aggregate, int limit) {
  return outbox_find_aggregate(outbox, aggregate, NULL, limit);
}

EventCursor *outbox_find_versions(Outbox *outbox, const Aggregate *aggregate, int64_t first,
                                  int64_t last) {
  EventCursor *cursor = cursor_new(outbox, VERSIONS);
  cursor->aggregate = aggregate_of_id(&aggregate->id);
  cursor->first = first;
  cursor->last = last;
  return cursor;
}

EventCursor *outbox_find_event(Outbox *outbox, const Id *id) {
  return outbox_find_events(outbox, &id, 1);
}

EventCursor *outbox_find_events(Outbox *outbox, const Id *const *ids, size_t count) {
  EventCursor *cursor = cursor_new(outbox, OF_IDS);
  for (size_t i = 0; i < count; i++)
    cursor->wanted[event_of_id(ids[i])->index] = true;
  return cursor;
}

bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "remove present", ret_failure))
    return false;
  for (guint i = ids->len; i-- > 0;)
    if (as_known_to_majority(event_of_id(&g_array_index(ids, Id, i))).present)
      g_array_remove_index_fast(ids, i);
  return call_end(MONGO, "remove present", ret_failure);
}

bool outbox_read_entity(Outbox *outbox, const char *collection, const Id *id, bson_t **ret_entity,
                        Failure *ret_failure) {
  (void)outbox;
  if (strcmp(collection, "accounts"))
    sim_fail("entities are read from %s", collection);
  if (!call_begin(MONGO, "read entity", ret_failure))
    return false;
  unsigned aggregate = aggregate_of_id(id);
  Entity entity = sim.entities[aggregate];
  if (!call_end(MONGO, "read entity", ret_failure))
    return false;
  *fiber_read() = (EntityRead){true, aggregate, entity.state.present ? entity.version : 0};
  *ret_entity = NULL;
  if (!entity.state.present)
    return true;
  *ret_entity = BCON_NEW("_id", "a", "version", BCON_INT64(entity.version), "last_event_at",
                         BCON_DATE_TIME(entity.last_event_at), "name", BCON_UTF8(entity.state.name),
                         "balance", BCON_INT64(entity.state.balance), "total",
                         BCON_INT64(entity.state.total));
  if (entity.state.note[0])
    BSON_APPEND_UTF8(*ret_entity, "note", entity.state.note);
  return true;
}

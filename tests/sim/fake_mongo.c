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

EventState event_state(const Event *event) {
  EventState state = {0};
  bson_iter_t iter;
  if (bson_iter_init_find(&iter, &event->document, "status"))
    for (size_t i = 0; i < G_N_ELEMENTS(status_names); i++)
      if (!strcmp(bson_iter_utf8(&iter, NULL), status_names[i]))
        state.status = (EventStatus)i;
  if (bson_iter_init_find(&iter, &event->document, "due_in_ms"))
    state.due_in_ms = bson_iter_as_int64(&iter);
  return state;
}

void mongo_insert(SimEvent *event) {
  sim_trace("insert %s %s v%lld of a%u", event->id, kind_name(event->kind),
            (long long)event->version, event->aggregate);
  event->inserted_at = fiber_now_us();
  event->present = true;
  event->status = STATUS_PENDING;
  event->attempts = event->excused = 0;
  event->claimed_by[0] = '\0';
  event->next_attempt_at = 0;
  g_array_append_val(sim.inserts, event->index);
}

static void set_status(SimEvent *event, EventStatus status) {
  sim_trace("  %s %s → %s, attempts %d", event->id, status_names[event->status],
            status_names[status], event->attempts);
  event->status = status;
  if (status != STATUS_IN_PROGRESS)
    event->claimed_by[0] = '\0';
  check_attempts(event);
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
  if (!call_begin(MONGO, "acknowledge", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (is_ours(outbox, event))
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
    event->attempts--;
    set_status(event, STATUS_PENDING);
  }
  return whole ? call_end(MONGO, "release", ret_failure) : broken_off("release", ret_failure);
}

bool outbox_mark_failed(Outbox *outbox, Event *const *events, size_t count, const Failure *failure,
                        bool dead, bool burn, int64_t delay_ms, Failure *ret_failure) {
  if (!call_begin(MONGO, dead ? "mark dead" : "mark failed", ret_failure))
    return false;
  bool whole;
  size_t reached = reach(count, &whole);
  for (size_t i = 0; i < reached; i++) {
    SimEvent *event = event_of_id(&events[i]->key.event_id);
    if (!is_ours(outbox, event) || event->status != STATUS_IN_PROGRESS)
      continue;
    sim_trace("  %s: %s: %s", event->id, failure_class_name(failure->class), failure->message);
    check_marked(event, failure, dead, burn);
    counts.failed += !dead;
    counts.dead += dead;
    event->error = failure->class;
    if (burn)
      event->excused++;
    else
      event->attempts--;
    event->next_attempt_at = dead ? 0 : sim_server_ms() + delay_ms;
    set_status(event, dead ? STATUS_DEAD : STATUS_FAILED);
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
      take_out(event, "swept");
      continue;
    }
    check_swept(event);
    set_status(event, action == SWEEP_DEAD ? STATUS_DEAD : STATUS_PENDING);
  }
  return whole ? call_end(MONGO, "sweep", ret_failure) : broken_off("sweep", ret_failure);
}

bool mongo_retry(SimEvent *event, Failure *ret_failure) {
  if (!call_begin(MONGO, "retry", ret_failure))
    return false;
  if (event->present && (event->status == STATUS_FAILED || event->status == STATUS_DEAD)) {
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

typedef enum Query { WAITING, BY_STATE, ABANDONED, OF_AGGREGATE, VERSIONS, ONE } Query;

/* The documents are those of the moment in which the first one is asked for: what the code sees
 * later is old, as in a batch of a real cursor. */
struct EventCursor {
  Query query;
  const Outbox *outbox;
  EventStatus state;
  int64_t older_than_ms, after, first, last;
  unsigned aggregate, limit;
  const SimEvent *one;
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

static bool matches(const EventCursor *cursor, const SimEvent *event) {
  if (!event->present)
    return false;
  switch (cursor->query) {
  case WAITING: return event->status == STATUS_PENDING || event->status == STATUS_IN_PROGRESS;
  case BY_STATE: return event->status == cursor->state;
  case ABANDONED: return is_abandoned(cursor->outbox, event, cursor->older_than_ms);
  case OF_AGGREGATE:
    return event->aggregate == cursor->aggregate && event->occurred_at >= cursor->after;
  case VERSIONS:
    return event->aggregate == cursor->aggregate && event->version >= cursor->first &&
           event->version <= cursor->last;
  case ONE: return event == cursor->one;
  }
  return false;
}

static int compare_pointers(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

static void fill(EventCursor *cursor) {
  SimEvent *found[EVENTS_MAX];
  unsigned count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (matches(cursor, &sim.events[i]))
      found[count++] = &sim.events[i];
  if (count > 1)
    qsort(found, count, sizeof *found, compare_pointers);
  for (unsigned i = 0; i < count && i < cursor->limit; i++) {
    sim_trace("  found %s, %s", found[i]->id, status_names[found[i]->status]);
    g_ptr_array_add(cursor->found, mongo_document(found[i]));
  }
}

const bson_t *event_cursor_next(EventCursor *cursor, Failure *ret_failure) {
  static const char *const names[] = {"scan",           "find by state", "find abandoned",
                                      "find aggregate", "find versions", "find one"};
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
  return cursor_new(outbox, WAITING);
}

EventCursor *outbox_find_state(Outbox *outbox, const char *state) {
  EventCursor *cursor = cursor_new(outbox, BY_STATE);
  cursor->state = strcmp(state, "dead") ? STATUS_FAILED : STATUS_DEAD;
  return cursor;
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
  cursor->after = after ? after->occurred_at : INT64_MIN;
  cursor->limit = (unsigned)limit;
  return cursor;
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
  EventCursor *cursor = cursor_new(outbox, ONE);
  cursor->one = event_of_id(id);
  return cursor;
}

bool outbox_remove_present(Outbox *outbox, GArray *ids, Failure *ret_failure) {
  (void)outbox;
  if (!call_begin(MONGO, "remove present", ret_failure))
    return false;
  for (guint i = ids->len; i-- > 0;)
    if (event_of_id(&g_array_index(ids, Id, i))->present)
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

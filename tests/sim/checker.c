/* checker.c - what must hold, whatever fails.
 *
 * The checker believes only what was committed: from the order of commits it works out, event by
 * event and in the plainest way, what rows and positions must be. */
#include "tests/sim/sim.h"

#include <string.h>

/* --- at each commit --------------------------------------------------------------------------- */

static int compare_to_position(const SimEvent *event, const SimPosition *position) {
  if (event->occurred_at != position->occurred_at)
    return event->occurred_at < position->occurred_at ? -1 : 1;
  if (event->version != position->version)
    return event->version < position->version ? -1 : 1;
  return strcmp(event->id, position->id);
}

static bool is_in(const Tx *tx, const SimEvent *event) {
  for (unsigned i = 0; i < tx->insert_count; i++)
    if (tx->inserts[i].event == event)
      return true;
  return false;
}

/* An event that changes no row makes no other event late. */
static void pass(SimPosition *position, const SimEvent *event) {
  if (!position->known)
    position->occurred_at = -30610224000000; /* year 1000 */
  position->max_version = MAX(position->max_version, event->version);
  position->known = true;
}

static void advance(SimPosition *position, const SimEvent *event) {
  if (!position->known || compare_to_position(event, position) > 0) {
    position->occurred_at = event->occurred_at;
    position->version = event->version;
    g_strlcpy(position->id, event->id, sizeof position->id);
  }
  position->max_version = MAX(position->max_version, event->version);
  position->known = true;
}

/* No event overtakes a failed one of its aggregate. */
static void check_order(const Tx *tx, const SimEvent *event) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *other = &sim.events[i];
    if (other->present && other->aggregate == event->aggregate &&
        (other->status == STATUS_FAILED || other->status == STATUS_DEAD) && !other->ledgered &&
        !is_in(tx, other) && event_compare(other, event) < 0)
      sim_fail("%s of a%u is applied past %s, which is %s", event->id, event->aggregate, other->id,
               other->status == STATUS_DEAD ? "dead" : "failed");
  }
}

/* A failed event is not retried before an event that sorts before it and was already there, whether
 * it was read or not. */
static void check_retry(const Tx *tx, const SimEvent *event) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *other = &sim.events[i];
    if (other->present && other->aggregate == event->aggregate && other->status == STATUS_PENDING &&
        !other->ledgered && !(tx && is_in(tx, other)) && other->inserted_at < event->blocked_us &&
        event_compare(other, event) < 0)
      sim_fail("%s of a%u is tried again past %s, which was there before", event->id,
               event->aggregate, other->id);
  }
}

/* A gap may be skipped only after the wait, and not while the missing event can be seen. */
static void check_gap(const SimEvent *event, const SimPosition *position) {
  if (event->version == 0 || (position->known ? position->max_version == 0 : event->version > 10) ||
      event->version - 1 <= position->max_version)
    return;
  counts.gaps++;
  if (fiber_now_us() - event->inserted_at < sim.config.settings.gap_wait_ms * 1000)
    sim_fail("%s passes a gap %lld us after it came", event->id,
             (long long)(fiber_now_us() - event->inserted_at));
}

static void believe_applied(const SimEvent *event, Belief *belief, bool late) {
  counts.applied++;
  if (!late)
    check_gap(event, &belief->position);
  if (late && !event_has_deltas(event))
    sim_fail("%s (%s) came late and was applied", event->id, kind_name(event->kind));
  State before = belief->state;
  if (!(late ? event_apply_deltas : event_apply)(&belief->state, event))
    sim_fail("%s (%s) was applied, but cannot be on %s", event->id, kind_name(event->kind),
             state_text(&before));
  belief->tainted |= late;
}

static void believe_superseded(const Tx *tx, const SimEvent *event, Belief *belief, bool late) {
  counts.superseded++;
  bool refreshed = fiber_read()->done && fiber_read()->aggregate == event->aggregate;
  if (event->version && event->version <= belief->position.refreshed_version)
    return;
  if (refreshed && tx->touched[event->aggregate])
    return; /* the row is the entity's; see believe_refresh */
  if (!late)
    sim_fail("%s is superseded but neither late nor contained", event->id);
  State row = belief->state;
  if (event_needs_refresh(event) || (event_has_deltas(event) && event_apply_deltas(&row, event)))
    sim_fail("late %s (%s) is superseded without a refresh", event->id, kind_name(event->kind));
  belief->tainted = true;
}

static void believe_insert(const Tx *tx, const Insert *insert) {
  const SimEvent *event = insert->event;
  Belief *belief = &sim.beliefs[event->aggregate];
  bool late = belief->position.known && compare_to_position(event, &belief->position) <= 0;
  bool contained = event->version && event->version <= belief->position.refreshed_version;
  if (event->applications > 1)
    sim_fail("%s has its effect %u times", event->id, event->applications);
  if (late && !contained) {
    counts.late++;
    if (sim.orderly && strcmp(insert->outcome, "skipped") != 0)
      sim_fail("%s of a%u is late, though all came in order", event->id, event->aggregate);
  }
  if (strcmp(insert->outcome, "skipped") && !contained) {
    check_order(tx, event);
    check_retry(tx, event);
  }
  if (!strcmp(insert->outcome, "applied")) {
    if (contained)
      sim_fail("%s is applied, but the entity contained it", event->id);
    believe_applied(event, belief, late);
  } else if (!strcmp(insert->outcome, "superseded")) {
    believe_superseded(tx, event, belief, late);
  } else if (!strcmp(insert->outcome, "ignored")) {
    counts.ignored++;
    if (event->kind != SEEN)
      sim_fail("%s (%s) is ignored", event->id, kind_name(event->kind));
  } else {
    counts.skipped++;
    belief->tainted = true;
  }
  bool changes = !strcmp(insert->outcome, "applied") || !strcmp(insert->outcome, "superseded");
  (changes ? advance : pass)(&belief->position, event);
}

static void believe_refresh(const Tx *tx, unsigned aggregate) {
  Belief *belief = &sim.beliefs[aggregate];
  const SimPosition *now = &tx->positions[aggregate];
  const EntityRead *read = fiber_read();
  counts.refreshed++;
  if (read->version && now->refreshed_version != read->version)
    sim_fail("a%u is refreshed to version %lld, but the entity is at %lld", aggregate,
             (long long)now->refreshed_version, (long long)read->version);
  if (now->refreshed_version < belief->position.max_version)
    sim_fail("a%u is refreshed backwards", aggregate);
  belief->state = read->version ? state_at(aggregate, read->version) : (State){0};
  belief->position = *now;
  belief->tainted = false;
}

static void check_rows(unsigned aggregate) {
  const Belief *belief = &sim.beliefs[aggregate];
  const SimPosition *position = &sim.positions[aggregate], *believed = &belief->position;
  if (!state_equal(&sim.rows[aggregate], &belief->state))
    sim_fail("the rows of a%u are %s, not %s", aggregate, state_text(&sim.rows[aggregate]),
             state_text(&belief->state));
  if (position->known != believed->known ||
      (position->known &&
       (position->occurred_at != believed->occurred_at || position->version != believed->version ||
        strcmp(position->id, believed->id) || position->max_version != believed->max_version ||
        position->refreshed_version != believed->refreshed_version)))
    sim_fail("the position of a%u is %s v%lld, not %s v%lld", aggregate, position->id,
             (long long)position->max_version, believed->id, (long long)believed->max_version);
}

void check_commit(const Tx *tx) {
  bool writes = tx->insert_count > 0;
  for (unsigned i = 0; i < AGGREGATES; i++)
    writes |= tx->touched[i] || tx->moved[i];
  if (!writes)
    return;
  const Instance *instance = tx->instance;
  if (instance && tx->epoch != sim.epoch)
    sim_fail("epoch %lld commits, but %lld owns the name", (long long)tx->epoch,
             (long long)sim.epoch);
  sim_trace("  committed %u events", tx->insert_count);
  const EntityRead *read = fiber_read();
  bool refresh = read->done && tx->moved[read->aggregate];
  for (unsigned i = 0; i < tx->insert_count; i++)
    believe_insert(tx, &tx->inserts[i]);
  if (refresh)
    believe_refresh(tx, read->aggregate);
  for (unsigned i = 0; i < AGGREGATES; i++)
    if (tx->touched[i] || tx->moved[i]) {
      if (!instance)
        sim.beliefs[i].mended_us = fiber_now_us();
      check_rows(i);
    }
  for (unsigned i = 0; i < tx->insert_count; i++)
    check_rows(tx->inserts[i].event->aggregate);
}

/* --- at each write to the outbox ------------------------------------------------------------ */

void check_removed(const SimEvent *event, const char *how) {
  if (!event->ledgered && !event->pruned)
    sim_fail("%s leaves the outbox (%s) without an entry in the ledger", event->id, how);
}

void check_swept(SimEvent *event) {
  const Instance *instance = fiber_instance();
  bool refused = event->refused;
  event->refused = false;
  if (!refused && event->ledgered && instance_is_owner(instance) &&
      strcmp(event->outcome, "skipped") != 0)
    sim_fail("%s was applied and is swept back", event->id);
}

void check_abandoned(const SimEvent *event, const char *owner, bool applied,
                     int64_t older_than_ms) {
  int64_t age_us = fiber_now_us() - event->claimed_us;
  bool known = event->claimed_us > sim.skewed_us; /* the clock has not jumped since then */
  if (older_than_ms > 0 && known && age_us < sim.config.settings.claim_timeout_ms * 1000)
    sim_fail("%s is swept %lld us after it was claimed", event->id, (long long)age_us);
  if (applied && older_than_ms > 0 && !event->shared && !event->unanswered &&
      !strcmp(event->claimed_by, owner))
    sim_fail("%s was applied by its owner, which did not acknowledge it", event->id);
}

static bool is_poisoned(const State *state) {
  return !strncmp(state->name, "poison", 6);
}

/* Whether a refresh can write the entity, as it is and as it was read, which may be a backup. */
static bool is_refreshable(unsigned aggregate) {
  const EntityRead *read = fiber_read();
  State then = read->aggregate == aggregate ? state_at(aggregate, read->version) : (State){0};
  return is_account(aggregate) && !is_poisoned(&sim.entities[aggregate].state) &&
         !is_poisoned(&then);
}

/* Whether the event can be applied to the present state of its aggregate. */
static bool is_applicable(const SimEvent *event) {
  const Belief *belief = &sim.beliefs[event->aggregate];
  State state = belief->state;
  bool late = belief->position.known && compare_to_position(event, &belief->position) <= 0;
  if (event->poison_until > 0)
    return false;
  if (late && event_needs_refresh(event))
    return !event->unmappable && is_refreshable(event->aggregate);
  if (late && !event_has_deltas(event))
    return !event->unmappable && event->kind != NAMELESS;
  return (late ? event_apply_deltas : event_apply)(&state, event);
}

/* Whose fault it is: an event uses up an attempt for failures at its own rows. For a failure at the
 * ledger or COMMIT, or a broken connection, it does so only after this has happened to it alone
 * twice before. */
static void check_blame(const SimEvent *event, const Failure *failure) {
  bool breaks = failure->code == 2013;
  bool planned = failure->step == STEP_NONE && failure->class == FAILURE_DATA;
  if (failure->source != SOURCE_MYSQL || planned)
    return;
  counts.blamed += breaks;
  if (failure->step != STEP_ROWS && failure->step != STEP_LEDGER && failure->step != STEP_COMMIT)
    sim_fail("%s pays for a failure at step %d: %s", event->id, (int)failure->step,
             failure->message);
  if ((breaks || failure->step != STEP_ROWS) && event->uncounted < 2 && event->broke < 3)
    sim_fail("%s pays at once for a failure at step %d that may be the server's: %s", event->id,
             (int)failure->step, failure->message);
}

void check_marked(const SimEvent *event, const Failure *failure, bool dead, bool counted) {
  const Instance *instance = fiber_instance();
  FailureClass class = failure->class;
  if (counted) {
    check_blame(event, failure);
    if (event->claimed_us > event->blocked_us) /* else this failure, marked once more */
      check_retry(NULL, event);
  }
  bool outage = class == FAILURE_UNAVAILABLE || class == FAILURE_SPACE || class == FAILURE_FENCED ||
                class == FAILURE_MAPPING;
  if (outage && (counted || dead))
    sim_fail("%s pays for a failure that is not its own: %s", event->id, failure_class_name(class));
  if (dead && !event->retried && !event->shared &&
      event->attempts < sim.config.settings.max_attempts)
    sim_fail("%s dies after %d attempts", event->id, event->attempts);
  bool owner = instance_is_owner(instance); /* another process has them in memory */
  /* One more than allowed, because the janitor may offer an event that it read before the last
   * attempt ended. */
  if (owner && !dead && counted && !event->shared &&
      event->attempts > sim.config.settings.max_attempts)
    sim_fail("%s does not die after %d attempts", event->id, event->attempts);
  bool current = owner && sim.beliefs[event->aggregate].mended_us < event->claimed_us;
  if (current && class == FAILURE_DATA && is_applicable(event))
    sim_fail("%s is blamed for nothing: %s", event->id, failure->message);
  /* One that was frozen since it failed marks what the next owner has applied meanwhile, and the
   * next owner's acknowledgement ends that. */
  if (owner && event->ledgered && class == FAILURE_DATA && strcmp(event->outcome, "skipped") != 0)
    sim_fail("%s was applied and is marked as failed", event->id);
}

void check_attempts(const SimEvent *event) {
  if (event->attempts < 0)
    sim_fail("%s has %d attempts", event->id, event->attempts);
  int most = event->excused + (event->status == STATUS_IN_PROGRESS);
  if (event->attempts > most)
    sim_fail("%s used up %d attempts, %d of them rightly", event->id, event->attempts,
             event->excused);
}

/* --- at each step --------------------------------------------------------------------------- */

void check_instances(void) {
  size_t workers = (size_t)sim.config.settings.workers, batch = (size_t)sim.config.settings.batch;
  for (guint i = 0; i < sim.instances->len; i++) {
    const Instance *instance = sim.instances->pdata[i];
    if (!instance_lives(instance))
      continue;
    Figures figures = metrics_read(instance->metrics);
    const TenureView *tenure = &figures.tenure;
    if (tenure->queued > (batch * 19 + AGGREGATES) * workers)
      sim_fail("%zu events are queued", tenure->queued);
    if (tenure->held > AGGREGATES)
      sim_fail("%zu holds", tenure->held);
    figures_clear(&figures);
  }
}

/* --- at the end ----------------------------------------------------------------------------- */

static int compare_events(const void *a, const void *b) {
  return event_compare(*(SimEvent *const *)a, *(SimEvent *const *)b);
}

static unsigned events_of(unsigned aggregate, SimEvent *events[static EVENTS_MAX]) {
  unsigned count = 0;
  for (unsigned i = 0; i < sim.event_count; i++)
    if (sim.events[i].aggregate == aggregate)
      events[count++] = &sim.events[i];
  if (count > 1)
    qsort(events, count, sizeof *events, compare_events);
  return count;
}

static bool has_rows_in(unsigned aggregate, unsigned table) {
  return table != TABLES && is_account(aggregate) == (table != METER);
}

const char *check_unsettled(unsigned but_for_table) {
  static const char *const names[] = {"pending", "in_progress", "failed", "dead"};
  static char text[96];
  for (unsigned a = 0; a < AGGREGATES; a++) {
    SimEvent *events[EVENTS_MAX];
    unsigned count = has_rows_in(a, but_for_table) ? 0 : events_of(a, events);
    bool blocked = false;
    for (unsigned i = 0; i < count; i++) {
      const SimEvent *event = events[i];
      if (!event->present)
        continue;
      blocked |= event->status == STATUS_DEAD;
      if (blocked && event->status != STATUS_IN_PROGRESS) /* failed: during an outage */
        continue;
      g_snprintf(text, sizeof text, "%s of a%u is %s, attempts %d, claimed by %s", event->id, a,
                 names[event->status], event->attempts, event->claimed_by);
      return text;
    }
  }
  return NULL;
}

/* In order, for an aggregate without late events. */
static State fold_in_order(unsigned aggregate) {
  State state = {0};
  SimEvent *events[EVENTS_MAX];
  unsigned count = events_of(aggregate, events);
  for (unsigned i = 0; i < count; i++)
    if (events[i]->applications > 0)
      event_apply(&state, events[i]);
  return state;
}

void check_end(void) {
  for (unsigned i = 0; i < sim.event_count; i++) {
    const SimEvent *event = &sim.events[i];
    if (event->applications > 1)
      sim_fail("%s was applied %u times", event->id, event->applications);
    if (!event->present && event->applications == 0)
      sim_fail("%s is lost", event->id);
  }
  for (unsigned a = 0; a < AGGREGATES; a++) {
    check_rows(a);
    const Belief *belief = &sim.beliefs[a];
    State state = fold_in_order(a);
    if (!belief->tainted && belief->position.refreshed_version == 0 &&
        !state_equal(&sim.rows[a], &state))
      sim_fail("the rows of a%u are %s, in order they were %s", a, state_text(&sim.rows[a]),
               state_text(&state));
    bool all = true;
    for (unsigned i = 0; i < sim.event_count; i++)
      all &= sim.events[i].aggregate != a || !sim.events[i].present;
    if (is_account(a) && all && !belief->tainted &&
        !state_equal(&sim.rows[a], &sim.entities[a].state))
      sim_fail("the rows of a%u are %s, its entity is %s", a, state_text(&sim.rows[a]),
               state_text(&sim.entities[a].state));
  }
}

/* fake_mysql.c - a MySQL server in memory, behind infra/mysql: sessions, transactions, locks and
 * the ledger.
 *
 * A transaction's writes are its own until COMMIT. As on a real server, a statement outside of one
 * commits by itself, and START TRANSACTION inside of one commits that first. */
#include "tests/sim/fake_mysql.h"

#include "projector/infra/mysql/fence.h"
#include "projector/infra/mysql/ledger.h"
#include "projector/infra/mysql/loss.h"

#include <stdlib.h>
#include <string.h>

enum { LOCK_WAIT_MS = 10000, IDLE_S = 60 };

#define REFUSED_AT "a fault of the simulation at place "

static unsigned generation;
static unsigned long numbered; /* sessions */

/* --- transactions on the server -------------------------------------------------------------- */

void tx_end(Tx *tx) {
  g_ptr_array_remove(sim.transactions, tx);
  g_free(tx);
}

static Tx *tx_begin(const Session *session) {
  Tx *tx = g_new0(Tx, 1);
  tx->instance = fiber_instance();
  tx->session = session->number;
  tx->begun_at = fiber_now_us();
  g_ptr_array_add(sim.transactions, tx);
  return tx;
}

static void tx_commit(Tx *tx) {
  for (unsigned i = 0; i < AGGREGATES; i++) {
    if (tx->touched[i])
      sim.rows[i] = tx->rows[i];
    if (tx->moved[i])
      sim.positions[i] = tx->positions[i];
  }
  for (unsigned i = 0; i < tx->insert_count; i++) {
    SimEvent *event = tx->inserts[i].event;
    event->ledgered = true;
    event->outcome = tx->inserts[i].outcome;
    event->ledgered_us = fiber_now_us();
    event->ledgered_at = sim_server_ms(MYSQL_SERVER);
    event->applications++;
  }
  check_commit(tx);
  tx_end(tx);
}

/* The server notices only after a while that a client is gone; its locks stay until then. */
static void tx_abandon(Session *session) {
  int64_t soon = fiber_now_us() + (sim_chance(800) ? 0 : sim_between(0, 4000000));
  session->tx->doomed = true;
  session->tx->dies_at = MAX(soon, session->runs_until);
}

static void bury_the_dead(void) {
  for (guint i = sim.transactions->len; i-- > 0;) {
    Tx *tx = sim.transactions->pdata[i];
    if (tx->doomed && tx->dies_at <= fiber_now_us())
      tx_end(tx);
  }
}

void mysql_disconnect_all(void) {
  generation++;
  for (guint i = sim.transactions->len; i-- > 0;) {
    Tx *tx = sim.transactions->pdata[i];
    tx->doomed = true;
    tx->dies_at = 0;
  }
  bury_the_dead();
}

/* --- sessions --------------------------------------------------------------------------------- */

static bool fail(int code, const char *message, Failure *ret_failure) {
  return failure_set(ret_failure, failure_class_of_mysql(code), SOURCE_MYSQL, code, "%s", message);
}

static void lose(Session *session) {
  if (session->generation == generation && session->tx)
    tx_abandon(session);
  session->tx = NULL;
  session->lost = true;
}

/* The state after a failed statement. */
static bool after_failure(Session *session, const Failure *failure) {
  if (failure->class == FAILURE_UNAVAILABLE)
    lose(session);
  else if (failure->class == FAILURE_CONFLICT && session->tx && sim_chance(500)) {
    tx_end(session->tx); /* a deadlock undoes everything, a lock wait only the statement */
    session->tx = NULL;
  }
  return false;
}

bool session_is_alive(Session *session) {
  bool idle = fiber_now_us() - session->used_at > session->idle_s * 1000000;
  if (session->generation != generation)
    session->tx = NULL; /* the server has ended it */
  if (session->generation != generation || idle)
    lose(session);
  return !session->lost;
}

bool statement_break_off(Session *session, Failure *ret_failure) {
  session->breaks = false;
  session->implicit = false;
  bool alive = session_is_alive(session); /* otherwise the server has ended the transaction */
  if (alive && session->tx && session->tx->insert_count == 1)
    session->tx->inserts[0].event->broke++;
  if (alive)
    lose(session);
  sim_trace("  the connection breaks");
  return fail(2013, "lost connection", ret_failure);
}

/* Outside a transaction nothing remains of a statement that fails on its own. */
static bool refuse_at(Session *session, Place place, int code, Failure *ret_failure) {
  if (session->implicit)
    tx_end(g_steal_pointer(&session->tx));
  session->implicit = false;
  sim_trace("  refused: %d", code);
  return failure_set(ret_failure, failure_class_of_mysql(code), SOURCE_MYSQL, code, REFUSED_AT "%d",
                     (int)place);
}

/* What is wrong with this place now; NULL: nothing. */
static const PlaceFault *fault_at(Place place) {
  const PlaceFault *fault = &sim.faults.at[place];
  if (fiber_now_us() >= fault->until || !sim_chance(fault->permille))
    return NULL;
  counts.places++;
  return fault;
}

bool statement_begin(Session *session, Place place, const char *what, Failure *ret_failure) {
  bool good = call_begin(MYSQL_SERVER, what, ret_failure);
  bury_the_dead();
  if (!session_is_alive(session))
    return fail(2013, "lost connection", ret_failure);
  session->used_at = fiber_now_us();
  if (!good)
    return after_failure(session, ret_failure);
  const PlaceFault *fault = fault_at(place);
  session->breaks = fault && fault->how == BREAK_AFTER;
  if (fault && fault->how == BREAK_BEFORE)
    return statement_break_off(session, ret_failure);
  if (fault && fault->how == NO_BREAK)
    return refuse_at(session, place, fault->code, ret_failure);
  if (!session->tx) {
    session->tx = tx_begin(session);
    session->implicit = true;
  }
  return true;
}

bool statement_end(Session *session, const char *what, Failure *ret_failure) {
  if (session->implicit) {
    session->implicit = false;
    tx_commit(g_steal_pointer(&session->tx));
  }
  if (session->breaks)
    return statement_break_off(session, ret_failure);
  if (call_end(MYSQL_SERVER, what, ret_failure))
    return true;
  if (session_is_alive(session))
    lose(session);
  return false;
}

/* The statement failed on its own; outside a transaction nothing remains of it. */
bool statement_refuse(Session *session, int code, const char *message, Failure *ret_failure) {
  if (session->implicit) {
    session->implicit = false;
    tx_end(g_steal_pointer(&session->tx));
  }
  sim_trace("  refused: %d %s", code, message);
  return fail(code, message, ret_failure);
}

/* Each attempt may take seconds, and the janitor has other work: one gap finds out for all. */
static void check_patience(const Failure *failure) {
  FiberTurn *turn = fiber_turn();
  if (failure->class != FAILURE_UNAVAILABLE || !turn->into_gaps)
    return;
  if (turn->away)
    sim_fail("%s has tried to connect for several gaps in one turn", fiber_name());
  turn->away = true;
}

Session *session_open(const MysqlSettings *settings, Failure *ret_failure) {
  (void)settings;
  if (!call_begin(MYSQL_SERVER, "connect", ret_failure) ||
      !call_end(MYSQL_SERVER, "connect", ret_failure)) {
    check_patience(ret_failure);
    return NULL;
  }
  const PlaceFault *fault = fault_at(AT_CONNECT);
  if (fault) {
    int code = fault->how == NO_BREAK ? fault->code : 2013;
    failure_set(ret_failure, failure_class_of_mysql(code), SOURCE_MYSQL, code, REFUSED_AT "%d",
                AT_CONNECT);
    return NULL;
  }
  Session *session = g_new0(Session, 1);
  session->generation = generation;
  session->used_at = fiber_now_us();
  session->idle_s = IDLE_S;
  session->number = ++numbered;
  session->lock_wait_ms = LOCK_WAIT_MS;
  return session;
}

void session_close(Session *session) {
  if (!session)
    return;
  if (session->generation == generation && session->tx)
    tx_abandon(session);
  g_free(session);
}

int64_t session_answer_ms(const MysqlSettings *settings) {
  return settings->lock_wait_s * (int64_t)1000;
}

unsigned long session_id(const Session *session) {
  return session->number;
}

int64_t session_idle_ms(const Session *session) {
  (void)session;
  return 0;
}

static void start_transaction(Session *session) {
  if (!session->implicit)
    tx_commit(session->tx);
  else
    tx_end(session->tx);
  session->implicit = false;
  session->tx = tx_begin(session);
  fiber_read()->done = false;
}

static bool commit(Session *session, Failure *ret_failure) {
  session->implicit = false;
  tx_commit(g_steal_pointer(&session->tx));
  counts.commits++;
  return statement_end(session, "COMMIT", ret_failure);
}

bool session_run(Session *session, Failure *ret_failure, const char *format, ...) {
  Place place = !strcmp(format, "START TRANSACTION") ? AT_BEGIN
                : !strcmp(format, "COMMIT")          ? AT_COMMIT
                                                     : AT_SETUP;
  if (!statement_begin(session, place, format, ret_failure))
    return false;
  if (!strcmp(format, "START TRANSACTION"))
    start_transaction(session);
  else if (!strcmp(format, "COMMIT"))
    return commit(session, ret_failure);
  else if (!strcmp(format, "SET SESSION wait_timeout = %d")) {
    va_list arguments;
    va_start(arguments, format);
    session->idle_s = va_arg(arguments, int);
    va_end(arguments);
  } else if (g_str_has_prefix(format, "SET SESSION innodb_lock_wait_timeout = %d")) {
    va_list arguments;
    va_start(arguments, format);
    session->lock_wait_ms = va_arg(arguments, int) * (int64_t)1000;
    va_end(arguments);
  } else if (strcmp(format, "DO 0"))
    sim_fail("a statement that the simulation does not know: %s", format);
  return statement_end(session, format, ret_failure);
}

void session_rollback(Session *session) {
  Failure ignored;
  bool good = call_begin(MYSQL_SERVER, "ROLLBACK", &ignored);
  if (!session_is_alive(session))
    return;
  if (session->tx && (good || ignored.class != FAILURE_UNAVAILABLE))
    tx_end(g_steal_pointer(&session->tx));
  if (!good && ignored.class == FAILURE_UNAVAILABLE)
    lose(session);
}

/* --- fence ------------------------------------------------------------------------------------ */

bool tx_is_blocked(const Tx *mine, Blocks blocks, const void *wanted) {
  bury_the_dead();
  for (guint i = 0; i < sim.transactions->len; i++)
    if (sim.transactions->pdata[i] != mine && blocks(sim.transactions->pdata[i], wanted))
      return true;
  return false;
}

static bool wait_for_lock(Session *session, Blocks blocks, const void *wanted,
                          Failure *ret_failure) {
  const Instance *instance = fiber_instance();
  int64_t until = fiber_now_us() + session->lock_wait_ms * 1000;
  while (tx_is_blocked(session->tx, blocks, wanted)) {
    fiber_sleep_us(5000);
    if (instance && instance->killed)
      return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_PROJECTOR, 0, "killed");
    session->used_at = fiber_now_us();
    if (!session_is_alive(session))
      return fail(2013, "lost connection", ret_failure);
    if (fiber_now_us() >= until)
      return statement_refuse(session, 1205, "lock wait timeout", ret_failure);
  }
  return true;
}

static bool blocks_fence(const Tx *other, const void *exclusive) {
  return other->exclusive || (*(const bool *)exclusive && other->shared);
}

static bool lock_fence(Session *session, bool exclusive, Failure *ret_failure) {
  if (!wait_for_lock(session, blocks_fence, &exclusive, ret_failure))
    return false;
  session->tx->exclusive |= exclusive;
  session->tx->shared |= !exclusive;
  return true;
}

bool fence_take(Session *session, const char *projector, const char *owner, int64_t *ret_epoch,
                Failure *ret_failure) {
  (void)projector;
  (void)owner;
  if (!statement_begin(session, AT_FENCE, "take fence", ret_failure) ||
      !lock_fence(session, true, ret_failure))
    return false;
  int64_t epoch = ++sim.epoch;
  if (!statement_end(session, "take fence", ret_failure))
    return false;
  *ret_epoch = epoch;
  if (fiber_instance())
    fiber_instance()->epoch = epoch;
  return true;
}

bool fence_look(Session *session, const char *projector, int64_t *ret_epoch, Failure *ret_failure) {
  (void)projector;
  if (!statement_begin(session, AT_FENCE, "look at fence", ret_failure))
    return false;
  int64_t epoch = sim.epoch;
  if (!statement_end(session, "look at fence", ret_failure))
    return false;
  *ret_epoch = epoch;
  return true;
}

bool fence_lift(Session *session, const char *projector, int64_t epoch, Failure *ret_failure) {
  (void)session, (void)projector, (void)ret_failure;
  sim_fail("the fence is lifted to %lld, though MySQL has lost nothing", (long long)epoch);
}

bool loss_of_epochs(int64_t found, int64_t reached, Failure *ret_failure) {
  (void)ret_failure;
  sim_fail("epoch %lld was found, %lld reached, though MySQL has lost nothing", (long long)found,
           (long long)reached);
}

bool loss_look(Session *session, const char *projector, const LastCommit *last, bool *ret_lost,
               Failure *ret_failure) {
  (void)projector;
  Id id = {ID_STRING, (uint32_t)strlen(last->event_id), 0, (const uint8_t *)last->event_id};
  if (!statement_begin(session, AT_LOOK, "look for a loss", ret_failure))
    return false;
  const SimEvent *event = event_of_id(&id);
  if (!event->ledgered)
    sim_fail("%s, committed last, is not in the ledger%s", event->id,
             event->pruned ? ": it was pruned" : "");
  if (!statement_end(session, "look for a loss", ret_failure))
    return false;
  counts.loss_looks++;
  *ret_lost = false;
  return true;
}

bool loss_of_event(const LastCommit *last, Failure *ret_failure) {
  (void)ret_failure;
  sim_fail("%s is called lost", last->event_id);
}

static bool enter(Session *session, const Ledger *ledger, Failure *ret_failure) {
  if (!statement_begin(session, AT_FENCE, "enter", ret_failure) ||
      !lock_fence(session, ledger->epoch == 0, ret_failure))
    return false;
  if (ledger->epoch && ledger->epoch != sim.epoch) {
    counts.fenced++;
    sim_trace("  fenced: epoch %lld is not %lld", (long long)ledger->epoch, (long long)sim.epoch);
    statement_end(session, "enter", ret_failure);
    return failure_set(ret_failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0, "another works now");
  }
  session->tx->epoch = ledger->epoch;
  return statement_end(session, "enter", ret_failure);
}

/* --- positions -------------------------------------------------------------------------------- */

/* A row that does not exist cannot be locked; one that another has inserted can. */
static bool blocks_position(const Tx *other, const void *aggregate) {
  return other->locked[*(const unsigned *)aggregate] || other->moved[*(const unsigned *)aggregate];
}

static void take_position(const SimPosition *position, AggregateState *state, Arena *arena) {
  if (!position->known)
    return;
  size_t length = strlen(position->id);
  Id id = {ID_STRING, (uint32_t)length, 0,
           (const uint8_t *)arena_copy(arena, position->id, length)};
  state->position = (Position){.known = true,
                               .last = {position->occurred_at, position->version, id},
                               .max_version = position->max_version,
                               .refreshed_version = position->refreshed_version};
}

static bool read_positions(Session *session, AggregateSet *aggregates, Arena *arena,
                           Failure *ret_failure) {
  if (aggregate_set_count(aggregates) == 0)
    return true;
  if (!statement_begin(session, AT_POSITIONS, "read positions", ret_failure))
    return false;
  aggregate_set_sort(aggregates);
  for (unsigned i = 0; i < aggregate_set_count(aggregates); i++) {
    AggregateState *state = aggregate_set_get(aggregates, i);
    unsigned aggregate = aggregate_of_id(&state->aggregate->id);
    if (!wait_for_lock(session, blocks_position, &aggregate, ret_failure))
      return false;
    session->tx->locked[aggregate] = sim.positions[aggregate].known;
    take_position(session->tx->moved[aggregate] ? &session->tx->positions[aggregate]
                                                : &sim.positions[aggregate],
                  state, arena);
  }
  return statement_end(session, "read positions", ret_failure);
}

bool ledger_look_at_positions(Session *session, const Ledger *ledger, AggregateSet *aggregates,
                              Arena *arena, Failure *ret_failure) {
  (void)ledger;
  if (!statement_begin(session, AT_LOOK, "look at positions", ret_failure))
    return false;
  for (unsigned i = 0; i < aggregate_set_count(aggregates); i++) {
    AggregateState *state = aggregate_set_get(aggregates, i);
    take_position(&sim.positions[aggregate_of_id(&state->aggregate->id)], state, arena);
  }
  return statement_end(session, "look at positions", ret_failure);
}

/* The server runs the parts of the statement one after the other. */
bool ledger_enter(Session *session, const Ledger *ledger, AggregateSet *aggregates, Arena *arena,
                  Failure *ret_failure) {
  return enter(session, ledger, ret_failure) &&
         read_positions(session, aggregates, arena, ret_failure);
}

bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure) {
  (void)ledger;
  if (!statement_begin(session, AT_WRITE_POSITIONS, "write positions", ret_failure))
    return false;
  for (unsigned i = 0; i < aggregate_set_count(aggregates); i++) {
    const AggregateState *state = aggregate_set_get(aggregates, i);
    if (!state->moved)
      continue;
    unsigned aggregate = aggregate_of_id(&state->aggregate->id);
    if (!wait_for_lock(session, blocks_position, &aggregate, ret_failure))
      return false;
    const Position *from = &state->position;
    SimPosition *position = &session->tx->positions[aggregate];
    *position = (SimPosition){true, from->last.occurred_at, from->last.version,
                              .max_version = from->max_version,
                              .refreshed_version = from->refreshed_version};
    if (from->last.event_id.length)
      memcpy(position->id, from->last.event_id.bytes,
             MIN(from->last.event_id.length, sizeof position->id - 1));
    session->tx->moved[aggregate] = true;
  }
  return statement_end(session, "write positions", ret_failure);
}

/* --- ledger ----------------------------------------------------------------------------------- */

static bool is_inserted(const Tx *tx, const SimEvent *event) {
  for (unsigned i = 0; i < tx->insert_count; i++)
    if (tx->inserts[i].event == event)
      return true;
  return false;
}

static bool blocks_entry(const Tx *other, const void *event) {
  return is_inserted(other, event);
}

bool ledger_insert(Session *session, const Ledger *ledger, const Item *items, size_t count,
                   bool *ret_repeated, Failure *ret_failure) {
  (void)ledger;
  unsigned wanted = 0;
  *ret_repeated = false;
  for (size_t i = 0; i < count; i++)
    wanted += verdict_outcome(items[i].verdict) != NULL;
  if (wanted == 0)
    return true;
  if (!statement_begin(session, AT_LEDGER, "ledger", ret_failure))
    return false;
  for (size_t i = 0; i < count; i++) {
    const SimEvent *event = event_of_id(&items[i].event->key.event_id);
    if (!verdict_outcome(items[i].verdict))
      continue;
    if (!wait_for_lock(session, blocks_entry, event, ret_failure))
      return false;
    *ret_repeated |= event->ledgered || is_inserted(session->tx, event);
  }
  Tx *tx = session->tx;
  if (*ret_repeated)
    return statement_end(session, "ledger: repeated", ret_failure);
  for (size_t i = 0; i < count; i++) {
    const char *outcome = verdict_outcome(items[i].verdict);
    if (!outcome)
      continue;
    SimEvent *event = event_of_id(&items[i].event->key.event_id);
    sim_trace("  ledger: %s %s", event->id, outcome);
    tx->inserts[tx->insert_count++] = (Insert){event, outcome};
  }
  return statement_end(session, "ledger", ret_failure);
}

bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure) {
  (void)ledger;
  if (!statement_begin(session, AT_LOOK, "find known", ret_failure))
    return false;
  g_autofree bool *known = g_new0(bool, count);
  for (size_t i = 0; i < count; i++) {
    const SimEvent *event = event_of_id(&items[i].event->key.event_id);
    known[i] = event->ledgered || is_inserted(session->tx, event);
  }
  if (!statement_end(session, "find known", ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (known[i]) {
      const SimEvent *event = event_of_id(&items[i].event->key.event_id);
      items[i].verdict = VERDICT_KNOWN;
      items[i].event->skipped = event->outcome && !strcmp(event->outcome, "skipped");
      counts.known++;
    }
  return true;
}

bool ledger_find_old(Session *session, const Ledger *ledger, const LedgerAge *age, unsigned skip,
                     unsigned limit, LedgerIds *ids, Failure *ret_failure) {
  (void)ledger;
  if (!statement_begin(session, AT_LOOK, "find old", ret_failure))
    return false;
  int64_t mysql_ms = sim_server_ms(MYSQL_SERVER), now_ms = MIN(mysql_ms, age->now_ms);
  for (unsigned i = 0; i < sim.event_count && ids->ids->len < limit; i++) {
    const SimEvent *event = &sim.events[i];
    if (!event->ledgered || event->ledgered_at >= now_ms - age->older_than_s * 1000)
      continue;
    if (skip > 0) {
      skip--;
      continue;
    }
    Id id = {ID_STRING, (uint32_t)strlen(event->id), 0, (const uint8_t *)event->id};
    g_array_append_val(ids->ids, id);
  }
  return statement_end(session, "find old", ret_failure);
}

bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids,
                   Failure *ret_failure) {
  (void)ledger;
  if (!statement_begin(session, AT_LOOK, "forget", ret_failure))
    return false;
  for (guint i = 0; i < ids->len; i++) {
    SimEvent *event = event_of_id(&g_array_index(ids, Id, i));
    if (event->present)
      sim_fail("%s is pruned from the ledger but is in the outbox", event->id);
    int64_t age_ms = (fiber_now_us() - event->ledgered_us) / 1000;
    if (age_ms < sim.config.settings.ledger_retention_s * 1000 - SKEW_MOST_MS)
      sim_fail("%s is pruned from the ledger after %lld ms", event->id, (long long)age_ms);
    event->ledgered = false;
    event->pruned = true;
    counts.pruned++;
  }
  return statement_end(session, "forget", ret_failure);
}

/* fake_mysql.c - a MySQL server in memory, behind infra/mysql: sessions, transactions, locks, the
 * ledger and the rows.
 *
 * A transaction's writes are its own until COMMIT. As on a real server, a statement outside of one
 * commits by itself, and START TRANSACTION inside of one commits that first. */
#include "projector/infra/mysql/apply.h"
#include "projector/infra/mysql/fence.h"
#include "projector/infra/mysql/ledger.h"
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

enum { LOCK_WAIT_MS = 10000, IDLE_S = 60 };

struct Session {
  unsigned generation; /* of the server's connections */
  bool lost;
  Tx *tx; /* NULL: none */
  bool implicit;
  int64_t used_at;
  int64_t idle_s; /* the server ends it when it is silent for so long */
};

static unsigned generation;

/* --- transactions on the server -------------------------------------------------------------- */

static void tx_end(Tx *tx) {
  g_ptr_array_remove(sim.transactions, tx);
  g_free(tx);
}

static Tx *tx_begin(void) {
  Tx *tx = g_new0(Tx, 1);
  tx->instance = fiber_instance();
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
    event->ledgered_at = fiber_now_us();
    event->applications++;
  }
  check_commit(tx);
  tx_end(tx);
}

/* The server notices only after a while that a client is gone; until then its locks stay. */
static void tx_abandon(Tx *tx) {
  tx->doomed = true;
  tx->dies_at = fiber_now_us() + (sim_chance(800) ? 0 : sim_between(0, 4000000));
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
    tx_abandon(session->tx);
  session->tx = NULL;
  session->lost = true;
}

/* What a failed statement leaves behind. */
static bool after_failure(Session *session, const Failure *failure) {
  if (failure->class == FAILURE_UNAVAILABLE)
    lose(session);
  else if (failure->class == FAILURE_CONFLICT && session->tx && sim_chance(500)) {
    tx_end(session->tx); /* a deadlock undoes all, a lock wait the statement only */
    session->tx = NULL;
  }
  return false;
}

static bool is_alive(Session *session) {
  bool idle = fiber_now_us() - session->used_at > session->idle_s * 1000000;
  if (session->generation != generation)
    session->tx = NULL; /* the server has ended it */
  if (session->generation != generation || idle)
    lose(session);
  return !session->lost;
}

static bool begin(Session *session, const char *what, Failure *ret_failure) {
  bool good = call_begin(MYSQL_SERVER, what, ret_failure);
  bury_the_dead();
  if (!is_alive(session))
    return fail(2013, "lost connection", ret_failure);
  session->used_at = fiber_now_us();
  if (!good)
    return after_failure(session, ret_failure);
  if (!session->tx) {
    session->tx = tx_begin();
    session->implicit = true;
  }
  return true;
}

static bool end(Session *session, const char *what, Failure *ret_failure) {
  if (session->implicit) {
    session->implicit = false;
    tx_commit(g_steal_pointer(&session->tx));
  }
  if (call_end(MYSQL_SERVER, what, ret_failure))
    return true;
  if (is_alive(session))
    lose(session);
  return false;
}

/* The statement failed by itself; outside of a transaction nothing stays of it. */
static bool refuse(Session *session, int code, const char *message, Failure *ret_failure) {
  if (session->implicit) {
    session->implicit = false;
    tx_end(g_steal_pointer(&session->tx));
  }
  sim_trace("  refused: %d %s", code, message);
  return fail(code, message, ret_failure);
}

Session *session_open(const MysqlSettings *settings, Failure *ret_failure) {
  (void)settings;
  if (!call_begin(MYSQL_SERVER, "connect", ret_failure) ||
      !call_end(MYSQL_SERVER, "connect", ret_failure))
    return NULL;
  Session *session = g_new0(Session, 1);
  session->generation = generation;
  session->used_at = fiber_now_us();
  session->idle_s = IDLE_S;
  return session;
}

void session_close(Session *session) {
  if (!session)
    return;
  if (session->generation == generation && session->tx)
    tx_abandon(session->tx);
  g_free(session);
}

int64_t session_idle_ms(const Session *session) {
  return (fiber_now_us() - session->used_at) / 1000;
}

static void start_transaction(Session *session) {
  if (!session->implicit)
    tx_commit(session->tx);
  else
    tx_end(session->tx);
  session->implicit = false;
  session->tx = tx_begin();
  fiber_read()->done = false;
}

static bool commit(Session *session, Failure *ret_failure) {
  session->implicit = false;
  tx_commit(g_steal_pointer(&session->tx));
  counts.commits++;
  return end(session, "COMMIT", ret_failure);
}

bool session_run(Session *session, Failure *ret_failure, const char *format, ...) {
  if (!begin(session, format, ret_failure))
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
  } else if (strcmp(format, "DO 0"))
    sim_fail("a statement that the simulation does not know: %s", format);
  return end(session, format, ret_failure);
}

void session_rollback(Session *session) {
  Failure ignored;
  bool good = call_begin(MYSQL_SERVER, "ROLLBACK", &ignored);
  if (!is_alive(session))
    return;
  if (session->tx && (good || ignored.class != FAILURE_UNAVAILABLE))
    tx_end(g_steal_pointer(&session->tx));
  if (!good && ignored.class == FAILURE_UNAVAILABLE)
    lose(session);
}

/* --- fence ------------------------------------------------------------------------------------ */

/* Whether another transaction keeps this one from going on. */
typedef bool (*Blocks)(const Tx *other, const void *wanted);

static bool is_blocked(const Tx *mine, Blocks blocks, const void *wanted) {
  bury_the_dead();
  for (guint i = 0; i < sim.transactions->len; i++)
    if (sim.transactions->pdata[i] != mine && blocks(sim.transactions->pdata[i], wanted))
      return true;
  return false;
}

static bool wait_for_lock(Session *session, Blocks blocks, const void *wanted,
                          Failure *ret_failure) {
  const Instance *instance = fiber_instance();
  int64_t until = fiber_now_us() + (int64_t)LOCK_WAIT_MS * 1000;
  while (is_blocked(session->tx, blocks, wanted)) {
    fiber_sleep_us(5000);
    if (instance && instance->killed)
      return failure_set(ret_failure, FAILURE_UNAVAILABLE, SOURCE_PROJECTOR, 0, "killed");
    session->used_at = fiber_now_us();
    if (!is_alive(session))
      return fail(2013, "lost connection", ret_failure);
    if (fiber_now_us() >= until)
      return refuse(session, 1205, "lock wait timeout", ret_failure);
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
  if (!begin(session, "take fence", ret_failure) || !lock_fence(session, true, ret_failure))
    return false;
  int64_t epoch = ++sim.epoch;
  if (!end(session, "take fence", ret_failure))
    return false;
  *ret_epoch = epoch;
  return true;
}

static bool enter(Session *session, const Ledger *ledger, Failure *ret_failure) {
  if (!begin(session, "enter", ret_failure) ||
      !lock_fence(session, ledger->epoch == 0, ret_failure))
    return false;
  if (ledger->epoch && ledger->epoch != sim.epoch) {
    counts.fenced++;
    sim_trace("  fenced: epoch %lld is not %lld", (long long)ledger->epoch, (long long)sim.epoch);
    end(session, "enter", ret_failure);
    return failure_set(ret_failure, FAILURE_FENCED, SOURCE_PROJECTOR, 0, "another works now");
  }
  return end(session, "enter", ret_failure);
}

/* --- positions ---------------------------------------------------------------------------------
 */

/* A row that is not there yet cannot be locked; one that another has inserted can. */
static bool blocks_position(const Tx *other, const void *aggregate) {
  return other->locked[*(const unsigned *)aggregate] || other->moved[*(const unsigned *)aggregate];
}

static bool read_positions(Session *session, AggregateSet *aggregates, Arena *arena,
                           Failure *ret_failure) {
  if (aggregate_set_count(aggregates) == 0)
    return true;
  if (!begin(session, "read positions", ret_failure))
    return false;
  aggregate_set_sort(aggregates);
  for (unsigned i = 0; i < aggregate_set_count(aggregates); i++) {
    AggregateState *state = aggregate_set_get(aggregates, i);
    unsigned aggregate = aggregate_of_id(&state->aggregate->id);
    if (!wait_for_lock(session, blocks_position, &aggregate, ret_failure))
      return false;
    session->tx->locked[aggregate] = sim.positions[aggregate].known;
    const SimPosition *position = session->tx->moved[aggregate] ? &session->tx->positions[aggregate]
                                                                : &sim.positions[aggregate];
    if (!position->known)
      continue;
    size_t length = strlen(position->id);
    Id id = {ID_STRING, (uint32_t)length, 0,
             (const uint8_t *)arena_copy(arena, position->id, length)};
    state->position = (Position){.known = true,
                                 .last = {position->occurred_at, position->version, id},
                                 .max_version = position->max_version,
                                 .refreshed_version = position->refreshed_version};
  }
  return end(session, "read positions", ret_failure);
}

/* The server runs the parts of the one statement one after the other. */
bool ledger_enter(Session *session, const Ledger *ledger, AggregateSet *aggregates, Arena *arena,
                  Failure *ret_failure) {
  return enter(session, ledger, ret_failure) &&
         read_positions(session, aggregates, arena, ret_failure);
}

bool ledger_write_positions(Session *session, const Ledger *ledger, const AggregateSet *aggregates,
                            Failure *ret_failure) {
  (void)ledger;
  if (!begin(session, "write positions", ret_failure))
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
  return end(session, "write positions", ret_failure);
}

/* --- ledger ------------------------------------------------------------------------------------
 */

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
  if (!begin(session, "ledger", ret_failure))
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
    return end(session, "ledger: repeated", ret_failure);
  for (size_t i = 0; i < count; i++) {
    const char *outcome = verdict_outcome(items[i].verdict);
    if (!outcome)
      continue;
    SimEvent *event = event_of_id(&items[i].event->key.event_id);
    sim_trace("  ledger: %s %s", event->id, outcome);
    tx->inserts[tx->insert_count++] = (Insert){event, outcome};
  }
  return end(session, "ledger", ret_failure);
}

bool ledger_find_known(Session *session, const Ledger *ledger, Item *items, size_t count,
                       Failure *ret_failure) {
  (void)ledger;
  if (!begin(session, "find known", ret_failure))
    return false;
  g_autofree bool *known = g_new0(bool, count);
  for (size_t i = 0; i < count; i++) {
    const SimEvent *event = event_of_id(&items[i].event->key.event_id);
    known[i] = event->ledgered || is_inserted(session->tx, event);
  }
  if (!end(session, "find known", ret_failure))
    return false;
  for (size_t i = 0; i < count; i++)
    if (known[i]) {
      items[i].verdict = VERDICT_KNOWN;
      counts.known++;
    }
  return true;
}

bool ledger_find_old(Session *session, const Ledger *ledger, int64_t older_than_s, unsigned limit,
                     LedgerIds *ids, Failure *ret_failure) {
  (void)ledger;
  if (!begin(session, "find old", ret_failure))
    return false;
  for (unsigned i = 0; i < sim.event_count && ids->ids->len < limit; i++) {
    const SimEvent *event = &sim.events[i];
    if (!event->ledgered || event->ledgered_at >= fiber_now_us() - older_than_s * 1000000)
      continue;
    Id id = {ID_STRING, (uint32_t)strlen(event->id), 0, (const uint8_t *)event->id};
    g_array_append_val(ids->ids, id);
  }
  return end(session, "find old", ret_failure);
}

bool ledger_forget(Session *session, const Ledger *ledger, const GArray *ids,
                   Failure *ret_failure) {
  (void)ledger;
  if (!begin(session, "forget", ret_failure))
    return false;
  for (guint i = 0; i < ids->len; i++) {
    SimEvent *event = event_of_id(&g_array_index(ids, Id, i));
    if (event->present)
      sim_fail("%s is pruned from the ledger but is in the outbox", event->id);
    event->ledgered = false;
    event->pruned = true;
    counts.pruned++;
  }
  return end(session, "forget", ret_failure);
}

/* --- rows --------------------------------------------------------------------------------------
 */

enum { ACCOUNT, TURNOVER, METER };

static bool blocks_row(const Tx *other, const void *aggregate) {
  return other->touched[*(const unsigned *)aggregate];
}

static State *row_of(Tx *tx, const Value *key) {
  Id id = {ID_STRING, key->length, 0, (const uint8_t *)key->text};
  unsigned aggregate = aggregate_of_id(&id);
  for (guint i = sim.transactions->len;
       i-- > 0;) { /* the server notices now whose client is gone */
    Tx *other = sim.transactions->pdata[i];
    if (other != tx && other->doomed && blocks_row(other, &aggregate))
      tx_end(other);
  }
  if (is_blocked(tx, blocks_row, &aggregate))
    sim_fail("two transactions write the rows of a%u at the same time", aggregate);
  if (!tx->touched[aggregate])
    tx->rows[aggregate] = sim.rows[aggregate];
  tx->touched[aggregate] = true;
  return &tx->rows[aggregate];
}

static bool *presence(State *state, unsigned projection) {
  return projection == TURNOVER ? &state->totalled : &state->present;
}

static void set_text(char text[static 24], const Value *value) {
  memset(text, 0, 24);
  if (value->kind == VALUE_TEXT)
    memcpy(text, value->text, MIN(value->length, 23));
}

/* Sums of deltas come as decimals. */
static int64_t number_of(const Value *value) {
  char text[32];
  if (value->kind != VALUE_DECIMAL)
    return value->integer;
  g_strlcpy(text, value->text, MIN(value->length + 1, sizeof text));
  return g_ascii_strtoll(text, NULL, 10);
}

static void write_column(State *state, unsigned projection, unsigned column, bool add,
                         const Value *value) {
  if (projection != TURNOVER && column == 0) {
    set_text(state->name, value);
  } else if (projection == ACCOUNT && column == 2) {
    set_text(state->note, value);
  } else {
    int64_t *number = projection == TURNOVER ? &state->total : &state->balance;
    *number = number_of(value) + (add ? *number : 0);
  }
}

static bool is_poisoned(const State *state) {
  if (strncmp(state->name, "poison", 6))
    return false;
  return fiber_now_us() < sim.events[strtol(state->name + 6, NULL, 10)].poison_until;
}

static bool run_row(Tx *tx, const FoldedRow *row, unsigned phase, int *ret_code) {
  unsigned projection = row->projection->index;
  unsigned columns = row->projection->column_count - row->projection->key_count;
  State *state = row_of(tx, &row->key[0]);
  if (phase == 0 && row->update) {
    *ret_code = 0;
    if (!*presence(state, projection))
      return false;
    for (unsigned i = 0; i < columns; i++)
      if (row->modes[i] != COLUMN_KEEP)
        write_column(state, projection, i, row->modes[i] == COLUMN_ADD, &row->updates[i]);
  } else if (phase == 1 && row->remove) {
    *presence(state, projection) = false;
    if (projection != TURNOVER)
      state->balance = 0, state->name[0] = state->note[0] = '\0';
  } else if (phase == 2 && row->write) {
    *presence(state, projection) = true;
    for (unsigned i = 0; i < columns; i++)
      write_column(state, projection, i, false, &row->row[i]);
  } else {
    return true;
  }
  *ret_code = 1366;
  return projection == TURNOVER || !is_poisoned(state);
}

static bool run_sql(Tx *tx, const Change *change, int *ret_code) {
  State *state = row_of(tx, &change->values[0]);
  *ret_code = 0;
  if (!state->present)
    return false;
  state->balance = (state->balance * 2 + 1) % 1000003;
  return true;
}

/* Table missing, disk full, a server out of its mind. */
static int trouble(const Step *step, const Projection **ret_culprit) {
  int64_t now = fiber_now_us();
  *ret_culprit = step->statement ? step->statement->rule->projection : NULL;
  for (guint i = 0; step->rows && i < step->rows->len; i++) {
    *ret_culprit = ((const FoldedRow *)step->rows->pdata[i])->projection;
    if ((*ret_culprit)->index == sim.faults.dropped)
      break;
  }
  if (!*ret_culprit)
    return 0;
  if ((*ret_culprit)->index == sim.faults.dropped && now < sim.faults.dropped_until)
    return 1146;
  if (now < sim.faults.full_until)
    return 1114;
  if (now < sim.faults.busy_until)
    return 1205;
  if (now < sim.faults.strange_until)
    return 9999;
  return step->rows && step->rows->len > sim.faults.size_limit ? 1153 : 0;
}

static bool run_step(Session *session, const Step *step, const Projection **ret_culprit,
                     Failure *ret_failure) {
  if (!begin(session, step->statement ? "sql" : "rows", ret_failure))
    return false;
  int code = trouble(step, ret_culprit);
  if (code)
    return refuse(session, code, "trouble", ret_failure);
  bool good = !step->statement || run_sql(session->tx, step->statement, &code);
  for (unsigned phase = 0; good && step->rows && phase < 3; phase++)
    for (guint i = 0; good && i < step->rows->len; i++) {
      const FoldedRow *row = step->rows->pdata[i];
      *ret_culprit = row->projection;
      good = run_row(session->tx, row, phase, &code);
    }
  if (good)
    return end(session, step->statement ? "sql" : "rows", ret_failure);
  if (code)
    return refuse(session, code, "poison", ret_failure);
  refuse(session, 0, "row missing", ret_failure);
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "row missing");
}

bool apply_fold(Session *session, const Fold *fold, const Projection **ret_culprit,
                Failure *ret_failure) {
  for (unsigned i = 0; i < fold_step_count(fold); i++)
    if (!run_step(session, fold_step(fold, i), ret_culprit, ret_failure))
      return false;
  return true;
}

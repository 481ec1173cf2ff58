/* fake_rows.c - the tables of the server in memory, behind infra/mysql/apply.h. */
#include "projector/infra/mysql/apply.h"
#include "projector/infra/mysql/rows.h"

#include "tests/sim/fake_mysql.h"

#include <stdlib.h>
#include <string.h>

enum { ANSWER_US = 12000000 /* a client gives up waiting for an answer */ };

static bool blocks_row(const Tx *other, const void *aggregate) {
  return other->touched[*(const unsigned *)aggregate];
}

static unsigned aggregate_of_key(const Value *key) {
  const Id id = {ID_STRING, key->length, 0, (const uint8_t *)key->text};
  return aggregate_of_id(&id);
}

static State *row_of(Tx *tx, const Value *key) {
  unsigned aggregate = aggregate_of_key(key);
  for (guint i = sim.transactions->len;
       i-- > 0;) { /* the server now notices whose client is gone */
    Tx *other = sim.transactions->pdata[i];
    if (other != tx && other->doomed && blocks_row(other, &aggregate))
      tx_end(other);
  }
  if (tx_is_blocked(tx, blocks_row, &aggregate))
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

/* The event whose name does harm at the moment; NULL: none. */
static const SimEvent *poison_in(const State *state) {
  if (strncmp(state->name, "poison", 6))
    return NULL;
  const SimEvent *event = &sim.events[strtol(state->name + 6, NULL, 10)];
  return fiber_now_us() < event->poison_until ? event : NULL;
}

/* Returns the code of the failure; 2013: the connection will break. */
static int do_harm(Session *session, const SimEvent *event) {
  switch (event->harm) {
  case HARM_REFUSED: break;
  case HARM_BREAKS: counts.broken++; return 2013;
  case HARM_SLOW:
    counts.slow++;
    fiber_sleep_us(ANSWER_US);
    session->used_at = fiber_now_us();
    session->runs_until = fiber_now_us() + sim_between(0, 60000000);
    return 2013;
  }
  return 1366;
}

static bool run_row(Session *session, const FoldedRow *row, unsigned phase, int *ret_code) {
  Tx *tx = session->tx;
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
  const SimEvent *poison = projection == TURNOVER ? NULL : poison_in(state);
  *ret_code = poison ? do_harm(session, poison) : 0;
  return !poison;
}

static bool run_sql(Tx *tx, const Change *change, int *ret_code) {
  State *state = row_of(tx, &change->values[0]);
  *ret_code = 0;
  if (!state->present)
    return false;
  state->balance = (state->balance * 2 + 1) % 1000003;
  return true;
}

/* A missing table, a full disk, an unknown error of the server. */
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

static bool touches(const Step *step, unsigned projection) {
  bool found = step->statement && step->statement->rule->projection->index == projection;
  for (guint i = 0; step->rows && i < step->rows->len && !found; i++)
    found = ((const FoldedRow *)step->rows->pdata[i])->projection->index == projection;
  return found;
}

/* A foreign lock on one table. False: it was kept longer than the server waits. */
static bool wait_for_table(Session *session, const Step *step) {
  int64_t until = fiber_now_us() + session->lock_wait_ms * 1000;
  if (fiber_now_us() >= sim.faults.locked_until || !touches(step, sim.faults.locked))
    return true;
  counts.locks++;
  while (fiber_now_us() < MIN(until, sim.faults.locked_until))
    fiber_sleep_us(50000);
  session->used_at = fiber_now_us();
  return fiber_now_us() < until;
}

static bool run_step(Session *session, const Step *step, const Projection **ret_culprit,
                     Failure *ret_failure) {
  if (!statement_begin(session, step->statement ? AT_SQL : AT_ROWS,
                       step->statement ? "sql" : "rows", ret_failure))
    return false;
  int code = wait_for_table(session, step) ? trouble(step, ret_culprit) : 1205;
  if (!session_is_alive(session))
    return statement_break_off(session, ret_failure);
  if (code)
    return statement_refuse(session, code, "trouble", ret_failure);
  bool good = !step->statement || run_sql(session->tx, step->statement, &code);
  for (unsigned phase = 0; good && step->rows && phase < 3; phase++)
    for (guint i = 0; good && i < step->rows->len; i++) {
      const FoldedRow *row = step->rows->pdata[i];
      *ret_culprit = row->projection;
      good = run_row(session, row, phase, &code);
    }
  if (good)
    return statement_end(session, step->statement ? "sql" : "rows", ret_failure);
  if (code == 2013)
    return statement_break_off(session, ret_failure);
  if (code)
    return statement_refuse(session, code, "poison", ret_failure);
  statement_refuse(session, 0, "row missing", ret_failure);
  return failure_set(ret_failure, FAILURE_DATA, SOURCE_EVENT, 0, "row missing");
}

bool apply_fold(Session *session, const Fold *fold, Culprit *ret_culprit, Failure *ret_failure) {
  for (unsigned i = 0; i < fold_step_count(fold); i++) {
    const Step *step = fold_step(fold, i);
    ret_culprit->statement = step->statement;
    if (!run_step(session, step, &ret_culprit->projection, ret_failure))
      return false;
  }
  return true;
}

/* No projection of the simulation marks its rows. */
bool rows_find_unmarked(Session *session, const Projection *projection, const Value *key,
                        bool *ret_unmarked, Failure *ret_failure) {
  if (!statement_begin(session, AT_LOOK, "find row", ret_failure))
    return false;
  *ret_unmarked = *presence(&sim.rows[aggregate_of_key(key)], projection->index);
  return statement_end(session, "find row", ret_failure);
}

bool rows_look(Session *session, const Projection *projection, const Value *key,
               RowState *ret_state, Failure *ret_failure) {
  bool there;
  if (!rows_find_unmarked(session, projection, key, &there, ret_failure))
    return false;
  *ret_state = there ? ROW_THERE : ROW_MISSING;
  counts.gone += !there;
  return true;
}

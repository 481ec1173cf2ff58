/* fake_probe.c - the probes of the server in memory, behind infra/mysql/probe.h: the real ones do
 * work that belongs to no event, and meet what any work would meet. */
#include "projector/infra/mysql/probe.h"

#include "tests/sim/fake_mysql.h"

enum { LOCK_WAIT_TIMEOUT = 1205 };

/* A client that no longer waits for an answer may have its session ended. */
static void end_session(unsigned long hung) {
  for (guint i = sim.transactions->len; i-- > 0;) {
    Tx *tx = sim.transactions->pdata[i];
    if (tx->session == hung && tx->doomed)
      tx->dies_at = fiber_now_us();
  }
}

static bool touch(Session *session, Place place, Failure *ret_failure) {
  return statement_begin(session, place, "probe", ret_failure) &&
         statement_end(session, "probe", ret_failure);
}

bool probe_server(const MysqlSettings *settings, const Ledger *ledger, unsigned long hung,
                  Failure *ret_failure) {
  (void)ledger;
  counts.probes++;
  g_autoptr(Session) session = session_open(settings, ret_failure);
  if (!session)
    return false;
  if (hung)
    end_session(hung);
  return session_run(session, ret_failure, "START TRANSACTION") &&
         touch(session, AT_LEDGER, ret_failure) &&
         touch(session, AT_WRITE_POSITIONS, ret_failure) && touch(session, AT_FENCE, ret_failure) &&
         session_run(session, ret_failure, "COMMIT");
}

/* The probe notices a table that is locked as a whole, but not locked rows. */
bool probe_table(const MysqlSettings *settings, const Projection *projection,
                 Failure *ret_failure) {
  (void)settings;
  int64_t now = fiber_now_us();
  if (!call_begin(MYSQL_SERVER, "probe table", ret_failure))
    return false;
  bool locked = now < sim.faults.locked_until && !sim.faults.only_rows &&
                projection->index == sim.faults.locked;
  if (locked || (now < sim.faults.busy_until && sim_chance(500)))
    return failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MYSQL, LOCK_WAIT_TIMEOUT,
                       "lock wait timeout");
  return call_end(MYSQL_SERVER, "probe table", ret_failure);
}

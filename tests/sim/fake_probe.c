/* fake_probe.c - what the server in memory says when it is asked, behind infra/mysql/probe.h. */
#include "projector/infra/mysql/probe.h"

#include "tests/sim/fake_mysql.h"

enum { LOCK_WAIT_TIMEOUT = 1205 };

unsigned long session_id(const Session *session) {
  (void)session;
  return 1;
}

/* A transaction of nobody's events: it meets the server's troubles, but changes no row. */
bool probe_server(const MysqlSettings *settings, const Ledger *ledger, unsigned long hung,
                  Failure *ret_failure) {
  (void)ledger;
  (void)hung;
  g_autoptr(Session) session = session_open(settings, ret_failure);
  return session && session_run(session, ret_failure, "START TRANSACTION") &&
         session_run(session, ret_failure, "COMMIT");
}

/* While rows are said to be locked, it is now and then the table. */
bool probe_table(const MysqlSettings *settings, const Projection *projection,
                 Failure *ret_failure) {
  (void)settings;
  (void)projection;
  if (!call_begin(MYSQL_SERVER, "probe table", ret_failure))
    return false;
  if (fiber_now_us() < sim.faults.busy_until && sim_chance(500))
    return failure_set(ret_failure, FAILURE_CONFLICT, SOURCE_MYSQL, LOCK_WAIT_TIMEOUT,
                       "lock wait timeout");
  return call_end(MYSQL_SERVER, "probe table", ret_failure);
}

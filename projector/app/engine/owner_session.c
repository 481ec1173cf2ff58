/* owner_session.c - a session that the server ends when its owner has been silent for a lease. */
#include "projector/app/engine/owner_session.h"

/* Bounds of the silence after which the server ends a session; in between it is the lease. */
enum { IDLE_MIN_S = 2, IDLE_MAX_S = 60 };

static int idle_s(const Config *config) {
  return (int)CLAMP(config->settings.lease_ms / 1000, IDLE_MIN_S, IDLE_MAX_S);
}

Session *owner_session_open(const Config *config, const Lanes *lanes, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  return session &&
                 session_run(session, ret_failure, "SET SESSION wait_timeout = %d",
                             idle_s(config)) &&
                 last_applied_check(lanes->last_applied, session, lanes_now_ms(lanes), ret_failure)
             ? g_steal_pointer(&session)
             : NULL;
}

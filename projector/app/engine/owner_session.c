/* owner_session.c - a session that the server ends when its owner is silent for a lease. */
#include "projector/app/engine/owner_session.h"

enum {
  IDLE_MIN_S = 2,  /* the server ends an owner's session that is silent for a lease, */
  IDLE_MAX_S = 60, /* within these bounds */
};

int64_t owner_session_idle_s(const Config *config) {
  return CLAMP(config->settings.lease_ms / 1000, IDLE_MIN_S, IDLE_MAX_S);
}

Session *owner_session_open(const Config *config, Failure *ret_failure) {
  g_autoptr(Session) session = session_open(&config->mysql, ret_failure);
  return session && session_run(session, ret_failure, "SET SESSION wait_timeout = %d",
                                (int)owner_session_idle_s(config))
             ? g_steal_pointer(&session)
             : NULL;
}

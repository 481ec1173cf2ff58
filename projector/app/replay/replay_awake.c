/* replay_awake.c - the sessions of a replay, which must neither be closed by the server nor dropped
 * by something on the way while another one works. */
#include "projector/app/replay/replay.h"

static bool keep_gate(const Replay *replay, Failure *ret_failure) {
  return !replay->gate || session_run(replay->gate, ret_failure, "DO 0") ||
         failure_prefix(ret_failure, "the session that holds up `run` before the swap was lost");
}

bool replay_keep_awake(Replay *replay, Failure *ret_failure) {
  const MysqlSettings *settings = &replay->config->mysql;
  return session_wake(&replay->session, settings, ret_failure) && keep_gate(replay, ret_failure) &&
         (!replay->renamer ||
          shadow_keep_reserved(&replay->renamer, settings, &replay->shadow, ret_failure));
}

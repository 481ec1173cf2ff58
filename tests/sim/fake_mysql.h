/* fake_mysql.h - what the files of the server in memory share: fake_mysql.c has sessions,
 * transactions and the ledger, fake_rows.c the rows. */
#pragma once

#include "tests/sim/sim.h"

struct Session {
  unsigned long number;
  unsigned generation; /* of the server's connections */
  bool lost;
  Tx *tx; /* NULL: none */
  bool implicit;
  int64_t runs_until; /* us; a statement that nobody waits for any longer */
  bool breaks;        /* after the effect of the statement in hand */
  int64_t used_at;
  int64_t idle_s; /* the server ends it when it is silent for so long */
  int64_t lock_wait_ms;
};

/* --- statements: each begins, has its effect, and ends; or is refused; or breaks the connection
 * --- */

bool statement_begin(Session *session, Place place, const char *what, Failure *ret_failure);
bool statement_end(Session *session, const char *what, Failure *ret_failure);
bool statement_refuse(Session *session, int code, const char *message, Failure *ret_failure);
bool statement_break_off(Session *session, Failure *ret_failure);
bool session_is_alive(Session *session);

/* --- transactions --- */

void tx_end(Tx *tx); /* what is not committed is undone */

/* Whether another transaction keeps this one from continuing. */
typedef bool (*Blocks)(const Tx *other, const void *wanted);
bool tx_is_blocked(const Tx *mine, Blocks blocks, const void *wanted);

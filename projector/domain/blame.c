/* blame.c - the rules of blame.h, class by class. */
#include "projector/domain/blame.h"

enum {
  RETRIES_MAX = 20,     /* of one transaction after conflicts, */
  RETRY_FOR_MS = 20000, /* but not for longer: then the batch is split, and others continue */
  LOCK_RETRIES = 1,     /* after a lock wait, which was long enough by itself */
  UNKNOWN_RETRIES = 3,  /* of one that met an error that no table lists */
  FULL_FOR_MS = 60000,  /* a lack of space is the server's; then its table is looked for */
};

enum {
  HANDLER_CHANGED = 1020,
  LOCK_WAIT_TIMEOUT = 1205,
  LOCK_TABLE_FULL = 1206,
  DEADLOCK = 1213,
  NO_WAIT = 3572,
};

bool blame_is_lock_wait(const Failure *failure) {
  return failure->source == SOURCE_MYSQL && failure->code == LOCK_WAIT_TIMEOUT;
}

bool blame_is_break(const Failure *failure) {
  int code = failure->code;
  return failure->source == SOURCE_MYSQL && failure->class == FAILURE_UNAVAILABLE &&
         (code == 2006 || code == 2013 || code == 2014 || code == 2055 || code == 1927 ||
          (code >= 1158 && code <= 1161));
}

/* Steps in which one of the events, or all of them together, can be the cause. */
static bool can_be_theirs(TransactionStep step) {
  return step == STEP_LEDGER || step == STEP_ROWS || step == STEP_COMMIT;
}

static Ruling split_or(const Case *the_case, Ruling alone) {
  return the_case->open > 1 ? RULING_SPLIT : alone;
}

/* The server's fault, or that of one event. A server that fails between successful probes is not
 * blamed forever: there are statements that bring a server down. */
static Ruling find_out(const Case *the_case) {
  if (the_case->probe == PROBE_NONE)
    return RULING_PROBE;
  if (the_case->probe == PROBE_BAD)
    return the_case->open == 1 && the_case->breaks >= BREAKS_MAX ? RULING_EVENT : RULING_STORE;
  return split_or(the_case, the_case->breaks + 1 >= BREAKS_MAX ? RULING_EVENT : RULING_COUNT);
}

/* A lock of another session on rows or a table, unless the table is the projector's own. */
static Ruling rule_lock(const Case *the_case, bool again) {
  if (the_case->failure->step != STEP_ROWS) {
    if (the_case->probe == PROBE_NONE)
      return RULING_PROBE;
    if (the_case->probe == PROBE_BAD)
      return RULING_STORE;
  } else if (the_case->tries > LOCK_RETRIES) {
    again = false;
  }
  return again ? RULING_RETRY : split_or(the_case, RULING_WAIT);
}

static Ruling rule_conflict(const Case *the_case) {
  const Failure *failure = the_case->failure;
  bool again = the_case->tries <= RETRIES_MAX && the_case->tried_ms < RETRY_FOR_MS;
  if (failure->step <= STEP_BEGIN)
    return RULING_STORE;
  switch (failure->code) {
  case LOCK_WAIT_TIMEOUT:
  case NO_WAIT: return rule_lock(the_case, again);
  case HANDLER_CHANGED:
  case LOCK_TABLE_FULL:
  case DEADLOCK:
  case 0:
    if (failure->step == STEP_ROWS || failure->step == STEP_ENTER ||
        failure->step == STEP_POSITIONS || failure->code == 0)
      return again ? RULING_RETRY : split_or(the_case, RULING_WAIT);
  }
  if (again)
    return RULING_RETRY;
  return can_be_theirs(failure->step) ? find_out(the_case) : split_or(the_case, RULING_WAIT);
}

static Ruling rule_unknown(const Case *the_case) {
  if (!can_be_theirs(the_case->failure->step))
    return RULING_STORE;
  if (the_case->tries <= UNKNOWN_RETRIES && the_case->probe == PROBE_NONE)
    return RULING_RETRY;
  if (the_case->failure->step != STEP_ROWS || the_case->probe != PROBE_GOOD)
    return find_out(the_case);
  return split_or(the_case, RULING_EVENT);
}

static Ruling rule_size(const Case *the_case) {
  switch (the_case->failure->step) {
  case STEP_ROWS: return split_or(the_case, RULING_EVENT);
  case STEP_LEDGER:
  case STEP_COMMIT: return the_case->open > 1 ? RULING_SPLIT : find_out(the_case);
  default: return split_or(the_case, RULING_STORE); /* our own statements do not match the tables */
  }
}

/* Most of these errors mean that the server refuses to work. But some, as of memory or of prepared
 * statements, can meet the statement of one event again and again while all others are served. */
static Ruling rule_unavailable(const Case *the_case) {
  bool broke = blame_is_break(the_case->failure);
  if (!can_be_theirs(the_case->failure->step) || (!broke && the_case->probe == PROBE_BAD))
    return RULING_STORE;
  return find_out(the_case);
}

/* A full disk, of which somebody has to be told. But if the server takes other transactions, and
 * this does not end, it is one table that is full, such as one in memory that a trigger writes to.
 */
static Ruling rule_space(const Case *the_case) {
  if (the_case->failure->step != STEP_ROWS || the_case->full_ms < FULL_FOR_MS)
    return RULING_STORE;
  if (the_case->probe == PROBE_NONE)
    return RULING_PROBE;
  return the_case->probe == PROBE_BAD ? RULING_STORE : split_or(the_case, RULING_WAIT);
}

Ruling blame_rule(const Case *the_case) {
  TransactionStep step = the_case->failure->step;
  switch (the_case->failure->class) {
  case FAILURE_CONFLICT: return rule_conflict(the_case);
  case FAILURE_UNKNOWN: return rule_unknown(the_case);
  case FAILURE_SIZE: return rule_size(the_case);
  case FAILURE_MAPPING: return step == STEP_ROWS ? RULING_PROJECTION : RULING_STORE;
  case FAILURE_DATA:
    if (step == STEP_ROWS)
      return split_or(the_case, RULING_EVENT);
    /* What is written to the ledger fits into it as sql/ has it: the table was changed. */
    return can_be_theirs(step) && step != STEP_LEDGER ? find_out(the_case) : RULING_STORE;
  case FAILURE_UNAVAILABLE: return rule_unavailable(the_case);
  case FAILURE_SPACE: return rule_space(the_case);
  default: return RULING_STORE; /* fenced, configuration */
  }
}

Failure blame_report(const Failure *failure, int breaks) {
  Failure report = *failure;
  if (failure->step == STEP_LEDGER || failure->step == STEP_COMMIT) {
    report.class = FAILURE_SIZE;
    failure_prefix(&report,
                   "fails alone at %s, while the server takes other transactions: too large?",
                   failure->step == STEP_COMMIT ? "COMMIT" : "the ledger");
  } else if (blame_is_break(failure) || failure->class == FAILURE_CONFLICT) {
    report.class = FAILURE_UNKNOWN;
    failure_prefix(&report,
                   "alone it broke the connection or ran too long %d times, while the server took "
                   "other transactions: its statement is too slow or too big",
                   breaks);
  } else if (failure->class == FAILURE_UNAVAILABLE) {
    report.class = FAILURE_UNKNOWN;
    failure_prefix(
        &report, "alone it was refused %d times, while the server took other transactions", breaks);
  }
  return report;
}

/* test_blame.c - whose fault a failure is: every rule as a row of a table. */
#include "projector/domain/blame.h"
#include "tests/unit/support.h"

#include <string.h>

typedef struct Row {
  const char *promise;
  TransactionStep step;
  FailureClass class;
  int code;
  size_t open;
  int tries;
  int64_t tried_ms;
  ProbeResult probe;
  int breaks;
  Ruling ruling;
} Row;

#define NONE PROBE_NONE
#define GOOD PROBE_GOOD
#define BAD PROBE_BAD
enum { LATE = 20000 };

static const Row rows[] = {
    {"data at the rows is found by halving", STEP_ROWS, FAILURE_DATA, 1366, 8, 1, 0, NONE, 0,
     RULING_SPLIT},
    {"and is the event's when it is alone", STEP_ROWS, FAILURE_DATA, 1366, 1, 1, 0, NONE, 0,
     RULING_EVENT},
    {"a table of ours that does not fit is never an event's", STEP_ENTER, FAILURE_DATA, 1366, 1, 1,
     0, NONE, 0, RULING_STORE},
    {"nor one that is missing", STEP_ENTER, FAILURE_MAPPING, 1146, 1, 1, 0, NONE, 0, RULING_STORE},
    {"nor at the ledger", STEP_LEDGER, FAILURE_MAPPING, 1146, 1, 1, 0, NONE, 0, RULING_STORE},
    {"nor a ledger that was changed", STEP_LEDGER, FAILURE_DATA, 1364, 1, 1, 0, NONE, 0,
     RULING_STORE},
    {"a table of the mapping that is missing is its projection's", STEP_ROWS, FAILURE_MAPPING, 1146,
     8, 1, 0, NONE, 0, RULING_PROJECTION},
    {"a statement too long: halves", STEP_ROWS, FAILURE_SIZE, 1153, 8, 1, 0, NONE, 0, RULING_SPLIT},
    {"a statement too long for one event", STEP_ROWS, FAILURE_SIZE, 1153, 1, 1, 0, NONE, 0,
     RULING_EVENT},
    {"positions of one event that do not fit", STEP_ENTER, FAILURE_SIZE, 1153, 1, 1, 0, NONE, 0,
     RULING_STORE},
    {"positions of many that do not fit", STEP_ENTER, FAILURE_SIZE, 1153, 8, 1, 0, NONE, 0,
     RULING_SPLIT},

    {"connect never", STEP_CONNECT, FAILURE_UNKNOWN, 3032, 1, 9, LATE, NONE, 9, RULING_STORE},
    {"BEGIN never", STEP_BEGIN, FAILURE_UNKNOWN, 9001, 1, 9, LATE, NONE, 9, RULING_STORE},
    {"fence and positions never", STEP_ENTER, FAILURE_UNKNOWN, 1047, 1, 9, LATE, NONE, 9,
     RULING_STORE},
    {"written positions never", STEP_POSITIONS, FAILURE_UNKNOWN, 1105, 1, 9, LATE, NONE, 9,
     RULING_STORE},
    {"a lost connection before the ledger is nobody's", STEP_ENTER, FAILURE_UNAVAILABLE, 2013, 1, 1,
     0, NONE, 9, RULING_STORE},

    {"an unknown code at the rows is retried", STEP_ROWS, FAILURE_UNKNOWN, 1815, 1, 3, 0, NONE, 0,
     RULING_RETRY},
    {"then the server is asked", STEP_ROWS, FAILURE_UNKNOWN, 1815, 1, 4, 0, NONE, 0, RULING_PROBE},
    {"it works: halves", STEP_ROWS, FAILURE_UNKNOWN, 1815, 8, 4, 0, GOOD, 0, RULING_SPLIT},
    {"it works: the event", STEP_ROWS, FAILURE_UNKNOWN, 1815, 1, 4, 0, GOOD, 0, RULING_EVENT},
    {"it does not: an outage", STEP_ROWS, FAILURE_UNKNOWN, 1815, 1, 4, 0, BAD, 0, RULING_STORE},

    {"the ledger refuses: the server is asked", STEP_LEDGER, FAILURE_UNKNOWN, 3100, 8, 4, 0, NONE,
     0, RULING_PROBE},
    {"it works: halves", STEP_LEDGER, FAILURE_UNKNOWN, 3100, 8, 4, 0, GOOD, 0, RULING_SPLIT},
    {"alone: counted", STEP_LEDGER, FAILURE_UNKNOWN, 3100, 1, 4, 0, GOOD, 1, RULING_COUNT},
    {"alone for the third time: the event's", STEP_LEDGER, FAILURE_UNKNOWN, 3100, 1, 4, 0, GOOD, 2,
     RULING_EVENT},
    {"the server takes no row at all", STEP_LEDGER, FAILURE_UNKNOWN, 3100, 1, 4, 0, BAD, 2,
     RULING_STORE},

    {"COMMIT too large: the server is asked", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 8, 4, 0, NONE, 0,
     RULING_PROBE},
    {"halves", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 8, 4, 0, GOOD, 0, RULING_SPLIT},
    {"alone: counted", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 1, 4, 0, GOOD, 0, RULING_COUNT},
    {"alone for the second time: counted", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 1, 4, 0, GOOD, 1,
     RULING_COUNT},
    {"alone for the third time: the event's", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 1, 4, 0, GOOD, 2,
     RULING_EVENT},
    {"the server takes no COMMIT at all", STEP_COMMIT, FAILURE_UNKNOWN, 3100, 1, 4, 0, BAD, 2,
     RULING_STORE},
    {"a conflict at COMMIT is retried", STEP_COMMIT, FAILURE_CONFLICT, 1213, 8, 1, 0, NONE, 0,
     RULING_RETRY},
    {"but one that comes again and again is looked into", STEP_COMMIT, FAILURE_CONFLICT, 1180, 1,
     21, 0, NONE, 0, RULING_PROBE},
    {"and may be the event's", STEP_COMMIT, FAILURE_CONFLICT, 1180, 1, 21, 0, GOOD, 2,
     RULING_EVENT},

    {"a cut connection at the rows: ask", STEP_ROWS, FAILURE_UNAVAILABLE, 2006, 8, 1, 0, NONE, 0,
     RULING_PROBE},
    {"the server is away", STEP_ROWS, FAILURE_UNAVAILABLE, 2006, 1, 1, 0, BAD, 2, RULING_STORE},
    {"an event that brings it down for the fourth time", STEP_ROWS, FAILURE_UNAVAILABLE, 2006, 1, 1,
     0, BAD, 3, RULING_EVENT},
    {"but never one of many", STEP_ROWS, FAILURE_UNAVAILABLE, 2006, 2, 1, 0, BAD, 3, RULING_STORE},
    {"the server is there: halves", STEP_ROWS, FAILURE_UNAVAILABLE, 2013, 8, 1, 0, GOOD, 0,
     RULING_SPLIT},
    {"alone: counted", STEP_ROWS, FAILURE_UNAVAILABLE, 2013, 1, 1, 0, GOOD, 0, RULING_COUNT},
    {"again and again: the event's", STEP_ROWS, FAILURE_UNAVAILABLE, 2013, 1, 1, 0, GOOD, 2,
     RULING_EVENT},
    {"refused at the rows, as by a server that is read-only: ask", STEP_ROWS, FAILURE_UNAVAILABLE,
     1290, 8, 1, 0, NONE, 0, RULING_PROBE},
    {"it is: an outage, however often", STEP_ROWS, FAILURE_UNAVAILABLE, 1290, 1, 1, 0, BAD, 9,
     RULING_STORE},
    {"it takes others: halves", STEP_ROWS, FAILURE_UNAVAILABLE, 1461, 8, 1, 0, GOOD, 0,
     RULING_SPLIT},
    {"it takes others: counted", STEP_ROWS, FAILURE_UNAVAILABLE, 1461, 1, 1, 0, GOOD, 0,
     RULING_COUNT},
    {"again and again: the event's", STEP_ROWS, FAILURE_UNAVAILABLE, 1461, 1, 1, 0, GOOD, 2,
     RULING_EVENT},
    {"refused before the ledger: an outage without a question", STEP_ENTER, FAILURE_UNAVAILABLE,
     1290, 1, 1, 0, NONE, 9, RULING_STORE},

    {"a deadlock is retried", STEP_ROWS, FAILURE_CONFLICT, 1213, 8, 20, 0, NONE, 0, RULING_RETRY},
    {"a lock wait is retried", STEP_ROWS, FAILURE_CONFLICT, 1205, 8, 1, 10000, NONE, 0,
     RULING_RETRY},
    {"but once: it has been long", STEP_ROWS, FAILURE_CONFLICT, 1205, 8, 2, 4000, NONE, 0,
     RULING_SPLIT},
    {"then the others go on", STEP_ROWS, FAILURE_CONFLICT, 1205, 8, 2, LATE, NONE, 0, RULING_SPLIT},
    {"and the event waits, for nothing", STEP_ROWS, FAILURE_CONFLICT, 1205, 1, 2, LATE, NONE, 0,
     RULING_WAIT},
    {"a lock of a table of ours: ask", STEP_ENTER, FAILURE_CONFLICT, 1205, 1, 1, 0, NONE, 0,
     RULING_PROBE},
    {"a table of ours is locked", STEP_ENTER, FAILURE_CONFLICT, 1205, 1, 1, 0, BAD, 0,
     RULING_STORE},
    {"one position is locked", STEP_ENTER, FAILURE_CONFLICT, 1205, 1, 2, LATE, GOOD, 0,
     RULING_WAIT},
    {"a lock wait at COMMIT", STEP_COMMIT, FAILURE_CONFLICT, 1205, 1, 1, 0, BAD, 0, RULING_STORE},
    {"a lock wait before the transaction", STEP_CONNECT, FAILURE_CONFLICT, 1205, 1, 1, 0, NONE, 0,
     RULING_STORE},
    {"a query that was killed at the rows, again and again", STEP_ROWS, FAILURE_CONFLICT, 3024, 1,
     21, 0, GOOD, 2, RULING_EVENT},

    {"a full disk is nobody's", STEP_ROWS, FAILURE_SPACE, 1114, 1, 1, 0, NONE, 9, RULING_STORE},
    {"fenced", STEP_ENTER, FAILURE_FENCED, 0, 1, 1, 0, NONE, 9, RULING_STORE},
    {"configuration", STEP_ROWS, FAILURE_CONFIG, 1142, 1, 1, 0, NONE, 9, RULING_STORE},
};

static void each_rule(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const Row *row = &rows[i];
    Failure failure = {
        .class = row->class, .source = SOURCE_MYSQL, .code = row->code, .step = row->step};
    Case one = {&failure, row->open, row->tries, row->tried_ms, row->probe, row->breaks, 0};
    if (blame_rule(&one) != row->ruling)
      fail_msg("%s: %d, not %d", row->promise, blame_rule(&one), row->ruling);
  }
}

/* A table that is full, while the server has room for others. */
static void space_that_never_comes_back(void **state) {
  (void)state;
  static const struct {
    TransactionStep step;
    size_t open;
    ProbeResult probe;
    int64_t full_ms;
    Ruling ruling;
  } cases[] = {
      {STEP_ROWS, 8, NONE, 59999, RULING_STORE}, {STEP_ROWS, 8, NONE, 60000, RULING_PROBE},
      {STEP_ROWS, 1, BAD, 60000, RULING_STORE},  {STEP_ROWS, 8, GOOD, 60000, RULING_SPLIT},
      {STEP_ROWS, 1, GOOD, 60000, RULING_WAIT},  {STEP_COMMIT, 1, GOOD, 60000, RULING_STORE},
  };
  for (size_t i = 0; i < COUNT_OF(cases); i++) {
    Failure failure = {.class = FAILURE_SPACE, .code = 1114, .step = cases[i].step};
    Case one = {&failure, cases[i].open, 1, 0, cases[i].probe, 9, cases[i].full_ms};
    assert_int_equal(blame_rule(&one), cases[i].ruling);
  }
}

/* Every failure, wherever it happens, gets an answer: after a probe there is no further
 * question. */
static void a_probe_answers_every_question(void **state) {
  (void)state;
  static const int codes[] = {0, 1020, 1205, 1213, 1317, 2006, 2013, 3100, 4999};
  for (int class = FAILURE_UNAVAILABLE; class <= FAILURE_UNKNOWN; class ++)
    for (int step = STEP_NONE; step <= STEP_COMMIT; step++)
      for (size_t c = 0; c < sizeof codes / sizeof *codes; c++)
        for (int tries = 1; tries < 30; tries += 7)
          for (int probe = PROBE_GOOD; probe <= PROBE_BAD; probe++) {
            Failure failure = {.class = (FailureClass) class,
                               .source = SOURCE_MYSQL,
                               .code = codes[c],
                               .step = (TransactionStep)step};
            for (size_t open = 1; open < 3; open++) {
              Case one = {&failure,
                          open,
                          tries,
                          tries * 1000,
                          (ProbeResult)probe,
                          tries,
                          tries * INT64_C(10000)};
              Ruling ruling = blame_rule(&one);
              assert_int_not_equal(ruling, RULING_PROBE);
              if (open > 1) { /* never one of many */
                assert_int_not_equal(ruling, RULING_EVENT);
                assert_int_not_equal(ruling, RULING_COUNT);
              }
              if (step < STEP_LEDGER || step == STEP_POSITIONS) {
                assert_int_not_equal(ruling, RULING_EVENT);
                assert_int_not_equal(ruling, RULING_COUNT);
              }
            }
          }
}

static void what_is_reported_says_whose_fault_it_is(void **state) {
  (void)state;
  Failure failure = {0};
  failure_set(&failure, FAILURE_UNAVAILABLE, SOURCE_MYSQL, 2013, "Lost connection");
  failure.step = STEP_ROWS;
  Failure reported = blame_report(&failure, 3);
  assert_int_equal(reported.class, FAILURE_UNKNOWN);
  assert_non_null(strstr(reported.message, "3 times"));
  assert_non_null(strstr(reported.message, "Lost connection"));
  failure_set(&failure, FAILURE_UNKNOWN, SOURCE_MYSQL, 3100, "hook");
  failure.step = STEP_COMMIT;
  reported = blame_report(&failure, 3);
  assert_int_equal(reported.class, FAILURE_SIZE);
  failure_set(&failure, FAILURE_DATA, SOURCE_MYSQL, 1366, "Incorrect");
  failure.step = STEP_ROWS;
  reported = blame_report(&failure, 1);
  assert_int_equal(reported.class, FAILURE_DATA);
  assert_string_equal(reported.message, "Incorrect");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(each_rule),
                                     cmocka_unit_test(space_that_never_comes_back),
                                     cmocka_unit_test(a_probe_answers_every_question),
                                     cmocka_unit_test(what_is_reported_says_whose_fault_it_is)};
  return RUN_TESTS(tests);
}

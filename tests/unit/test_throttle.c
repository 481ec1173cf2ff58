/* test_throttle.c - the lag of a replica over hours, on a clock and two ledgers of the test's own.
 */
#include "projector/app/engine/stop.h"
#include "projector/app/process/throttle.h"
#include "projector/infra/clock.h"
#include "projector/infra/log.h"
#include "projector/infra/mysql/replica.h"
#include "projector/infra/mysql/session_thread.h"
#include "tests/unit/support.h"

enum { LASTS_S = 10000, PRIMARY_PORT = 3306, REPLICA_PORT = 3307 };

struct Session {
  unsigned port;
};

static struct Session primary = {PRIMARY_PORT}, replica = {REPLICA_PORT};
static int64_t now_ms;
static int64_t stopped_s; /* then the replica gets its last entry */
static double told_s;     /* the lag, as of the last look */

/* --- in place of the servers and of time ---------------------------------------------------- */

int64_t clock_us(void) {
  return now_ms * 1000;
}

/* Linked in place of stop_wait, which would let the second pass. */
bool __wrap_stop_wait(Stop *stop, int64_t ms);
bool __wrap_stop_wait(Stop *stop, int64_t ms) {
  (void)stop;
  now_ms += ms;
  return now_ms >= (int64_t)LASTS_S * 1000;
}

MysqlSettings replica_settings(const MysqlSettings *of_primary, const char *address,
                               char **ret_host) {
  MysqlSettings settings = *of_primary;
  *ret_host = g_strdup(address);
  settings.port = REPLICA_PORT;
  return settings;
}

bool session_follow(Session **session, const MysqlSettings *settings, Failure *ret_failure) {
  (void)ret_failure;
  *session = settings->port == REPLICA_PORT ? &replica : &primary;
  return true;
}

/* The primary has a new entry each second. */
bool replica_newest(Session *session, const char *name, char ret_time[static LEDGER_TIME_SIZE],
                    Failure *ret_failure) {
  (void)name, (void)ret_failure;
  int64_t entry = now_ms / 1000;
  if (session->port == REPLICA_PORT)
    entry = MIN(entry, stopped_s);
  g_snprintf(ret_time, LEDGER_TIME_SIZE, "%010" G_GINT64_FORMAT, entry);
  return true;
}

void metrics_set_replica_lag(Metrics *metrics, bool lags, double worst_s) {
  (void)metrics, (void)lags;
  told_s = worst_s;
}

GThread *session_thread_new(const char *name, GThreadFunc run, gpointer data) {
  return g_thread_new(name, run, data);
}

/* --- what is not looked at here ------------------------------------------------------------- */

void session_close(Session *session) {
  (void)session;
}

Config *config_load(const char *file, Failure *ret_failure) {
  (void)file, (void)ret_failure;
  return NULL;
}

void config_free(Config *config) {
  (void)config;
}

void pace_set_rate(Pace *pace, int64_t per_s) {
  (void)pace, (void)per_s;
}

void pace_set_lagging(Pace *pace, bool lagging) {
  (void)pace, (void)lagging;
}

void log_write(LogLevel level, const char *message, const LogField *fields) {
  (void)level, (void)message, (void)fields;
}

void log_failure(LogLevel level, const char *message, const Failure *failure) {
  (void)level, (void)message, (void)failure;
}

/* -------------------------------------------------------------------------------------------- */

/* Of a replica that has stopped so long ago. */
static double lag_after(int64_t seconds) {
  static char address[] = "replica:3307", file[] = "/nowhere";
  g_autoptr(GPtrArray) replicas = g_ptr_array_new();
  g_ptr_array_add(replicas, address);
  const Config config = {.name = "bank",
                         .file = file,
                         .mysql = {.port = PRIMARY_PORT},
                         .settings = {.max_replica_lag_s = 10},
                         .replicas = replicas};
  now_ms = 0;
  stopped_s = LASTS_S - seconds;
  throttle_free(throttle_start(&config, NULL, NULL)); /* waits for the last look */
  return told_s;
}

static void test_a_lag_of_hours_is_measured(void **state) {
  (void)state;
  static const int64_t lags_s[] = {10, 3600, 7200, 9999};
  for (size_t i = 0; i < COUNT_OF(lags_s); i++) {
    g_autofree char *name = g_strdup_printf("%" G_GINT64_FORMAT " s", lags_s[i]);
    int64_t told = (int64_t)lag_after(lags_s[i]), coarseness = 3 + lags_s[i] / 10;
    check_that(name, told < lags_s[i], "no more than it is");
    check_that(name, told > lags_s[i] - coarseness, "and hardly less");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_lag_of_hours_is_measured),
  };
  return RUN_TESTS(tests);
}
